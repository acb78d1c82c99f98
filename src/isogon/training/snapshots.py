"""Snapshots: earlier states of a model, as training leaves them behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from isogon import context, registry
from isogon.errors import FileError, OptionError
from isogon.nets import load
from isogon.nets.weights import read_weights
from isogon.registry import register
from isogon.specs import WEIGHT_SUFFIXES, parse
from isogon.training.checkpoint import Checkpoint

LONGEST = 2**20  # characters of a list of snapshots


class Snapshots(Mapping[str, dict[str, Tensor]]):
    """Earlier states of one model by name, each read when it is asked for.

    Args:
        sources: By name: a module, a state dict, or a file of weights.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._sources = dict(sources)

    @classmethod
    def of(cls, given: Any) -> Snapshots:
        """Snapshots from a mapping, a list, a folder of checkpoints, one model, or None."""
        if given is None:
            return cls({})
        if isinstance(given, Snapshots):
            return given
        if isinstance(given, str | os.PathLike):
            return snapshots(str(given))
        if isinstance(given, Module) or _is_state(given):
            return cls({"snapshot": given})
        if isinstance(given, Mapping):
            return cls({str(k): v for k, v in given.items()})
        if isinstance(given, Sequence):
            files = [Path(g).stem for g in given if isinstance(g, str | os.PathLike)]
            labels = files if len(set(files)) == len(given) else list(map(str, range(len(given))))
            return cls(dict(zip(labels, given, strict=True)))
        raise OptionError(
            "these are no snapshots",
            got=type(given).__name__,
            expected="a folder, or models, state dicts or files by name",
        )

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        source = self._sources[name]
        if isinstance(source, str | os.PathLike) and str(source).endswith(WEIGHT_SUFFIXES):
            state, meta = read_weights(Path(source))
            source = Checkpoint.load(source) if meta else state
        elif isinstance(source, str | os.PathLike):
            source = load.load(source)
        if isinstance(source, Checkpoint):
            return source.state_dict()
        return dict(source.state_dict()) if isinstance(source, Module) else dict(source)

    def when(self, name: str) -> tuple[int, int] | None:
        """Epochs and steps that a snapshot had been trained for, where its file says so."""
        source = self._sources[name]
        return (source.epoch, source.step) if isinstance(source, Checkpoint) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@register(
    "noun",
    "Snapshots",
    help="a training run's folder of snapshots, a text file that lists them, or one earlier state",
    typed="trained(cnn, digits, epochs=1)",
    example="cnn(width=2, size=8)",
    default="@initial",
)
def snapshots(spec: str) -> Snapshots:
    """Snapshots from a spec: a training run's folder (or one of checkpoints), or one model.

    ``trained(cnn, digits, epochs=5, snapshot_every=1)`` names the snapshots of that run;
    ``list.txt`` those that stand in a text file, one file of weights per line (see `listed`).

    Raises:
        FileError: A folder without checkpoints, or a list that is none.
    """
    folder = Path(str(spec))
    if folder.suffix == ".txt":
        context.typed_only("open a file", spec)
        return Snapshots.of(listed(folder))
    parsed = None if folder.is_dir() else parse(spec)
    if parsed is not None and parsed.name == "trained" and "snapshot_" in " ".join(parsed.kwargs):
        from isogon.training import trained

        folder = registry.call(trained.folder, parsed, what="trained")
    if not folder.is_dir():
        return Snapshots({str(spec): load.load(spec)})
    inner = folder / "snapshots"
    files = sorted((inner if inner.is_dir() else folder).glob("*.safetensors"))
    if not files:
        raise FileError(
            f"no snapshots in {str(spec)!r}",
            got="a folder without .safetensors files",
            expected="what `isogon train --snapshot-every 1` writes",
            fix="Train with snapshots, or name another folder.",
        )
    found = {f.stem: Checkpoint.load(f) for f in files}
    order = sorted(found, key=lambda name: (found[name].step, name))
    return Snapshots({name: found[name] for name in order})


def listed(path: Path) -> list[Path]:
    """The files of weights that a text file lists, a line each, in their order.

    Empty lines and what follows ``#`` count for nothing. Names are relative to the list's folder,
    and may not lead out of it: whoever wrote the list decides about that folder only.

    Raises:
        FileError: It can't be read, or lists nothing, or something else.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            "a list of snapshots can't be read",
            got=f"{path}: {error}",
            expected="a text file with a file of weights per line",
        ) from error
    if len(text) > LONGEST:
        raise FileError(
            "a list of snapshots is too long",
            got=f"more than {LONGEST} characters in {path}",
            expected="a file of weights per line",
        )
    home = path.parent.resolve()
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = []
    for number, name in enumerate(lines, 1):
        if not name:
            continue
        file = path.parent / name
        inside = not Path(name).is_absolute() and file.resolve().is_relative_to(home)
        if not inside or not name.endswith(WEIGHT_SUFFIXES) or not file.is_file():
            raise FileError(
                "a list of snapshots names no snapshot",
                got=f"{name!r} in line {number} of {path}",
                expected=f"a file {', '.join(WEIGHT_SUFFIXES[:3])} in {home} or below",
                fix="Names are relative to the list's folder.",
            )
        found.append(file)
    if not found:
        raise FileError(
            "a list of snapshots is empty", got=str(path), expected="a file of weights per line"
        )
    return found


def _is_state(given: Any) -> bool:
    return isinstance(given, Mapping) and any(isinstance(v, Tensor) for v in given.values())
