"""The subspace of input space in which a classifier changes its mind, at each sample.

With logits z and class probabilities p = softmax(z), the local data matrix
G(x) = J^T (diag p - p p^T) J has as its range the span of the C-1 gradients of logit
differences z_k - z_r. Taking the predicted class as the reference r keeps every quantity free
of cancellation where the network is confident: the gradients of log-probabilities, of which
one is a difference of nearly equal numbers, are never formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from isogon.errors import ModelError
from isogon.measures.manifold.merged import merged
from isogon.nets import hygiene
from isogon.nets.derivatives import inference_weights, no_gradient
from isogon.nets.finite import not_finite
from isogon.nets.outputs import logits
from isogon.nets.watch import misfit
from isogon.storage import physical_memory

BUDGET = 2**25  # numbers in one chunk of gradients: 256 MB in float64
FEW = 8  # samples below which one batched backward pass beats a loop of them


@dataclass(frozen=True)
class Tangent:
    """Gradients of the logit differences at a chunk of samples.

    Attributes:
        logits: [N, C], in the model's dtype. A model with one output counts as two classes
            with logits (0, z).
        reference: [N], the predicted class r of each sample.
        rows: [N, C-1, d], gradient of z_k - z_r in the flattened input, k ascending and
            leaving out r.
        outputs: Number of outputs that the model itself has: C, or 1.
    """

    logits: Tensor
    reference: Tensor
    rows: Tensor
    outputs: int

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities [N, C], float64."""
        return torch.softmax(self.logits.double(), dim=1)

    def select(self, mask: Tensor) -> Tangent:
        """Those of some samples, by mask or index."""
        return Tangent(self.logits[mask], self.reference[mask], self.rows[mask], self.outputs)

    def replace(self, mask: Tensor, other: Tangent) -> Tangent:
        """The same with other values at some samples."""
        mine = [f.clone() for f in (self.logits, self.reference, self.rows)]
        for field, new in zip(mine, (other.logits, other.reference, other.rows), strict=True):
            field[mask] = new
        return Tangent(*mine, outputs=self.outputs)

    def factor(self) -> Tensor:
        """S without the rows of the reference class, [N, C-1, C], float64.

        S = diag(sqrt p) - p sqrt(p)^T, so that S S^T = diag p - p p^T. As the difference
        z_r - z_r has no gradient, G = rows^T S S^T rows.
        """
        p = self.probabilities
        full = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
        count = p.shape[1]
        others = _others(self.reference, count)[:, :, None].expand(-1, -1, count)
        return full.gather(1, others)

    def gram(self) -> Tensor:
        """Inner products of the rows, [N, C-1, C-1], accumulated in float64."""
        rows = self.rows.double()
        return rows @ rows.transpose(1, 2)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of G that can differ from zero, and its trace.

        They are those of the C x C matrix S^T (J J^T) S; G itself, d x d, is not formed.

        Returns:
            Eigenvalues [N, C-1], descending and not negative, and traces [N]; float64.
        """
        s, gram = self.factor(), self.gram()
        small = s.transpose(1, 2) @ gram @ s
        values = torch.linalg.eigvalsh(small).flip(1)[:, : self.rows.shape[1]].clamp_min(0)
        return values, small.diagonal(dim1=1, dim2=2).sum(1)

    def directions(self, count: int) -> Tensor:
        """Unit eigenvectors of G for its ``count`` largest eigenvalues, [N, count, d].

        Their sign is chosen so that the entry of largest magnitude is positive; an eigenvalue
        that is zero has a zero vector.
        """
        s, rows = self.factor(), self.rows.double()
        small = s.transpose(1, 2) @ (rows @ rows.transpose(1, 2)) @ s
        values, vectors = torch.linalg.eigh(small)
        values, vectors = values.flip(1)[:, :count], vectors.flip(2)[:, :, :count]
        lifted = (s @ vectors).transpose(1, 2) @ rows
        norm = lifted.norm(dim=2, keepdim=True)
        live = (values > 1e-14 * values[:, :1]) & (values > 0)
        lifted = torch.where(live[:, :, None], lifted / norm.clamp_min(1e-300), 0.0)
        peak = lifted.gather(2, lifted.abs().argmax(2, keepdim=True))
        return lifted * torch.where(peak < 0, -1.0, 1.0)

    def project(self, vectors: Tensor) -> Tensor:
        """The part of each vector that lies in the range of G, [N, ...] like ``vectors``.

        B^T (B B^T)^+ B v with the rows B scaled to unit length. Directions whose singular
        value is below 100 eps times the largest are rounding noise of the backward passes,
        with eps of the model's dtype (and not under 1e-7, what the Gram matrix resolves).
        """
        rows, basis, inverse = self._basis
        flat = vectors.reshape(len(rows), -1).double()

        def once(v: Tensor) -> Tensor:
            inner = basis.transpose(1, 2) @ (rows @ v[:, :, None])
            return (rows.transpose(1, 2) @ (basis @ (inverse[:, :, None] * inner)))[:, :, 0]

        part = once(flat)
        part = part + once(flat - part)  # twice is enough: leaves no tangent part behind
        return part.reshape(vectors.shape).to(vectors.dtype)

    def frame(self) -> Tensor:
        """Orthonormal basis of the range of G, [N, C-1, d]; zero rows where it is smaller."""
        rows, basis, inverse = self._basis
        return inverse.sqrt()[:, :, None] * (basis.transpose(1, 2) @ rows)

    @property
    def rank(self) -> Tensor:
        """Dimension of the range of G as `project` sees it, [N]."""
        return (self._basis[2] > 0).sum(1)

    @cached_property
    def _basis(self) -> tuple[Tensor, Tensor, Tensor]:
        """Unit rows, eigenvectors of their Gram matrix, inverse eigenvalues (0: noise)."""
        rows = self.rows.double()
        norm = rows.norm(dim=2, keepdim=True)
        rows = torch.where(norm > 0, rows / norm.clamp_min(1e-300), 0.0)
        values, basis = torch.linalg.eigh(rows @ rows.transpose(1, 2))
        noise = min(max(100 * torch.finfo(self.rows.dtype).eps, 1e-7), 0.05)
        live = values > noise**2 * values[:, -1:].clamp_min(1e-300)
        return rows, basis, torch.where(live, 1 / torch.where(live, values, 1.0), 0.0)


def tangent(model: nn.Module, x: Tensor) -> Tangent:
    """Gradients of the C-1 logit differences at each sample, by C-1 backward passes.

    Args:
        model: Any module from [N, ...] to logits [N, C] or [N, 1].
        x: Samples [N, ...] on the model's device and in its dtype.

    Raises:
        ModelError: The output is not [N, C], or does not depend on the input by a
            differentiable path, or one sample's gradients don't fit into memory.
        DataError: Logits or gradients that are not finite.
    """
    if not x.is_floating_point():
        raise ModelError(
            "no gradient in the input exists",
            got=f"inputs of {x.dtype}",
            expected="real-valued inputs",
            fix="Measure the part of the model after its embedding.",
        )
    with torch.inference_mode(False), torch.enable_grad(), hygiene.preserved(model) as model:
        x = x.detach().clone().requires_grad_(True)
        with merged():
            z, outputs = _logits(model, x.clone())  # the copy: a first layer may work in place
        classes, numbers = z.shape[1], x[0].numel()
        # rows in the model's dtype and in float64; a Gram matrix, its factor, what is made of them
        needed = (classes - 1) * numbers * (x.element_size() + 8) + 5 * 8 * classes**2
        room(needed, f"{classes} classes and inputs of {numbers} numbers", x.device)
        reference = z.detach().argmax(1)
        rows = _gradients(model, z, x, reference)
    logits = z.detach()
    _check_finite(model, x, logits, rows)
    return Tangent(logits, reference, rows.reshape(len(logits), -1, x[0].numel()), outputs)


def tangents(
    model: nn.Module, x: Tensor, *, classes: int | None = None
) -> Iterator[tuple[slice, Tangent]]:
    """`tangent` of a batch in chunks that keep the gradients within a fixed memory.

    ``classes``, where known, saves the forward pass that finds it.
    """
    if not len(x):
        return
    if classes is None:
        with torch.no_grad(), hygiene.preserved(model):
            classes = _logits(model, x[:1])[0].shape[1]
    numbers = x[0].numel()
    size, start = max(1, BUDGET // max(1, (classes - 1) * max(numbers, classes))), 0
    while start < len(x):
        part = slice(start, min(start + size, len(x)))
        yield part, tangent(model, x[part])
        start = part.stop


def room(needed: int, what: str, device: torch.device) -> None:
    """Refuse what one sample alone has no room for: more than half of the memory.

    Raises:
        ModelError: Says how many bytes it would take.
    """
    if device.type == "cuda":
        limit = torch.cuda.get_device_properties(device).total_memory // 2
    else:
        limit = physical_memory() // 2
    if needed > limit:
        raise ModelError(
            "the gradients of one sample don't fit into memory",
            got=f"{needed:,} bytes ({needed / 1e9:.3g} GB) for {what}",
            expected=f"at most {limit:,} bytes",
            fix="Measure fewer classes: wrap the model so that it returns the logits of those "
            "that matter, z[:, :1000]; or smaller inputs.",
        )


def _logits(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Logits [N, C] with C >= 2 (one output z becomes (0, z)), and the number of outputs."""
    try:
        z = logits(model, x)
    except (RuntimeError, IndexError) as error:
        if "nference" in str(error):
            raise inference_weights() from error
        raise misfit(x, error) from error
    if z.dim() != 2 or z.shape[1] == 0:
        raise not_rows(z, x)
    if z.shape[1] == 1:
        return torch.cat([torch.zeros_like(z), z], 1), 1
    return z, z.shape[1]


def not_rows(z: Tensor, x: Tensor) -> ModelError:
    """The error for an output that is not one row of logits per sample."""
    return ModelError(
        "the model does not give one row of logits per sample",
        got=f"output {list(z.shape)} for input {list(x.shape)}",
        expected=f"[{len(x)}, classes]",
        fix="Wrap the model so that it returns logits, e.g. the mean of a map over its places.",
    )


def _gradients(model: nn.Module, z: Tensor, x: Tensor, reference: Tensor) -> Tensor:
    """Gradient of z_k - z_r for every class k but the reference r, [N, C-1, ...]."""
    if not z.requires_grad:
        raise no_gradient(model)
    others = _others(reference, z.shape[1])
    seeds = torch.zeros(*others.shape, z.shape[1], dtype=z.dtype, device=z.device)
    seeds.scatter_(2, others[:, :, None], 1.0)
    seeds.scatter_(2, reference[:, None, None].expand(-1, others.shape[1], 1), -1.0)
    seeds = seeds.transpose(0, 1)  # [C-1, N, C]
    if len(x) <= FEW and len(seeds) > 1:
        try:
            return _grad(z, x, seeds, batched=True).transpose(0, 1)
        except RuntimeError:  # an op without a batching rule: one pass at a time
            pass
    # one block per class: written in one piece, and read as a view with samples first
    rows = torch.empty(len(seeds), *x.shape, dtype=x.dtype, device=x.device)
    for k, seed in enumerate(seeds):
        rows[k] = _grad(z, x, seed, last=k == len(seeds) - 1)
    return rows.transpose(0, 1)


def _grad(z: Tensor, x: Tensor, seed: Tensor, *, batched: bool = False, last: bool = False):
    (gradient,) = torch.autograd.grad(
        z, x, seed, retain_graph=not last, is_grads_batched=batched, allow_unused=True
    )
    if gradient is None:
        shape = (*seed.shape[:1], *x.shape) if batched else x.shape
        return torch.zeros(shape, dtype=x.dtype, device=x.device)
    return gradient


def _others(reference: Tensor, classes: int) -> Tensor:
    """All classes but the reference, ascending, [N, C-1]."""
    k = torch.arange(classes - 1, device=reference.device)
    return k + (k >= reference[:, None]).long()


def _check_finite(model: nn.Module, x: Tensor, logits: Tensor, rows: Tensor) -> None:
    if bool(logits.sum().isfinite() & rows.sum().isfinite()):  # one pass, no copy
        return
    good = logits.isfinite().all(1) & rows.flatten(1).isfinite().all(1)
    if not good.all():
        raise not_finite(model, x.detach(), ~good, "the model's logits or their gradients")
