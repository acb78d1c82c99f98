"""One run: the loop over steps, and its complete state between any two of them."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isogon import __version__, context, storage
from isogon.errors import FileError, ModelError
from isogon.nets.outputs import output_tensor
from isogon.training.callbacks import Callback
from isogon.training.checkpoint import Checkpoint, load_state, with_normalization
from isogon.training.config import FitConfig
from isogon.training.evaluation import evaluate, loss_of, right, total_of
from isogon.training.feeds import Feed, Sets
from isogon.training.resuming import LAST
from isogon.training.schedule import learning_rate, make_optimizer
from isogon.training.state import (
    capture_optimizer,
    capture_random,
    isolated,
    restore_optimizer,
    restore_random,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Run:
    """One training run in progress; what callbacks see.

    Attributes:
        model: The model being trained, from raw inputs to logits.
        net: The architecture within it.
        config: Its options.
        sets: Its data sets.
        facts: What its checkpoints say about it.
        out: Its folder, or None.
        epoch: Complete epochs.
        batch: Batches done of the epoch that has begun.
        step: Optimisation steps made.
        history: One row of metrics per complete epoch.
        stopped: Why training ends early, or None.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        feed: Feed,
        sets: Sets,
        config: FitConfig,
        facts: dict[str, Any],
        out: Path | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.fabric, self.net, self.sets, self.config = fabric, net, sets, config
        self.feed, self.facts, self.out = feed, facts, out
        self.callbacks = list(callbacks) if fabric.is_global_zero else []
        self.model = with_normalization(net, facts["normalize"]).train()
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(config, net)
        self._wrapped, self._optimizer = fabric.setup(self.model, self.optimizer)
        plain = fabric.world_size == 1 and config.precision == "32"
        self._forward = self.model if plain else self._wrapped
        self._dtype = next((p.dtype for p in net.parameters()), torch.float32)
        self._loss_name, self._loss = loss_of(config, sets.train.labels[:1])
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
        states = {} if start is None else start.meta["state"].get("callbacks", {})
        if start is not None:
            self._restore(start)
        if self.config.evaluate_only:
            return self._evaluated(start)
        for callback in self.callbacks:
            with isolated():
                callback.start(self, states.get(type(callback).__name__))
        if start is None:
            self._after_step()
        began = self.step
        while self.epoch < self.config.epochs and self.stopped is None:
            self._train_epoch()
        for callback in self.callbacks:
            with isolated():
                callback.finish(self)
        found = self.checkpoint()
        if self.out is not None:
            last = self.out / LAST
            if start is None or self.step > began or not last.exists():
                self._write(found, last)
            found.path = last
        return found

    def _evaluated(self, start: Checkpoint | None) -> Checkpoint:
        """The checkpoint with metrics measured afresh; on disk only a table is added."""
        with isolated():
            row = {
                "epoch": self.epoch,
                "step": self.step,
                **self.measure(train=self.config.train_accuracy),
            }
        found = self.checkpoint()
        found.meta["metrics"], found.path = row, None if start is None else start.path
        if self.out is not None and self.fabric.is_global_zero:
            import pandas as pd

            storage.write_table(self.out / "evaluation.parquet", pd.DataFrame([row]))
        return found

    # ------------------------------------------------------------------ steps

    def _train_epoch(self) -> None:
        began = time.monotonic()
        self._wrapped.train()
        for batch in self.feed.epoch(self.epoch, self.batch):
            self._train_step(*batch)
            self.step, self.batch = self.step + 1, self.batch + 1
            if self.batch < self.steps_per_epoch:
                self._after_step()
        row = self._finish_epoch(time.monotonic() - began)
        for callback in self.callbacks:
            with isolated():
                callback.epoch(self, row)
        self.stopped = self._agreed(self.stopped)
        self._after_step()

    def _train_step(self, x: Tensor, y: Tensor, counted: int, count: int) -> None:
        config = self.config
        x, y = self.fabric.to_device((x, y))
        if x.is_floating_point():
            x = x.to(self._dtype)
        if config.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self.steps_per_epoch)
        output = output_tensor(self._forward(x))
        losses = self._loss(output, y)[:counted]
        # Gradients are averaged over processes; their shares of a batch may differ by one.
        loss = losses.sum() * (self.fabric.world_size / count)
        self._optimizer.zero_grad()
        # Zero times the loss still gives every parameter a gradient, so decay acts on all.
        self.fabric.backward(loss if config.objective == "full" else loss * 0.0)
        if config.clip:
            self.fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=config.clip)
        self._optimizer.step()
        self._sums[0] += losses.detach().double().sum().cpu()
        if self._loss_name == "cross_entropy":
            self._sums[1] += right(output[:counted], y[:counted]).cpu()

    def _finish_epoch(self, seconds: float) -> dict[str, float]:
        sums = self._total()
        self._check_finite(sums)
        n = self.feed.count
        row: dict[str, float] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": learning_rate(self.config, self.step - 1, self.steps_per_epoch),
            "running_loss": float(sums[0] / n),
        }
        if self._loss_name == "cross_entropy":
            row["running_accuracy"] = float(sums[1] / n)
        with isolated():
            row |= self.measure(train=self.config.train_accuracy)
        row["seconds"] = seconds
        self.history.append(row)
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums = torch.zeros_like(self._sums)
        if self.out is not None and self.fabric.is_global_zero:
            import pandas as pd

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
            if type(callback).step is not Callback.step:
                with isolated():
                    callback.step(self)
        if self.out is None:
            return
        due, snapshot = self._due(), self._snapshot()
        if not due and snapshot is None:
            return
        found = self.checkpoint()
        self._check_finite(self._total())
        if snapshot is not None:
            self._write(found, self.out / "snapshots" / snapshot)
        if due:
            self._write(found, self.out / LAST)
            self._saved = time.monotonic()

    def _due(self) -> bool:
        """Whether ``last.safetensors`` is to be written now; the same in all processes."""
        config = self.config
        if self.step == 0:
            return False
        if self.batch == 0:
            return True
        if config.checkpoint_every and self.step % config.checkpoint_every == 0:
            return True
        if not config.checkpoint_seconds:
            return False
        return self._agreed(time.monotonic() - self._saved > config.checkpoint_seconds)

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

    # ------------------------------------------------------------------ processes

    def _agreed(self, value: Any) -> Any:
        """The main process's value, in every process."""
        return value if self.fabric.world_size == 1 else self.fabric.broadcast(value)

    def _total(self) -> Tensor:
        """The sums of this epoch so far, over all processes."""
        if self.fabric.world_size == 1:
            return self._sums
        device = self.fabric.device
        return total_of(self.fabric, self._sums.clone().to(device))

    def _write(self, found: Checkpoint, path: Path) -> None:
        if self.fabric.is_global_zero:
            found.save(path)
        if self.fabric.world_size > 1:
            self.fabric.barrier()

    def _check_finite(self, sums: Tensor) -> None:
        """Refuse to go on, and to overwrite a good file, after the loss has left the reals."""
        if not torch.isfinite(sums[0]):
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
        state = {
            "optimizer": numbers,
            "precision": self.fabric.strategy.precision.state_dict(),
            "sums": self._total().tolist(),
            "stopped": self.stopped,
            "callbacks": {type(c).__name__: c.state() for c in self.callbacks},
        }
        meta = {
            **self.facts,
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "metrics": dict(self.history[-1]) if self.history else {},
            "history": [dict(row) for row in self.history],
            "state": state,
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
            self._random(),
            template=None if self.facts["spec"] else self.net,
            typed=True,
        )

    def _random(self) -> dict[str, Tensor]:
        """Random states of all processes; those of process k > 0 under ``<k>/``."""
        mine = capture_random()
        if self.fabric.world_size == 1:
            return mine
        every: dict[str, Tensor] = {}
        for name, state in mine.items():
            if state.numel():
                rows = self.fabric.all_gather(state.to(self.fabric.device))
                assert isinstance(rows, Tensor)
                every |= {f"{k}/{name}" if k else name: row for k, row in enumerate(rows.cpu())}
        return every

    def _restore(self, start: Checkpoint) -> None:
        load_state(self.net, start.weights, what=self.facts["spec"] or "the module")
        meta, rank = start.meta, self.fabric.global_rank
        restore_optimizer(self.optimizer, start.optimizer, meta["state"].get("optimizer", {}))
        own = {k[len(f"{rank}/") :]: v for k, v in start.random.items() if k[0] == str(rank)}
        restore_random(own if rank else start.random)
        self.epoch, self.step, self.batch = start.epoch, start.step, meta["batch"]
        self.history = [dict(row) for row in meta["history"]]
        try:
            self.fabric.strategy.precision.load_state_dict(meta["state"].get("precision", {}))
            self.stopped = None if self.config.override else meta["state"].get("stopped")
            if rank == 0:  # the sums in a checkpoint are those of all processes
                self._sums = torch.tensor(meta["state"]["sums"], dtype=torch.float64).reshape(2)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise FileError(
                "the state in this checkpoint can't be restored",
                got=f"{type(error).__name__}: {error}",
                expected="the state of a run of isogon",
                fix="It was damaged or made by hand: train again.",
            ) from error
