"""`fit`: from specs and options to a trained checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from isogon import context, stopping
from isogon.errors import OptionError
from isogon.specs import Spec, parse
from isogon.storage import digests, references
from isogon.training import building, draws, feeds
from isogon.training.callbacks import Callback, Log, Stop, TensorBoard
from isogon.training.checkpoint import Checkpoint, with_normalization
from isogon.training.config import FitConfig
from isogon.training.evaluation import loss_of
from isogon.training.observing import Observe
from isogon.training.resuming import LAST, find_start, pointed
from isogon.training.run import Run
from isogon.training.state import isolated

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from isogon.data.batches import DataLike


_PARENT = "ISOGON_PARENT"
_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def fit(
    arch: str | Spec | nn.Module,
    data: DataLike,
    *,
    config: FitConfig | None = None,
    out: str | os.PathLike | None = None,
    validation: DataLike | None = None,
    test: DataLike | None = None,
    callbacks: Sequence[Callback] = (),
) -> Checkpoint:
    """Train a network.

    Minimises the mean loss over the training samples by mini-batch gradient descent. Equal
    arguments give bitwise equal weights (same machine, same number of threads), also when the
    run was killed at any moment and started again. Global random states and a module that is
    passed in are left as they were.

    Args:
        arch: Spec of an architecture (``cnn(width=32)``; channels, classes and image size are
            filled in from the data), of which a fresh model is trained (``ARCH@FILE`` begins
            with these weights), or a module, of which a copy is.
        data: What to learn from: a spec (``digits``, ``mnist(train, 1000)``), `Samples`,
            batches, or a pair of tensors ``x [N, ...]``, ``y [N]``.
        config: Options; the defaults where None.
        out: Folder for ``last.safetensors``, ``snapshots/`` and ``metrics.parquet``; nothing
            is written where None.
        validation: Held-out data, measured after each epoch.
        test: Test data, measured after each epoch; by default the test split of the data set
            that ``data`` names.
        callbacks: Watchers of the run.

    Returns:
        The last `Checkpoint`; ``checkpoint.model()`` is the trained model.

    Raises:
        OptionError: Options outside their domain, or ``out`` holds another run.
        DataError: The data can't be learned from.
        ModelError: Model and data do not fit, or the loss became NaN or infinite.
        FileError: ``out`` can't be written.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    context.typed_only("train", arch)
    config = config or FitConfig()
    folder = None if out is None else Path(out)
    if folder is None and (config.snapshot_every or config.snapshot_until or config.snapshot_at):
        raise OptionError(
            "snapshots need a folder", got="no out", expected="a folder", fix="Set out."
        )
    _check_device(config)
    alone = config.devices * config.nodes == 1
    fabric = Fabric(
        accelerator=config.device,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="auto" if alone else config.strategy,
        precision=_PRECISION[config.precision],  # type: ignore[arg-type]
        # a run by itself does not look for the cluster that it may happen to be on
        plugins=[LightningEnvironment()] if alone else None,
    )
    task = (arch, data, config, validation, test, tuple(callbacks))
    if config.devices == 1 or config.strategy != "ddp_spawn":
        with _family(alone):
            fabric.launch()
            return _work(fabric, *task, folder)
    # Tensors don't travel back from other processes; files do.
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        with stopping.with_children():
            fabric.launch(_spawned, _Parcel(*task, place))  # type: ignore[arg-type]
        found = Checkpoint.load(place / LAST)
        if isinstance(arch, nn.Module):
            found.template = copy.deepcopy(arch)
        return found


def _check_device(config: FitConfig) -> None:
    """Refuse devices that are not there before anything is built.

    Raises:
        OptionError: No such device, or not so many.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = there.get(config.device)
    if count is not None and count < config.devices:
        raise OptionError(
            f"not enough {config.device} devices",
            got=f"{config.devices} wanted, {count} here",
            fix="Use device=cpu, or fewer devices.",
        )
    if config.precision == "16" and config.device == "cpu":
        raise OptionError(
            "float16 needs a GPU", got="precision=16 on a CPU", expected="bf16 or 32 on a CPU"
        )


@contextmanager
def _family(alone: bool) -> Iterator[None]:
    """Inside, processes that run this command again know whose children they are: they end
    with the first one.
    """
    told = os.environ.get(_PARENT, "")
    if alone:
        yield
    elif told.isdigit() and os.environ.get("LOCAL_RANK", "0") != "0":
        with stopping.tied(int(told)):
            yield
    else:
        os.environ[_PARENT] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[_PARENT]


class _Parcel:
    """What a spawned process works on, with the surroundings of the one that started it."""

    def __init__(self, *task: Any) -> None:
        self.task = task
        self.around = {
            "data_root": context.data_root(),
            "cache_root": context.cache_root(),
            "download": context.download_allowed(),
        }


def _spawned(fabric: Fabric, parcel: _Parcel) -> None:
    """`_work` in a process of its own, which ends when the one that waits for it is gone."""
    with stopping.tied(), context.use(**parcel.around):
        _work(fabric, *parcel.task)


def _work(
    fabric: Fabric,
    arch: str | Spec | nn.Module,
    data: DataLike,
    config: FitConfig,
    validation: DataLike | None,
    test: DataLike | None,
    callbacks: Sequence[Callback],
    folder: Path | None,
) -> Checkpoint:
    """One process's part of a run."""
    config, found = pointed(config)
    sets = feeds.resolve(data, config, validation=validation, test=test)
    tries = config.restarts + 1
    for attempt in range(tries):
        seeded = dataclasses.replace(config, seed=config.seed + attempt, restarts=0)
        place = folder / f"restart-{attempt}" if folder and tries > 1 else folder
        done = _attempt(fabric, arch, sets, seeded, callbacks, place, found)
        if tries > 1 and _converged(done, config):
            break
    if tries > 1 and folder is not None and fabric.is_global_zero:
        done.save(folder / LAST)
    return done


def _converged(done: Checkpoint, config: FitConfig) -> bool:
    row = done.metrics
    reached = row.get("validation_accuracy", row.get("running_accuracy", 0.0))
    return reached >= config.stop_at


def _attempt(
    fabric: Fabric,
    arch: str | Spec | nn.Module,
    sets: feeds.Sets,
    config: FitConfig,
    callbacks: Sequence[Callback],
    folder: Path | None,
    found: Checkpoint | None,
) -> Checkpoint:
    """One run from its seed."""
    feed = feeds.Feed(sets.train, config, rank=fabric.global_rank, world=fabric.world_size)
    loss = loss_of(config, sets.train.labels[:1])[0]
    with isolated(config.seed):
        outputs = building.outputs_for(sets.train, loss)
        net, spec = building.build_network(arch, sets.train, outputs)
    constants = feeds.constants(sets.train, config, sets.spec) if spec else None
    building.check_fit(with_normalization(net, constants), sets.train, outputs, loss)
    named = None if isinstance(arch, nn.Module) else parse(arch)
    given = named is None or named.path is not None
    facts = {
        "spec": spec,
        "initial": digests.of(net) if given else None,
        "code": references.digest(named) if named is not None and named.module else None,
        "normalize": constants,
        "data": sets.spec,
        "data_digest": sets.train.digest(),
        "shape": list(sets.train.shape),
        "classes": list(sets.train.classes or []),
        "samples": len(sets.train),
        "config": config.as_dict(),
        "seed": config.seed,
    }
    start = find_start(folder, facts, config, found)
    # each process draws its own dropout masks
    rank = np.array([fabric.global_rank])
    stream = draws.bits(rank, seed=config.seed, purpose=draws.MODEL)[0, 0] >> np.uint64(1)
    with isolated(int(stream)):
        run = Run(fabric, net, feed, sets, config, facts, folder, [*configured(config), *callbacks])
        return run.train(start)


def configured(config: FitConfig) -> list[Callback]:
    """The callbacks that the options ask for."""
    found: list[Callback] = []
    if config.stop_patience or config.stop_at:
        found.append(Stop(config))
    if config.tensorboard is not None:
        found.append(TensorBoard(config.tensorboard))
    if config.log_file is not None:
        found.append(Log(config.log_file))
    if config.observe is not None:
        found.append(Observe(config.observe, every=config.observe_every, data=config.observe_data))
    return found
