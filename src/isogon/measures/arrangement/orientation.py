"""Orientation of a network's hyperplanes: which way do the filters of each layer point?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import Module

from isogon.errors import ModelError
from isogon.nets import hygiene
from isogon.nets.behaviour import is_quantised
from isogon.nets.finite import check_finite
from isogon.nets.states import weight_of
from isogon.nets.unwrap import unwrap
from isogon.readings import SiteTable
from isogon.registry import measure

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.LPPool1d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)


class OrientationTable(SiteTable):
    """Projections per filter; `summary` gives mean, mass and distances per site."""

    def summary(self) -> pd.DataFrame:
        """One row per site and a last one, ``network``, that pools every filter.

        Columns: site, stage, block, units, mean (of the projections), mass (share of the
        filters whose projection is not positive), mean_cosine, zero (filters that are zero),
        l2_distance and linf_distance from initialisation (NaN without one).
        """
        table: Any = self.table
        groups = table.groupby("site", sort=False)
        rows = [{"site": site, **_summary(group)} for site, group in groups]
        rows.append({"site": "network", **_summary(table), "stage": pd.NA, "block": pd.NA})
        frame = pd.DataFrame(rows).astype({"stage": "Int64", "block": "Int64"})  # all: no place
        for name in ("l2_distance", "linf_distance"):
            kept = self.arrays.get(name)
            frame[name] = np.full(len(frame), np.nan) if kept is None else kept
        return frame


@dataclass(frozen=True)
class Layer:
    """A weighted layer: its path, place and filters [units, inputs] in float64."""

    site: str
    stage: int
    block: int
    filters: Tensor
    dtype: torch.dtype


@measure(cite="gamba2022", cost=0.1, survey={"initial": "@initial"})
def orientation(
    model: Module,
    *,
    initial: Module | None = None,
    linear: bool = True,
    pointwise: bool = False,
    fold: bool = False,
) -> SiteTable:
    r"""How the filters of each layer lie to the all-ones direction, the positive orthant's axis.

    For filter w_i (its weights flattened, without bias; n of them)

    - ``projection`` = <w_i, 1> = sum of its weights: how its hyperplane faces inputs that are
      positive, such as activations after a ReLU; where it is not positive, the unit is off for
      every constant positive input;
    - ``cosine`` = <w_i, 1> / (\|w_i\| sqrt n), in [-1, 1].

    A filter that is zero has projection 0, cosine 0 (it has no direction) and ``zero`` true.
    ``reading.summary()`` gives per site, and for all filters of the network pooled, the mean
    and the ``mass`` of the non-positive, count(projection <= 0) / N; and per site the relative
    distance from initialisation \|W - W_0\| / \|W_0\| in the Euclidean and the largest-entry
    norm (of the weight as a vector, in the model's own dtype; 0 where both are zero, infinite
    where only W_0 is).

    Stage = number of pooling modules before the layer in module order (adaptive and global
    ones are not counted), block = index within the stage among the layers listed.

    Args:
        model: Any module; only its weights are read; projections are taken in float64. Filters
            of grouped and transposed convolutions are those of one output channel.
        initial: The same architecture with the weights that training started from.
        linear: Whether linear layers count.
        pointwise: Whether convolutions with a kernel of size 1 count.
        fold: Whether a batch-norm that directly follows a layer in module order, with as many
            features, is folded in: w_i gamma_i / sqrt(var_i + eps).

    Returns:
        One row per filter: site, stage, block, unit, projection, cosine, norm, zero.

    Raises:
        ModelError: No weighted layer, weights that are not finite, or an initial model whose
            layers are not those of the model.
    """
    check_finite(model)
    model = unwrap(model)
    layers = _layers(model, linear, pointwise, fold)
    twins: Iterator[Layer | None] = itertools.repeat(None)
    if initial is not None:
        check_finite(initial)
        initial = unwrap(initial)
        twins = itertools.chain(_layers(initial, linear, pointwise, fold), twins)
    blocks, changes = [], []
    for layer, twin in zip(layers, twins, strict=False):
        blocks.append(_rows(layer))
        if initial is not None:
            changes.append(_change(layer, twin))
    if not blocks:
        raise ModelError(
            "no layer to measure",
            got=f"{type(model).__name__} with {_census(model)}",
            expected="convolutions or linear layers",
            fix="Measure the float model that it was made from."
            if any(map(is_quantised, model.modules()))
            else "Set linear or pointwise to true if those are its layers.",
        )
    if initial is not None and (extra := next(twins)) is not None:
        raise _mismatch("no layer", _shown(extra))
    table: Any = pd.concat(blocks, ignore_index=True)
    arrays = _distances(np.array(changes)) if changes else {}
    return OrientationTable(
        measure="orientation",
        table=table,
        arrays=arrays,
        axes=dict.fromkeys(arrays, ("site",)),
        coords={"site": [*table["site"].unique(), "network"]} if arrays else {},
        units={"projection": "sum of weights", "cosine": "1", "norm": "weight"},
        meta={
            "linear": linear,
            "pointwise": pointwise,
            "fold": fold,
            "initial": initial is not None,
            "zero_filters": int(table["zero"].sum()),
            "dtype": hygiene.precision(model),
        },
    )


def filters(module: Module) -> Tensor | None:
    """Filters [units, inputs] of a weighted layer in float64; None for any other module.

    Unit o of a transposed convolution with g groups reads the input channels of its own
    group: rows i of ``weight[i, o mod (out / g)]`` with i in that group.
    """
    if not isinstance(module, WEIGHTED):
        return None
    found = weight_of(module)
    assert found is not None
    weight = found.double()
    if isinstance(module, TRANSPOSED):
        g, kernel = module.groups, weight.shape[2:]
        grouped = weight.reshape(g, weight.shape[0] // g, weight.shape[1], *kernel)
        weight = grouped.transpose(1, 2)
        return weight.reshape(g * weight.shape[1], -1)
    return weight.reshape(weight.shape[0], -1)


def _layers(model: Module, linear: bool, pointwise: bool, fold: bool) -> Iterator[Layer]:
    stage, block = 0, 0
    order = [
        (path, m)
        for path, m in model.named_modules()
        if (isinstance(m, WEIGHTED) or not any(m.children()))
        and "parametrizations" not in path.split(".")
    ]
    for place, (path, module) in enumerate(order):
        if isinstance(module, POOLS):
            stage, block = stage + 1, 0
            continue
        if not isinstance(module, WEIGHTED):
            continue
        if isinstance(module, nn.Linear):
            if not linear:
                continue
        elif not pointwise and set(module.kernel_size) == {1}:
            continue
        w = filters(module)
        assert w is not None
        if fold and place + 1 < len(order):
            w = w * _scale(order[place + 1][1], len(w)).to(w)
        dtype = module.weight.dtype
        yield Layer(path or "model", stage, block, w.cpu(), dtype)
        block += 1


def _scale(norm: Module, units: int) -> Tensor:
    """Factor [units, 1] by which a batch-norm in evaluation mode multiplies each unit."""
    if not isinstance(norm, NORMS) or norm.num_features != units or norm.running_var is None:
        return torch.ones(1, dtype=torch.float64)
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    return scale[:, None]


def _rows(layer: Layer) -> pd.DataFrame:
    w = layer.filters
    projection, norm = w.sum(1), w.norm(dim=1)
    zero = (w == 0).all(1)
    scaled = w / w.abs().amax(1, keepdim=True).clamp_min(1e-300)  # tiny filters have a direction
    cosine = scaled.sum(1) / (scaled.norm(dim=1) * w.shape[1] ** 0.5).clamp_min(1e-300)
    return pd.DataFrame(
        {
            "site": layer.site,
            "stage": layer.stage,
            "block": layer.block,
            "unit": np.arange(len(w)),
            "projection": projection.numpy(),
            "cosine": cosine.clamp(-1, 1).numpy(),
            "norm": norm.numpy(),
            "zero": zero.numpy(),
        }
    )


def _summary(rows: Any) -> dict[str, Any]:
    return {
        "stage": int(rows["stage"].iloc[0]),
        "block": int(rows["block"].iloc[0]),
        "units": len(rows),
        "mean": float(rows["projection"].mean()),
        "mass": float((rows["projection"] <= 0).mean()),
        "mean_cosine": float(rows["cosine"].mean()),
        "zero": int(rows["zero"].sum()),
    }


def _change(layer: Layer, twin: Layer | None) -> tuple[float, float, float, float]:
    """Euclidean and largest-entry norm of W - W_0 and of W_0."""
    if twin is None or _shown(layer) != _shown(twin):
        raise _mismatch(_shown(layer), "no layer" if twin is None else _shown(twin))
    # the distance is that of the weights as they are stored: in the model's own dtype
    w, start = (x.filters.to(x.dtype) for x in (layer, twin))
    change = w - start
    return (
        float(change.norm()),
        float(change.abs().max()),
        float(start.norm()),
        float(start.abs().max()),
    )


def _distances(changes: np.ndarray) -> dict[str, np.ndarray]:
    """Relative distances per site, and of all sites' weights together at the end."""
    l2, largest, l2_start, largest_start = changes.T

    def all_of(norms: np.ndarray) -> float:
        return float(np.sqrt((norms**2).sum()))

    def with_network(top: np.ndarray, bottom: np.ndarray, pool: Any) -> np.ndarray:
        pairs = [*zip(top, bottom, strict=True), (pool(top), pool(bottom))]
        return np.array([_ratio(a, b) for a, b in pairs])

    return {
        "l2_distance": with_network(l2, l2_start, all_of),
        "linf_distance": with_network(largest, largest_start, max),
    }


def _shown(layer: Layer) -> str:
    return f"{layer.site} {list(layer.filters.shape)}"


def _mismatch(ours: str, theirs: str) -> ModelError:
    return ModelError(
        "the initial model is of another architecture",
        got=f"{theirs} where the model has {ours}",
        expected="the same layers in the same order",
        fix="Give the model that training started from.",
    )


def _ratio(change: float, start: float) -> float:
    return change / start if start > 0 else (float("inf") if change > 0 else 0.0)


def _census(model: Module) -> str:
    kinds = sorted({type(m).__name__ for m in model.modules()} - {type(model).__name__})
    return ", ".join(kinds[:8]) or "no submodules"
