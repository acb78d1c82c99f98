"""How many samples a model classifies right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from isogon.errors import DataError
from isogon.nets.labels import classes_of
from isogon.nets.origin import check_classes
from isogon.nets.outputs import correct
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.watchers import Key, Once


class Correct(Once):
    """Counts samples whose largest logit is their label.

    Args:
        key: ``LOGITS``, or ``(name, LOGITS)`` of one of several models.

    Attributes:
        right: Number of samples that are classified right.
        total: Number of samples.
    """

    def __init__(self, key: Key = LOGITS) -> None:
        self.sites = (key,)
        self.right = self.total = 0

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in logits ``[n, C]`` and labels ``[n]``.

        Raises:
            DataError: Labels that are not classes of the model.
        """
        z = values[self.sites[0]].flatten(1)
        self.right += int(correct(z, classes_of(labels, z.shape[1], count=len(z))).sum())
        self.total += len(z)

    def share(self) -> Correct:
        """The same, nothing counted."""
        return Correct(*self.sites)

    def merge(self, other: Correct) -> Correct:
        """Add what another one has counted."""
        self.right += other.right
        self.total += other.total
        return self

    def result(self) -> float:
        """The share of them, in [0, 1].

        Raises:
            DataError: No samples.
        """
        if not self.total:
            raise DataError("no samples", got="0 samples", expected="at least one batch")
        return self.right / self.total


def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of samples whose largest logit is their label.

    Args:
        model: A module from ``[N, ...]`` to ``[N, C]``; from ``[N, 1]`` for labels 0 and 1.
        batches: Pairs of inputs ``[n, ...]`` and integer labels ``[n]``.

    Returns:
        A number in [0, 1].

    Raises:
        DataError: No samples, labels that are not classes of the model or other classes than those
            that it was trained on, or outputs that are NaN.
    """
    check_classes(model, batches)
    watcher = Correct()
    all_passes(model, batches, [watcher])
    return watcher.result()
