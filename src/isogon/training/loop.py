"""The training loop: explicit, on lightning-fabric, and resumable after any step."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isogon import __version__, context
from isogon.errors import ModelError, OptionError
from isogon.training import building, feeds
from isogon.training.callbacks import Callback
from isogon.training.checkpoint import Checkpoint, load_state, normalized
from isogon.training.config import FitConfig
from isogon.training.evaluation import evaluate, loss_of
from isogon.training.schedule import learning_rate, make_optimizer
from isogon.training.state import (
    capture_optimizer,
    capture_random,
    isolated,
    restore_optimizer,
    restore_random,
)

LAST = "last.safetensors"


def fit(
    arch: str | nn.Module,
    data: Any,
    *,
    config: FitConfig | None = None,
    out: str | os.PathLike | None = None,
    validation: Any = None,
    test: Any = None,
    callbacks: Sequence[Callback] = (),
) -> Checkpoint:
    """Train a network.

    Minimises the mean loss over the training samples by mini-batch gradient descent. Equal
    arguments give bitwise equal weights (same machine, same number of threads), also when the
    run was killed and continued. Global random states and a module that is passed in are left
    as they were.

    Args:
        arch: Spec of an architecture (``cnn(width=32)``; channels, classes and image size are
            filled in from the data), of which a fresh model is trained, or a module, of which
            a copy is.
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

    config = config or FitConfig()
    folder = None if out is None else Path(out)
    if folder is None and (config.snapshot_every or config.snapshot_until or config.snapshot_at):
        raise OptionError(
            "snapshots need a folder", got="no out", expected="a folder", fix="Set out."
        )
    sets = feeds.resolve(data, config, validation=validation, test=test)
    loss = loss_of(config, sets.train.labels[:1])[0]
    with isolated(config.seed):
        outputs = building.outputs_of(sets.train, loss)
        net, spec = building.build(arch, sets.train, outputs)
    constants = feeds.constants(sets.train, config, sets.spec) if spec else None
    building.check_outputs(normalized(net, constants), sets.train, outputs, loss)
    facts = {
        "spec": spec,
        "normalize": constants,
        "data": sets.spec,
        "shape": list(sets.train.shape),
        "classes": list(sets.train.classes or []),
        "samples": len(sets.train),
        "config": config.as_dict(),
        "seed": config.seed,
    }
    start = find_start(folder, facts) if config.resume else None
    fabric = Fabric(accelerator=config.device, devices=1)
    run = Run(fabric, net, sets, config, facts, folder, callbacks)
    with isolated(config.seed):
        return run.train(start)


class Run:
    """One training run in progress; what callbacks see.

    Attributes:
        model: The model being trained, from raw inputs to logits.
        config: Its options.
        sets: Its data sets.
        epoch: Complete epochs.
        batch: Batches done of the epoch that has begun.
        step: Optimisation steps made.
        history: One row of metrics per complete epoch.
        out: Its folder, or None.
    """

    def __init__(
        self,
        fabric: Any,
        net: nn.Module,
        sets: feeds.Sets,
        config: FitConfig,
        facts: dict[str, Any],
        out: Path | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.fabric, self.net, self.sets, self.config = fabric, net, sets, config
        self.facts, self.out, self.callbacks = facts, out, list(callbacks)
        self.model = normalized(net, facts["normalize"]).train()
        self.optimizer = make_optimizer(config, net)
        self._wrapped, self._optimizer = fabric.setup(self.model, self.optimizer)
        self._loss_name, self._loss = loss_of(config, sets.train.labels[:1])
        self.feed = feeds.Feed(sets.train, config, rank=fabric.global_rank, world=fabric.world_size)
        self.epoch = self.batch = self.step = 0
        self.history: list[dict[str, float]] = []
        self.stopped: str | None = None
        self._sums = torch.zeros(2, dtype=torch.float64)  # loss, correct: of this epoch so far
        self._saved = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps in one epoch."""
        return self.feed.batches

    @property
    def steps(self) -> int:
        """Optimisation steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def stop(self, reason: str) -> None:
        """End training after the current epoch."""
        self.stopped = reason

    def train(self, start: Checkpoint | None) -> Checkpoint:
        """Train from the beginning, or from where a checkpoint stopped, to the end."""
        watched = {} if start is None else start.meta["state"].get("callbacks", {})
        if start is not None:
            self._restore(start)
        for callback in self.callbacks:
            with isolated():
                callback.start(self, watched.get(type(callback).__name__))
        if start is None:
            self._after_step()
        while self.epoch < self.config.epochs and self.stopped is None:
            self._train_epoch()
        for callback in self.callbacks:
            with isolated():
                callback.finish(self)
        found = self.checkpoint()
        if self.out is not None and (start is None or start.step < self.step):
            found.save(self.out / LAST)
        elif start is not None:
            found.path = start.path
        return found

    def _train_epoch(self) -> None:
        config, began = self.config, time.monotonic()
        self._wrapped.train()
        for x, y, count in self.feed.epoch(self.epoch, self.batch):
            x, y = self.fabric.to_device((x, y))
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, self.step, self.steps_per_epoch)
            output = self._wrapped(x)
            losses = self._loss(output, y)
            loss = losses.sum() / count
            self._optimizer.zero_grad()
            self.fabric.backward(loss)
            if config.clip:
                self.fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=config.clip)
            self._optimizer.step()
            self._sums[0] += losses.detach().double().sum().cpu()
            if self._loss_name == "cross_entropy":
                self._sums[1] += (output.detach().argmax(1) == y).sum().cpu()
            self.step, self.batch = self.step + 1, self.batch + 1
            if self.batch < self.steps_per_epoch:
                self._after_step()
        row = self._finish_epoch(time.monotonic() - began)
        for callback in self.callbacks:
            with isolated():
                callback.epoch(self, row)
        self._after_step()

    def _finish_epoch(self, seconds: float) -> dict[str, float]:
        self._check_finite()
        n = len(self.sets.train)
        row: dict[str, float] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": learning_rate(self.config, self.step - 1, self.steps_per_epoch),
            "running_loss": float(self._sums[0] / n),
        }
        if self._loss_name == "cross_entropy":
            row["running_accuracy"] = float(self._sums[1] / n)
        with isolated():
            row |= self.measure(train=self.config.train_accuracy)
        row["seconds"] = seconds
        self.history.append(row)
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums = torch.zeros_like(self._sums)
        if self.out is not None:
            import pandas as pd

            from isogon import storage

            # whole and atomic: after a kill the table is that of some complete epoch
            storage.write_table(self.out / "metrics.parquet", pd.DataFrame(self.history))
        return row

    def measure(self, *, train: bool = False) -> dict[str, float]:
        """Loss and accuracy on the held-out sets, and on the training samples by option."""
        wanted = {"train": self.sets.train if train else None}
        wanted |= {"validation": self.sets.validation, "test": self.sets.test}
        row = {}
        for name, samples in wanted.items():
            if samples is not None:
                found = evaluate(self.model, samples, config=self.config, fabric=self.fabric)
                row |= {f"{name}_{key}": value for key, value in found.items()}
        return row

    def _after_step(self) -> None:
        """Between two steps: progress, callbacks, snapshots and checkpoints that are due."""
        what = f"training on {self.facts['data'] or self.sets.train.name}"
        context.progress()(self.step, self.steps, what)
        for callback in self.callbacks:
            with isolated():
                callback.step(self)
        if self.out is None:
            return
        config, whole = self.config, self.batch == 0
        elapsed = time.monotonic() - self._saved
        due = whole and self.step > 0
        due = due or (config.checkpoint_every and self.step % config.checkpoint_every == 0)
        due = due or (config.checkpoint_seconds and elapsed > config.checkpoint_seconds)
        snapshot = self._snapshot()
        if not due and snapshot is None:
            return
        self._check_finite()
        found = self.checkpoint()
        if snapshot is not None:
            found.save(self.out / "snapshots" / snapshot)
        if due:
            found.save(self.out / LAST)
            self._saved = time.monotonic()

    def _snapshot(self) -> str | None:
        """File name of the snapshot that is due now, if one is."""
        config, whole = self.config, self.batch == 0
        every = config.snapshot_every
        due = whole and self.epoch > 0 and every and self.epoch % every == 0
        due = due or (whole and 0 < self.epoch <= config.snapshot_until)
        due = due or self.step in {round(f * self.steps) for f in config.snapshot_at}
        if not due:
            return None
        return (
            f"epoch-{self.epoch:04d}.safetensors" if whole else f"step-{self.step:08d}.safetensors"
        )

    def _check_finite(self) -> None:
        """Refuse to go on, and to overwrite a good file, after the loss has left the reals."""
        if not torch.isfinite(self._sums[0]):
            raise ModelError(
                "training diverged",
                got=f"a loss that is not finite before step {self.step}",
                expected="a finite loss",
                fix="Lower lr, add warmup, or set clip.",
            )

    # ------------------------------------------------------------------ state

    def checkpoint(self) -> Checkpoint:
        """The state between two steps, complete; its tensors are copies."""
        tensors, numbers = capture_optimizer(self.optimizer)
        meta = {
            **self.facts,
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "metrics": dict(self.history[-1]) if self.history else {},
            "history": [dict(row) for row in self.history],
            "state": {
                "optimizer": numbers,
                "sums": self._sums.tolist(),
                "stopped": self.stopped,
                "callbacks": {type(c).__name__: c.state() for c in self.callbacks},
            },
            "versions": {
                "isogon": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        return Checkpoint(
            {k: v.detach().cpu().clone() for k, v in self.net.state_dict().items()},
            meta,
            {k: v.detach().cpu().clone() for k, v in tensors.items()},
            capture_random(),
            template=None if self.facts["spec"] else self.net,
        )

    def _restore(self, start: Checkpoint) -> None:
        load_state(self.net, start.weights, what=self.facts["spec"] or "the module")
        restore_optimizer(self.optimizer, start.optimizer, start.meta["state"].get("optimizer", {}))
        restore_random(start.random)
        self.epoch, self.step, self.batch = start.epoch, start.step, start.meta["batch"]
        self.history = [dict(row) for row in start.meta["history"]]
        self.stopped = start.meta["state"].get("stopped")
        self._sums = torch.tensor(start.meta["state"]["sums"], dtype=torch.float64)


def find_start(folder: Path | None, facts: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint in ``folder`` that this run goes on from; None where there is none.

    Raises:
        OptionError: The folder holds a run with other options.
    """
    if folder is None or not (folder / LAST).exists():
        return None
    found = Checkpoint.load(folder / LAST)
    mine = {**facts, **FitConfig(**facts["config"]).trajectory(), "config": None}
    theirs = {**found.meta, **found.meta["config"], "config": None}
    for key, value in mine.items():
        if key == "epochs" and _prefix(facts["config"]):
            continue
        if theirs.get(key) != value:
            raise OptionError(
                f"{str(folder)!r} holds a run with another {key}",
                got=value,
                expected=theirs.get(key),
                fix="Choose another out, or set resume=false to start over.",
            )
    return found


def _prefix(config: dict[str, Any]) -> bool:
    """Whether a longer run begins exactly as a shorter one."""
    return config["schedule"] in ("constant", "step", "exponential")
