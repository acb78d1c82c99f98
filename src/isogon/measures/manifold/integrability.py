"""Whether the ranges of G fit together to leaves: the bracket test of Frobenius' theorem."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from isogon.data import Batches, as_batches
from isogon.errors import ModelError
from isogon.measures.manifold.tangent import BUDGET, Tangent, room, tangent
from isogon.nets import hygiene
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.labels import reported
from isogon.nets.outputs import logits
from isogon.nets.passes import PerSample, all_passes
from isogon.nets.watch import misfit
from isogon.readings import SampleTable
from isogon.registry import measure

CHUNK = 64  # samples whose second derivatives are taken together


@measure(cite="grementieri2022", shards=True, cost=4.0)
def integrability(model: Module, batches: Batches) -> SampleTable:
    r"""How far the distribution spanned by the gradients of logit differences is from integrable.

    Leaves exist around x if and only if the span of the vector fields X_i = grad f_i, with
    f_i = z_i - z_r the logit differences, is closed under brackets (Frobenius):

    [X_i, X_j] = H_j X_i - H_i X_j, with H_i the Hessian of f_i.

    ``residual`` = max over reference classes r and pairs i < j of
    \|(I - P)[X_i, X_j]\| / \|[X_i, X_j]\|, with P the projection onto the span, in [0, 1].
    A pair counts as 0 where \|[X_i, X_j]\| <= t (\|H_i\| \|X_j\| + \|H_j\| \|X_i\|), with
    t = 1e-12 in float64 (1000 eps where that is larger) and \|H_i\| = the largest stretch of
    any X_l by H_i. It is 0 inside a linear region of a network with ReLU, whose Hessians
    vanish, and in general not for smooth activations: their leaves are an approximation.

    All brackets come from (C - 1)^2 Hessian-vector products; no Hessian is formed.

    Args:
        model: Any twice differentiable module from [N, ...] to logits [N, C], C >= 3, with
            inputs of at least C numbers.
        batches: Samples (x [n, ...], y [n]), or inputs alone; labels are reported, not used.

    Returns:
        One row per sample: sample, label, residual, bracket (norm of the bracket at the
        maximum; 0 where all vanish), reference, class_i, class_j (of the maximum; -1 where
        all vanish).

    Raises:
        ModelError: Fewer than 3 classes, or inputs with fewer numbers than classes: the span
            is then integrable for want of room. A model that is random, depends on the batch or
            has no gradient; more classes than memory holds the brackets of.
        DataError: No samples.
    """
    check_finite(model)
    batches = as_batches(batches)
    example = batches.first(FEW)[0]
    examine(model, example, gradient=True, softmax=True)
    size = _chunk(model, example[:1])

    def residuals(x: Tensor, y: Tensor) -> pd.DataFrame:
        return pd.DataFrame(_residuals(model, x) | {"label": reported(y, len(x))})

    watcher = PerSample(residuals)
    all_passes(model, batches, [watcher], chunk=size, what="integrability")
    blocks = watcher.result()
    table = pd.concat(blocks, ignore_index=True)
    table.insert(0, "sample", np.arange(len(table)))
    table.insert(1, "label", table.pop("label"))
    return SampleTable(
        measure="integrability",
        table=table,
        units={"residual": "1"},
        meta={"data": getattr(batches, "name", None), "dtype": hygiene.precision(model)},
    )


def _chunk(model: Module, x: Tensor) -> int:
    """Samples whose C x C products of d numbers fit into memory together."""
    if not x.is_floating_point():
        return CHUNK
    with torch.no_grad(), hygiene.preserved(model) as inner:
        try:
            classes = logits(inner, hygiene.cast(x, inner)).flatten(1).shape[1]
        except (RuntimeError, IndexError) as error:
            raise misfit(x, error) from error
    one = 4 * 8 * classes**2 * (x[0].numel() + classes)  # products, and what is made of them
    room(
        one,
        f"{classes} classes and inputs of {x[0].numel()} numbers",
        hygiene.device_dtype(model)[0],
    )
    return max(1, min(CHUNK, 8 * BUDGET * 8 // one))


def brackets(products: Tensor, reference: int) -> Tensor:
    """[X_i, X_j] for all pairs of classes, relative to a reference class, [N, C, C, d].

    Args:
        products: H_k g_l for all classes k, l, [N, C, C, d], of z_k - z_0.
        reference: The class r.
    """
    shifted = products - products[:, :, reference, None] - products[:, reference, None]
    return shifted.transpose(1, 2) - shifted


def _residuals(model: Module, x: Tensor) -> dict[str, Any]:
    t = tangent(model, x)
    count = t.logits.shape[1]
    if t.outputs < 3 or x[0].numel() < count:
        raise ModelError(
            "integrability says nothing here",
            got=f"{t.outputs} outputs for inputs of {x[0].numel()} numbers",
            expected="at least 3 classes, and inputs of at least as many numbers",
            fix="Use a model with more classes, or larger inputs.",
        )
    gradients, products = _second_order(model, x)
    tolerance = max(1e-12, 1e3 * torch.finfo(x.dtype).eps)
    best = {
        "residual": np.zeros(len(x)),
        "bracket": np.zeros(len(x)),
        **{k: np.full(len(x), -1) for k in ("reference", "class_i", "class_j")},
    }
    i, j = torch.triu_indices(count, count, 1, device=x.device)
    for r in range(count):
        pairs = (i != r) & (j != r)
        a, b = i[pairs], j[pairs]
        bracket = brackets(products, r)[:, a, b]
        size = bracket.norm(dim=2)
        g = (gradients - gradients[:, r, None]).norm(dim=2)
        hg = (
            products
            - products[:, :, r, None]
            - products[:, r, None]
            + products[:, r, r, None, None]
        )
        stretch = hg.norm(dim=3) / g[:, None].clamp_min(1e-300)
        h = torch.where(g[:, None] > 0, stretch, 0.0).amax(2)
        live = size > tolerance * (h[:, a] * g[:, b] + h[:, b] * g[:, a])
        off = _off(t, bracket).norm(dim=2)
        residual = torch.where(live, off / size.clamp_min(1e-300), 0.0)
        top = residual.max(1)
        values = (size.gather(1, top.indices[:, None])[:, 0], a[top.indices], b[top.indices])
        better = (top.values.cpu().numpy() > best["residual"]) & live.any(1).cpu().numpy()
        best["residual"][better] = top.values.cpu().numpy()[better]
        best["reference"][better] = r
        for name, value in zip(("bracket", "class_i", "class_j"), values, strict=True):
            best[name][better] = value.cpu().numpy()[better]
    return best


def _off(t: Tangent, vectors: Tensor) -> Tensor:
    """Parts of vectors [N, K, d] that are off the span."""
    q = t.frame()
    off = vectors
    for _ in range(2):
        off = off - (off @ q.transpose(1, 2)) @ q
    return off


def _second_order(model: Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients g_k of z_k - z_0 [N, C, d] and products H_k g_l [N, C, C, d], float64."""
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attentions have no second derivative
            return _products(model, x)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise ModelError(
            "the model has no second derivatives",
            got=str(error).splitlines()[0][:160],
            expected="operations that can be differentiated twice",
            fix="Replace that operation by others of PyTorch's, or leave this measure out.",
        ) from error


def _products(model: Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.enable_grad(), hygiene.preserved(model) as model:
        leaf = x.detach().clone().requires_grad_(True)
        z = logits(model, leaf.clone())
        n, count = z.shape
        graphs = [
            torch.autograd.grad((z[:, k] - z[:, 0]).sum(), leaf, create_graph=True)[0]
            for k in range(1, count)
        ]
        vectors = [g.detach() for g in graphs]
        # Along directions of unit size, as powers of two tell: H g of logits of size 1e-30, as
        # networks of bad initialisation have them, is less than the smallest float32.
        sizes = [_power(v) for v in vectors]
        units = [
            torch.ldexp(v, -e.reshape(-1, *[1] * (v.dim() - 1))) for v, e in zip(vectors, sizes)
        ]
        products = torch.zeros(n, count, count, x[0].numel(), dtype=torch.float64, device=x.device)
        for k, g in enumerate(graphs):
            if not g.requires_grad:  # an affine model
                continue
            for m, v in enumerate(units):
                (hv,) = torch.autograd.grad(g, leaf, v, retain_graph=True, allow_unused=True)
                if hv is not None:
                    products[:, k + 1, m + 1] = torch.ldexp(
                        hv.flatten(1).double(), sizes[m][:, None]
                    )
    gradients = torch.stack([torch.zeros_like(vectors[0]), *vectors], 1)
    return gradients.flatten(2).double(), products


def _power(v: Tensor) -> Tensor:
    """The powers of two next above the largest entries of ``[N, ...]``, int32 ``[N]``."""
    return torch.frexp(v.flatten(1).abs().amax(1)).exponent
