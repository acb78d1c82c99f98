"""A model in the states of its snapshots, and how well it does in each."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from isogon.nets.labels import classes_of
from isogon.nets.origin import check_classes
from isogon.nets.outputs import correct
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.states import fitted, swapped
from isogon.nets.unwrap import unwrap
from isogon.nets.watchers import Key, Once
from isogon.training.snapshots import Snapshots

OWN = None  # stands for the model's own state


def sequence(model: Module, given: Snapshots, names: list[str]) -> list[str | None]:
    """The snapshots and then the model's `OWN` state, if it is not that of the last of them."""
    last = given[names[-1]] if names else {}
    own = _tensors(unwrap(model))
    same = all(k in last and torch.equal(v, last[k].to(v)) for k, v in own.items())
    return [*names] if names and same else [*names, OWN]


def states(model: Module, given: Snapshots, names: Sequence[str | None]) -> Generator[str | None]:
    """Put the model into one state after the other; yields their names.

    The tensors that the model came with are never written to, and are back in their places
    when the generator is closed.

    Raises:
        ModelError: A snapshot does not fit the model, or holds NaN or infinite values.
    """
    model = unwrap(model)
    own = _tensors(model)
    with swapped(model, {k: v.clone() for k, v in own.items()}):
        held = _tensors(model)  # one graph is traced: values change in place
        for name in names:
            state = own
            if name is not None:
                state = fitted(model, given[name], what=f"snapshot {name!r}")
            with torch.no_grad():
                for key, tensor in held.items():
                    tensor.copy_(state[key])
            yield name


def _tensors(model: Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}


def when(given: Snapshots, name: str | None) -> dict[str, float]:
    """Epoch and step of a snapshot, where they are known."""
    known = None if name is None else given.when(name)
    return {} if known is None else {"epoch": known[0], "step": known[1]}


class Score(Once):
    """Sums loss and right answers over logits: cross-entropy of classes, else squared error.

    One output tells class 1 from class 0.
    """

    sites = (LOGITS,)

    def __init__(self) -> None:
        self.count, self.right, self.loss = 0, 0.0, 0.0

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in logits and labels."""
        z = values[LOGITS].flatten(1).double()
        y = labels.to(z.device)
        self.count += len(z)
        if _real(y, z):
            self.loss += float((z - y.reshape(z.shape)).square().mean(1).sum())
            self.right = math.nan
            return
        classes = classes_of(y, z.shape[1], count=len(z))
        both = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
        self.loss += float(cross_entropy(both, classes, reduction="sum"))
        self.right += int(correct(z, classes).sum())

    def share(self) -> Score:
        """The same, empty."""
        return Score()

    def merge(self, other: Score) -> Score:
        """Add what another one has summed."""
        self.count += other.count
        self.right += other.right
        self.loss += other.loss
        return self

    def result(self) -> tuple[float, float]:
        """Accuracy and mean loss."""
        return self.right / self.count, self.loss / self.count


def score(model: Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Accuracy (NaN for real-valued labels) and mean loss of a model.

    Raises:
        DataError: No samples, labels that the outputs don't have, or other classes than those of
            the model's training.
    """
    check_classes(model, batches)
    watcher = Score()
    all_passes(model, batches, [watcher])
    return watcher.result()


def _real(y: Tensor, z: Tensor) -> bool:
    """Whether labels are numbers to be predicted: as many as outputs, and no classes 0 and 1."""
    if not y.is_floating_point() or y.numel() != z.numel() or bool(y.isnan().any()):
        return False
    return z.shape[1] > 1 or not bool(((y == 0) | (y == 1)).all())


def gap(scores: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Accuracy and loss on training and test data, and their differences."""
    row = {f"{k}_accuracy": v[0] for k, v in scores.items()}
    row |= {f"{k}_loss": v[1] for k, v in scores.items()}
    if len(scores) == 2:
        row["gap"] = scores["train"][0] - scores["test"][0]
        row["loss_gap"] = scores["test"][1] - scores["train"][1]
    return row
