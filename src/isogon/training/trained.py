"""``trained(arch, data, seed=..., epochs=...)``: a trained model as a spec, made once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from torch import nn

from isogon import context, registry, training
from isogon.data import samples
from isogon.errors import FileError, OptionError
from isogon.nets.origin import marked
from isogon.registry import register
from isogon.specs import DataSpec, ModelSpec, Spec, parse
from isogon.storage import digests, references
from isogon.storage.stamps import Stamp, note_again, noting, untouched
from isogon.training import building, feeds
from isogon.training.checkpoint import Checkpoint
from isogon.training.config import CIRCUMSTANCES, FitConfig, from_options
from isogon.training.evaluation import loss_of
from isogon.training.loop import fit
from isogon.training.resuming import LAST
from isogon.training.state import isolated

_SNAPSHOTS = ("snapshot_every", "snapshot_until", "snapshot_at")
_HARMLESS = {"device", "workers", "train_accuracy", "checkpoint_every", "checkpoint_seconds"}


@register("model", "trained", options=FitConfig)
def trained(
    arch: ModelSpec, data: DataSpec, *, seed: int = 0, epochs: int = FitConfig.epochs, **config: Any
) -> nn.Module:
    """A network trained by isogon, from the cache if it was trained before.

    The first call trains and keeps the result under ``context.cache_root()``; equal specs then
    give the same weights without training, as long as they stand for the same content: other
    data under the same name, other files, or another source of a user's own function are
    another network. Several processes may ask at once (one trains, the
    others wait), and a killed training goes on where it was.

    Args:
        arch: Spec of the architecture: ``cnn``, ``mlp(width=32)``.
        data: Spec of the data set: ``digits``, ``mnist(train, 1000)``.
        seed: Seed of initial weights, order of samples and augmentation.
        epochs: Passes over the training samples.
        **config: Any other option of `FitConfig`.

    Returns:
        The model in eval mode.

    Raises:
        OptionError: An unknown option.
    """
    options = from_options({"seed": seed, "epochs": epochs, **config})
    named = parse(arch)
    found = checkpoint(named, parse(data), options)
    model = found.model(_completed(named, found.spec))
    chosen = {k: v for k, v in options.as_dict().items() if v != FitConfig().as_dict()[k]}
    chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}
    source = Spec("trained", (arch, data), chosen)
    return marked(model, found.meta["classes"], source, found.meta["shape"])


def folder(
    arch: Spec, data: Spec, *, seed: int = 0, epochs: int = FitConfig.epochs, **config: Any
) -> Path:
    """The folder in the cache of the run behind ``trained(...)``, trained if it was not yet.

    With ``snapshot_every=1`` among the options its ``snapshots`` are there.
    """
    options = from_options({"seed": seed, "epochs": epochs, **config})
    checkpoint(parse(arch), parse(data), options)
    return home(parse(arch), parse(data), options)


def checkpoint(arch: Spec, data: Spec, config: FitConfig) -> Checkpoint:
    """The checkpoint behind ``trained(...)``: read from the cache, or trained into it."""
    from filelock import FileLock

    place = home(arch, data, config)
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if (done := _finished(place, config)) is not None:
            return done
        try:
            return fit(arch, data, config=config, out=place)
        except FileError:
            # A damaged file in our own cache is not worth more than the time to make it again;
            # any other reason (a full disk, missing data) shows again.
            for file in place.rglob(LAST):
                file.unlink(missing_ok=True)
            return fit(arch, data, config=config, out=place)


def _completed(typed: Spec, recorded: str | None) -> Spec | None:
    """A user's or another package's architecture with the numbers that its data decided.

    Our own cache wrote them; None where the architecture is isogon's own, which a checkpoint may
    name itself.
    """
    if typed.module is None and registry.is_own("arch", str(typed.name)):
        return None
    held = parse(recorded).kwargs if recorded else {}
    numbers = {k: v for k, v in held.items() if _number(v) and k not in typed.kwargs}
    return Spec(typed.name, typed.args, {**numbers, **typed.kwargs}, module=typed.module)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) or (
        isinstance(value, tuple) and all(isinstance(v, int | float) for v in value)
    )


def _finished(place: Path, config: FitConfig) -> Checkpoint | None:
    """The checkpoint in a folder if training is over; builds no model."""
    try:
        found = Checkpoint.load(place / LAST)
    except FileError:
        return None
    over = found.epoch >= config.epochs or found.meta["state"].get("stopped") is not None
    return found if over else None


def home(arch: Spec, data: Spec, config: FitConfig) -> Path:
    """Folder in the cache of the run that these specs and options describe.

    It is named by their text and by what the text stands for now: the content of the training
    samples, files, users' code. This reads the data once.
    """
    default = FitConfig().as_dict()
    chosen = config.trajectory() | {k: config.as_dict()[k] for k in _SNAPSHOTS}
    for name in sorted(CIRCUMSTANCES - set(_SNAPSHOTS) - _HARMLESS):
        if getattr(config, name) != getattr(FitConfig, name):
            raise OptionError(
                f"trained(...) takes no {name}",
                got=getattr(config, name),
                expected="options that decide the weights",
                fix="Use isogon train.",
            )
    key = {
        "arch": str(arch),
        "data": str(data),
        "content": _content(arch, data, config),
        "config": {k: v for k, v in chosen.items() if v != default[k]},
        "version": training.VERSION,
    }
    label = re.sub(r"\W+", "-", f"{arch.name}-{data.name}")[:60]
    return context.cache_root() / "trained" / f"{label}-{digests.of(key)[:24]}"


def _content(arch: Spec, data: Spec, config: FitConfig) -> str:
    """Digest of all that the specs and options of a run stand for, besides their text."""
    learned = _learned(data)
    options = {k: v for k, v in config.trajectory().items() if isinstance(v, str)}
    mark = digests.Digest(learned, references.digest(tuple(options.values())))
    if arch.module is not None:  # a function may read files of its own: see what it gives
        mark.add(_start(arch, data, config))
    return mark.add(references.digest(arch)).hex()


_seen: dict[tuple[str, ...], tuple[str, dict[str, Stamp]]] = {}  # data -> digest, files


def _learned(data: Spec) -> str:
    """Digest of the training samples, read once as long as their files are not touched."""
    key = (str(data), os.getcwd(), str(context.data_root()))
    if key in _seen and untouched(_seen[key][1]):
        note_again(_seen[key][1])
        return _seen[key][0]
    with noting() as files:
        found = samples(data, split="train").digest()
    if not references.runs_code(data):  # which may read what is not noted
        _seen[key] = found, dict(files)
    return found


def _start(arch: Spec, data: Spec, config: FitConfig) -> nn.Module:
    """The network as training finds it."""
    train = feeds.resolve(data, config).train
    outputs = building.outputs_for(train, loss_of(config, train.labels[:1])[0])
    with isolated(config.seed):
        return building.build_network(arch, train, outputs)[0]
