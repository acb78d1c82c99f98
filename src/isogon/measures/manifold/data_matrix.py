"""The local data matrix: in which directions of input space a classifier changes its mind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.errors import ModelError, OptionError
from isogon.measures.manifold.tangent import Tangent, tangents
from isogon.nets import hygiene
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.labels import reported
from isogon.nets.passes import PerSample, all_passes
from isogon.readings import SampleTable
from isogon.registry import measure


@measure(cite="grementieri2022", shards=True, cost=1.0)
def data_matrix(
    model: Module,
    batches: Batches,
    *,
    tolerances: tuple[float, ...] = (1e-3, 1e-6),
    eigenvectors: int = 0,
) -> SampleTable:
    r"""Size, spectrum and effective rank of the local data matrix at each sample.

    G(x) = E_{k ~ p(x)}[g_k g_k^T] with g_k = grad_x log p_k(x), the Fisher information of the
    class about the *input*: KL(p(x) || p(x + dx)) = dx^T G dx / 2 + O(\|dx\|^3). Its range is
    the tangent space of the data leaf through x, its kernel holds the directions in which the
    prediction does not move; rank G <= C - 1.

    G = J^T (diag p - p p^T) J with J [C, d] the Jacobian of the logits. With
    S = diag(sqrt p) - p sqrt(p)^T the eigenvalues l_1 >= l_2 >= ... that can differ from zero
    are those of the C x C matrix S^T (J J^T) S, which is formed in float64; C - 1 backward
    passes (differences to the predicted class) suffice. G, d x d, is never formed.

    - ``trace`` = sum_i l_i.
    - ``rank@t`` = number of l_i > t l_1, one column per tolerance.
    - ``stable_rank`` = trace / l_1 (that of the factor S^T J: squared Frobenius norm over
      squared spectral norm).
    - ``participation_ratio`` = (sum_i l_i)^2 / sum_i l_i^2.
    - ``entropy_rank`` = exp(-sum_i q_i log q_i) with q_i = l_i / trace.

    All four are 0 where G = 0, else between 1 and C - 1. Eigenvalues are in nats per squared
    unit of input (pixels in [0, 1]).

    Args:
        model: Any module from [N, ...] to logits [N, C]; a trailing (log-)softmax is taken
            off. One output is the logit of class 1 against class 0; with other labels than
            these it is a regression and refused.
        batches: Samples (x [n, ...], y [n]), or inputs alone; labels are reported, not used.
        tolerances: Relative to l_1, above which an eigenvalue counts towards a rank.
        eigenvectors: How many leading eigenvectors of G to keep per sample, as arrays
            ``eigenvectors`` [N, k, ...] of unit length in input space.

    Returns:
        One row per sample: sample, label, prediction, probability (of the prediction), trace,
        rank@t ..., stable_rank, participation_ratio, entropy_rank, eigenvalue_1 ..
        eigenvalue_{C-1}.

    Raises:
        ModelError: Weights that are not finite, or an output that is not one row of logits
            per sample of real-valued inputs; a model that is random, depends on the batch or
            has no gradient; more classes than memory holds the matrices of.
        DataError: No samples, or inputs that make the logits not finite.
        OptionError: A tolerance outside [0, 1).
    """
    if not tolerances or not all(0 <= t < 1 for t in tolerances):
        raise OptionError("tolerances must be relative", got=tolerances, expected="0 <= t < 1")
    if eigenvectors < 0:
        raise OptionError("can't keep that many eigenvectors", got=eigenvectors, expected=">= 0")
    check_finite(model)
    batches = as_batches(batches)
    examine(model, batches.first(FEW)[0], gradient=True, softmax=True)
    watcher = PerSample(_Spectra(model, tolerances, eigenvectors))
    all_passes(model, batches, [watcher], what="data matrix")
    found = [block for blocks in watcher.result() for block in blocks]
    columns, pictures, inputs = (list(part) for part in zip(*found))
    table = _joined(columns, tolerances)
    arrays, axes = {}, {}
    if eigenvectors:
        rest = tuple(f"dim_{i}" for i in range(pictures[0].dim() - 2))
        arrays["eigenvectors"] = torch.cat(pictures).numpy()
        arrays["inputs"] = torch.cat(inputs).numpy()
        axes = {"eigenvectors": ("sample", "rank", *rest), "inputs": ("sample", *rest)}
    per = "nats per squared unit of input"
    return SampleTable(
        measure="data_matrix",
        table=table,
        arrays=arrays,
        axes=axes,
        units={c: per for c in map(str, table) if c == "trace" or c.startswith("eigenvalue_")},
        meta=_meta(model, batches, tolerances) | {"summary": _summary(table)},
    )


class _Spectra:
    """Columns of a few samples at a time, their eigenvectors ``[n, k, ...]`` and their inputs."""

    def __init__(self, model: Module, tolerances: tuple[float, ...], eigenvectors: int) -> None:
        self.model, self.tolerances, self.eigenvectors = model, tolerances, eigenvectors
        self.classes: int | None = None

    def __call__(self, x: Tensor, y: Tensor) -> list[tuple[dict[str, Any], Tensor, Tensor]]:
        found = []
        for part, t in tangents(self.model, x, classes=self.classes):
            self.classes = t.logits.shape[1]
            labels = _labels(y[part], t)
            values, trace = t.spectrum()
            row = _row_block(t.probabilities, labels, values, trace, self.tolerances)
            pictures = inputs = x[:0]
            if self.eigenvectors:
                count = min(self.eigenvectors, values.shape[1])
                pictures = t.directions(count).reshape(-1, count, *x.shape[1:]).cpu()
                inputs = x[part].double().cpu()
            found.append((row, pictures, inputs))
        return found


def rank_column(tolerance: float) -> str:
    """Name of the column of a rank: 0.001 -> ``rank@1e-3``."""
    mantissa, exponent = f"{tolerance:.12e}".split("e")
    return f"rank@{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if tolerance else "rank@0"


def effective_ranks(values: np.ndarray) -> dict[str, np.ndarray]:
    """Stable rank, participation ratio and entropy rank of spectra [N, K], descending."""
    with np.errstate(divide="ignore", invalid="ignore"):
        total = values.sum(1)
        q = values / total[:, None]
        entropy = -np.where(q > 0, q * np.log(np.where(q > 0, q, 1.0)), 0.0).sum(1)
        ranks = {
            "stable_rank": total / values[:, 0],
            "participation_ratio": 1 / (q**2).sum(1),
            "entropy_rank": np.exp(entropy),
        }
    return {name: np.where(total > 0, rank, 0.0) for name, rank in ranks.items()}


def _row_block(
    p: Tensor, labels: np.ndarray, values: Tensor, trace: Tensor, tolerances: tuple[float, ...]
) -> dict[str, Any]:
    probability, prediction = p.max(1)
    spectrum = values.cpu().numpy()
    block = {
        "label": labels,
        "prediction": prediction.cpu().numpy(),
        "probability": probability.cpu().numpy(),
        "trace": trace.clamp_min(0).cpu().numpy(),
    }
    for t in tolerances:
        block[rank_column(t)] = (spectrum > t * spectrum[:, :1]).sum(1)
    return {**block, **effective_ranks(spectrum), "spectrum": spectrum}


def _joined(columns: list[dict[str, Any]], tolerances: tuple[float, ...]) -> pd.DataFrame:
    joined = {k: np.concatenate([c[k] for c in columns]) for k in columns[0]}
    spectrum = joined.pop("spectrum")
    joined.update({f"eigenvalue_{i + 1}": spectrum[:, i] for i in range(spectrum.shape[1])})
    return pd.DataFrame({"sample": np.arange(len(spectrum)), **joined})


def _labels(y: Tensor, t: Tangent) -> np.ndarray:
    """Labels as they came; a single output must be a logit, not a regression."""
    labels = reported(y, len(t.logits))
    if t.outputs == 1 and not np.isin(labels, (0, 1)).all() and not np.isnan(labels).all():
        raise ModelError(
            "one output and labels other than 0 and 1: a regression, which has no probabilities",
            got=f"labels {labels[:5].tolist()}",
            expected="a classifier with logits [N, C], or one logit with labels 0 and 1",
            fix="Use a classifier.",
        )
    return labels


def _summary(table: pd.DataFrame) -> dict[str, list]:
    """The columns that people look at first: mean, median and range over the samples."""
    columns = [c for c in map(str, table) if c not in ("sample", "label", "prediction")]
    shown = table[[c for c in columns if c == "eigenvalue_1" or not c.startswith("eigenvalue_")]]
    values = shown.to_numpy(dtype=float)
    statistics = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}
    rows = {name: f(values, axis=0).tolist() for name, f in statistics.items()}
    return {"column": list(shown.columns), **rows}


def _meta(model: Module, batches: Iterable, tolerances: tuple[float, ...]) -> dict[str, Any]:
    return {
        "data": getattr(batches, "name", None),
        "classes": list(getattr(batches, "classes", None) or []),
        "tolerances": list(tolerances),
        "dtype": hygiene.precision(model),
    }
