"""Loss and accuracy of a model on a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isogon.data import Batches, Samples
from isogon.data.labels import refuse_unlabelled
from isogon.errors import DataError, ModelError
from isogon.nets.hygiene import device_dtype
from isogon.nets.labels import classes_of
from isogon.nets.outputs import correct
from isogon.nets.passes import LOGITS, OUTPUT, one_pass
from isogon.nets.sites import Site
from isogon.nets.watchers import Key, Once
from isogon.training.config import FitConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(config: FitConfig, labels: Tensor) -> tuple[str, Loss]:
    """Name of the loss and the function from outputs and labels to one loss per sample.

    ``cross_entropy``: ``-log softmax(z)_y`` (with label smoothing by option), of one output z the
    softmax of (0, z); ``mse``: squared error, averaged over the outputs of a sample.

    Raises:
        DataError: No labels, or class labels wanted and they are not integers; the loss raises
            it for labels that are no class of the model.
    """
    refuse_unlabelled(labels)
    kind = config.loss
    if kind == "auto":
        kind = "mse" if labels.is_floating_point() else "cross_entropy"
    if kind == "cross_entropy" and labels.is_floating_point():
        raise DataError(
            "cross-entropy needs class labels",
            got=str(labels.dtype),
            expected="integers",
            fix="Use loss=mse.",
        )
    if kind == "mse":

        def squared(output: Tensor, y: Tensor) -> Tensor:
            if output.numel() != y.numel():
                raise ModelError(
                    "outputs and targets differ in shape",
                    got=list(output.shape),
                    expected=list(y.shape),
                    fix="Build the model with as many outputs as a target has numbers.",
                )
            error = _rows(output) - _rows(y).to(output.dtype)
            return error.square().mean(1)

        return kind, squared

    def entropy(output: Tensor, y: Tensor) -> Tensor:
        if output.dim() == 1 or (output.dim() == 2 and output.shape[1] == 1):
            output = output.reshape(-1, 1)
            output, outputs = torch.cat([torch.zeros_like(output), output], 1), 1
        else:
            outputs = output.shape[1]
        classes = classes_of(y, outputs, count=len(output), dense=output.dim() > 2)
        losses = nn.functional.cross_entropy(
            output, classes, reduction="none", label_smoothing=config.label_smoothing
        )
        return losses if losses.dim() == 1 else losses.flatten(1).mean(1)

    return kind, entropy


def right(output: Tensor, y: Tensor) -> Tensor:
    """How many samples are classified right (of dense outputs, by their share of places)."""
    if output.dim() > 2:
        same = output.detach().argmax(1) == y
        return same.flatten(1).double().mean(1).sum()
    return correct(_rows(output.detach()), y).sum()


def _rows(x: Tensor) -> Tensor:
    """``[n, ...]`` as ``[n, m]``; also of no samples (a worker's share of a last batch)."""
    return x[:, None] if x.dim() == 1 else x.flatten(1)


class LossSum(Once):
    """Sums losses and right answers over outputs.

    Args:
        kind: Name of the loss; that of classes comes with an accuracy.
        loss: From outputs and labels to one loss per sample.
        site: Of what: the model's output, or `LOGITS`, before a softmax.
    """

    def __init__(self, kind: str, loss: Loss, site: Site = OUTPUT) -> None:
        self.kind, self.loss, self.sites = kind, loss, (site,)
        self.sums = torch.zeros(3, dtype=torch.float64)  # samples, losses, right answers

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in outputs and labels."""
        output = values[self.sites[0]]
        y = labels.to(output.device)
        self.sums[0] += len(output)
        self.sums[1] += self.loss(output, y).double().sum().cpu()
        if self.kind == "cross_entropy":
            self.sums[2] += right(output, y).cpu()

    def share(self) -> LossSum:
        """The same, nothing summed."""
        return LossSum(self.kind, self.loss, *self.sites)

    def merge(self, other: LossSum) -> LossSum:
        """Add what another one has summed."""
        self.sums += other.sums
        return self

    def result(self) -> dict[str, float]:
        """Mean loss and, of classes, accuracy."""
        count, loss, good = self.sums.tolist()
        return {"loss": loss / count} | (
            {"accuracy": good / count} if self.kind == "cross_entropy" else {}
        )


def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    config: FitConfig | None = None,
    fabric: Fabric | None = None,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Mean loss, and accuracy for class labels, of a model in eval mode.

    Args:
        model: From raw inputs to logits ``[N, C]``, also behind a softmax (or to targets); left in
            the mode it came in.
        samples: The data set.
        config: For its loss; the default config where None.
        fabric: A launched fabric: each of its processes takes a share of the samples.
        batch_size: Samples per forward pass; by default at most 500, fewer of large inputs.

    Returns:
        ``loss`` and, for classes, ``accuracy`` in [0, 1].
    """
    kind, loss = loss_of(config or FitConfig(), samples.labels[:1])
    watcher = LossSum(kind, loss, LOGITS if kind == "cross_entropy" else OUTPUT)
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    size = batch_size or max(1, min(500, 2**22 // max(1, math.prod(samples.shape))))
    # the loss of a run that diverges is NaN, which is no error here
    batches = Batches(samples, size)
    one_pass(model, batches, [watcher], shard=(rank, world), numbers=False)
    if fabric and world > 1:
        sums = watcher.sums.to(device_dtype(model)[0])
        watcher.sums = total_of(fabric, sums)
    return watcher.result()


def total_of(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum of all processes' values, on the CPU."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu()


@torch.no_grad()
def penalty(model: nn.Module, weight_decay: float = 1.0) -> float:
    r"""The L2 penalty whose gradient is weight decay: ``weight_decay / 2`` times sum of theta^2.

    The sum is over the parameters that training changes (those that take gradients), biases and
    batch-norm included, each tensor once, in float64.

    Args:
        model: Any module.
        weight_decay: Weight of the penalty.

    Returns:
        What ``sgd`` with this weight decay adds to the loss.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
        >>> penalty(layer, 0.1)
        1.25
    """
    squares = (p.double().square().sum() for p in model.parameters() if p.requires_grad)
    return weight_decay / 2 * float(sum(squares))
