"""Orientation of a network's hyperplanes: which way do the filters of each layer point?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch.nn import Module

from isogon.errors import ModelError, OptionError
from isogon.measures.arrangement.layers import Layer, layers_of
from isogon.measures.arrangement.null import corrected, null_sd, p_values
from isogon.measures.arrangement.random_states import random_masses, seeded
from isogon.nets import hygiene
from isogon.nets.derivatives import is_quantised
from isogon.nets.finite import check_finite
from isogon.nets.states import fitted, swapped
from isogon.nets.unwrap import unwrap
from isogon.readings import SiteTable
from isogon.registry import measure
from isogon.training.snapshots import Snapshots

PLAIN = ("p_value", "p_corrected", "l2_distance", "linf_distance")
SERIES = ("mean", "mass", "mean_cosine", *PLAIN)
WHEN = ("epoch", "step")


class OrientationTable(SiteTable):
    """Projections per filter; `summary` and `series` give mass, p-values and distances per site."""

    def summary(self) -> pd.DataFrame:
        """One row per site and a last one, ``network``, that pools every filter.

        Columns: site, stage, block, units, mean (of the projections), mass (share of the
        filters whose projection is not positive), mean_cosine, zero (filters that are zero),
        null_sd (standard deviation of the mass at initialisation, where its mean is 1/2),
        p_value, p_corrected (over the sites; NaN for the pool), l2_distance and linf_distance
        from initialisation (NaN without one).
        """
        table: pd.DataFrame = self.table
        groups = table.groupby("site", sort=False)
        rows = [{"site": site, **_summary(group)} for site, group in groups]
        rows.append({"site": "network", **_summary(table), "stage": pd.NA, "block": pd.NA})
        frame = pd.DataFrame(rows).astype({"stage": "Int64", "block": "Int64"})  # all: no place
        frame["null_sd"] = null_sd(frame["units"].to_numpy())
        for name in PLAIN:
            kept = self.arrays.get(name)
            frame[name] = np.full(len(frame), np.nan) if kept is None else kept
        return frame

    def series(self) -> pd.DataFrame:
        """One row per snapshot and site (and ``network``); without snapshots, no rows.

        Columns: snapshot, epoch, step (where the snapshots say; NaN else), site, units, mean,
        mass, mean_cosine, null_sd, p_value, p_corrected, l2_distance, linf_distance.
        """
        names, sites = self.coords.get("snapshot", []), self.coords["site"]
        units = self.summary()["units"].to_numpy()
        frame = pd.DataFrame(
            {
                "snapshot": np.repeat(np.array(names, dtype=object), len(sites)),
                **{k: np.repeat(self.arrays[k], len(sites)) for k in WHEN if k in self.arrays},
                "site": np.tile(np.array(sites, dtype=object), len(names)),
                "units": np.tile(units, len(names)),
                "null_sd": np.tile(null_sd(units), len(names)),
            }
        )
        for name in SERIES:
            kept = self.arrays.get(f"series_{name}")
            frame[name] = np.nan if kept is None else kept.reshape(-1)
        return frame


@measure(cite="gamba2022", cost=0.1, survey={"initial": "@initial"})
def orientation(
    model: Module,
    *,
    initial: Module | None = None,
    linear: bool = True,
    pointwise: bool = False,
    fold: bool = False,
    snapshots: Snapshots | None = None,
    null: int = 0,
    seed: int = 0,
    fresh: Callable[[], Module] | None = None,
) -> OrientationTable:
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

    At initialisation each projection is not positive with probability 1/2, independently: a
    layer of N filters has a mass of 1/2 with standard deviation sqrt(0.25 / N). ``p_value`` is
    that of the hypothesis that the filters are as they were drawn, two-sided: by the exact
    binomial test, or from random states of the layer (``null``), which suppose nothing about
    how filters are drawn. It says whether a layer has left its start, not how sure another
    training would: trained filters depend on each other, and that takes several seeds.
    ``p_corrected`` is Benjamini and Hochberg's correction over the sites.

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
        snapshots: Earlier states of the model: a training run's folder, models, state dicts or
            files; ``reading.series()`` gives the same numbers for each of them.
        null: Number of random states of each layer that p-values come from (999, say); 0 for
            the exact binomial test.
        seed: Of the random states.
        fresh: Makes an untrained model, whose layers are the random states; by default each
            layer is drawn again by its own ``reset_parameters``.

    Returns:
        One row per filter: site, stage, block, unit, projection, cosine, norm, nonpositive
        (projection <= 0; its mean is the mass), zero.

    Raises:
        ModelError: No weighted layer, weights that are not finite, or an initial model or a
            snapshot whose layers are not those of the model.
        OptionError: ``null`` is negative.
    """
    if null < 0:
        raise OptionError("null is negative", got=null, expected="0, or a number of random states")
    check_finite(model)
    model = unwrap(model)

    def layers_now(of: Module) -> list[Layer]:
        return list(layers_of(of, linear, pointwise, fold))

    layers = layers_now(model)
    if not layers:
        raise ModelError(
            "no layer to measure",
            got=f"{type(model).__name__} with {_census(model)}",
            expected="convolutions or linear layers",
            fix="Measure the float model that it was made from."
            if any(map(is_quantised, model.modules()))
            else "Set linear or pointwise to true if those are its layers.",
        )
    twins = None
    if initial is not None:
        check_finite(initial)
        twins = layers_now(unwrap(initial))
    units = np.array([len(layer.filters) for layer in layers])
    units = np.append(units, units.sum())  # the last one: the network's filters pooled
    drawn = None
    if null:
        found = _drawn(layers, null, seed, fresh, layers_now)
        drawn = np.column_stack([found, found.sum(1)])
    blocks = [_rows(layer) for layer in layers]
    arrays = _tested(_states(blocks)["mass"], units, drawn)
    if twins is not None:
        arrays |= _distances(layers, twins)
    given = Snapshots.of(snapshots)
    series: dict[str, list[Any]] = {}
    for name in given:
        state = fitted(model, given[name], what=f"snapshot {name!r}")
        with swapped(model, state):
            now = layers_now(model)
        row = _states([_rows(layer) for layer in now])
        row |= _tested(row["mass"], units, drawn)
        row |= _distances(now, twins) if twins is not None else {}
        for key, values in row.items():
            series.setdefault(f"series_{key}", []).append(values)
        epoch, step = given.when(name) or (np.nan, np.nan)
        series.setdefault("epoch", []).append(epoch)
        series.setdefault("step", []).append(step)
    axes: dict[str, tuple[str, ...]] = dict.fromkeys(arrays, ("site",))
    axes |= {key: ("snapshot",) if key in WHEN else ("snapshot", "site") for key in series}
    arrays |= {key: np.array(values, float) for key, values in series.items()}
    table: pd.DataFrame = pd.concat(blocks, ignore_index=True)
    coords: dict[str, list] = {"site": [*(layer.site for layer in layers), "network"]}
    return OrientationTable(
        measure="orientation",
        table=table,
        arrays=arrays,
        axes=axes,
        coords=coords | ({"snapshot": list(given)} if series else {}),
        units={"projection": "sum of weights", "cosine": "1", "norm": "weight"},
        meta={
            "linear": linear,
            "pointwise": pointwise,
            "fold": fold,
            "initial": initial is not None,
            "null": f"{null} random states of each layer" if null else "exact binomial test",
            "zero_filters": int(table["zero"].sum()),
            "dtype": hygiene.precision(model),
        },
    )


def _drawn(
    layers: list[Layer],
    count: int,
    seed: int,
    fresh: Callable[[], Module] | None,
    layers_now: Callable[[Module], list[Layer]],
) -> np.ndarray:
    """Filters that are not positive in random states, ``[count, layers]``."""
    if fresh is None:
        return random_masses(layers, count, seed)
    found = []
    with seeded(seed):
        for _ in range(count):
            twins = layers_now(unwrap(fresh()))
            _check_same(layers, twins)
            found.append([int((twin.filters.sum(1) <= 0).sum()) for twin in twins])
    return np.array(found)


def _states(blocks: list[pd.DataFrame]) -> dict[str, np.ndarray]:
    """Mean, mass and mean cosine per layer, and of all filters together at the end."""
    rows: list[dict[str, Any]] = [_summary(b) for b in [*blocks, pd.concat(blocks)]]
    return {key: np.array([r[key] for r in rows]) for key in ("mean", "mass", "mean_cosine")}


def _tested(mass: np.ndarray, units: np.ndarray, drawn: np.ndarray | None) -> dict[str, Any]:
    """p-values per layer and of the pool; the correction is over the layers alone."""
    p = p_values(np.rint(mass * units).astype(int), units, drawn)
    return {"p_value": p, "p_corrected": np.append(corrected(p[:-1]), np.nan)}


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
            "nonpositive": (projection <= 0).numpy().astype(np.int8),
            "zero": zero.numpy(),
        }
    )


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "stage": int(rows["stage"].iloc[0]),
        "block": int(rows["block"].iloc[0]),
        "units": len(rows),
        "mean": float(rows["projection"].mean()),
        "mass": float((rows["projection"] <= 0).mean()),
        "mean_cosine": float(rows["cosine"].mean()),
        "zero": int(rows["zero"].sum()),
    }


def _distances(layers: list[Layer], twins: list[Layer]) -> dict[str, np.ndarray]:
    """Relative distances per site, and of all sites' weights together at the end."""
    _check_same(layers, twins)
    changes = np.array([_change(a, b) for a, b in zip(layers, twins, strict=True)])
    l2, largest, l2_start, largest_start = changes.T

    def all_of(norms: np.ndarray) -> float:
        return float(np.sqrt((norms**2).sum()))

    def with_network(
        top: np.ndarray, bottom: np.ndarray, pool: Callable[[np.ndarray], float]
    ) -> np.ndarray:
        pairs = [*zip(top, bottom, strict=True), (pool(top), pool(bottom))]
        return np.array([_ratio(a, b) for a, b in pairs])

    return {
        "l2_distance": with_network(l2, l2_start, all_of),
        "linf_distance": with_network(largest, largest_start, max),
    }


def _change(layer: Layer, twin: Layer) -> tuple[float, float, float, float]:
    """Euclidean and largest-entry norm of W - W_0 and of W_0."""
    # the distance is that of the weights as they are stored: in the model's own dtype
    w, start = (x.filters.to(x.dtype) for x in (layer, twin))
    change = w - start
    return (
        float(change.norm()),
        float(change.abs().max()),
        float(start.norm()),
        float(start.abs().max()),
    )


def _check_same(layers: list[Layer], twins: list[Layer]) -> None:
    """Refuse another architecture."""
    for ours, theirs in itertools.zip_longest(map(str, layers), map(str, twins)):
        if ours != theirs:
            raise _mismatch(ours or "no layer", theirs or "no layer")


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
