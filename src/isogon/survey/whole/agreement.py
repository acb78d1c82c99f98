"""How often two networks say the same, and which of them alone is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from isogon.data import Batches
from isogon.errors import IsogonError, ModelError
from isogon.nets.outputs import correct
from isogon.nets.passes import one_pass
from isogon.nets.watchers import LOGITS, Key


@dataclass
class Agreement:
    """A watcher that counts answers of two networks ``a`` and ``b``.

    Attributes:
        total: Samples.
        same: Those of which both say the same.
        only_a: Those that a alone has right.
        only_b: Those that b alone has right.
    """

    total: int = 0
    same: int = 0
    only_a: int = 0
    only_b: int = 0

    sites = (("a", LOGITS), ("b", LOGITS))

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in logits ``[n, C]`` of both, and labels."""
        z, w = (values[key].flatten(1) for key in self.sites)
        if z.shape != w.shape:
            raise ModelError(
                "outputs of two networks differ",
                got=f"{tuple(z.shape)}, {tuple(w.shape)}",
                expected="scores of the same classes",
            )
        w, y = w.to(z.device), labels.to(z.device)
        right, other = correct(z, y), correct(w, y)
        self.total += len(z)
        self.same += int((z.argmax(1) == w.argmax(1)).sum())
        self.only_a += int((right & ~other).sum())
        self.only_b += int((other & ~right).sum())


def agreement(a: nn.Module, b: nn.Module, data: Batches) -> dict[str, int]:
    """What two networks agree on, over all samples; empty where they have no classes in common."""
    watcher = Agreement()
    if data.first(2)[1].is_floating_point():
        return {}
    try:
        one_pass({"a": a, "b": b}, data, [watcher])
    except (IsogonError, RuntimeError):
        return {}  # outputs that are no scores of the same classes
    return asdict(watcher)
