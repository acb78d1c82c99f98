"""`evolution`: the partition of one slice while a network learns, beside the train-test gap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import stats
from torch.nn import Module

from isogon import context, options
from isogon.data import Batches, as_batches
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.evolution.states import gap, score, sequence, states, when
from isogon.measures.partition.decisions import decisions
from isogon.measures.partition.lowering import as_slice
from isogon.measures.partition.measure import partitioned
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.slices import Slice
from isogon.nets.finite import check_finite
from isogon.readings import Curve
from isogon.registry import measure
from isogon.training.snapshots import Snapshots

SIZES = (
    "density",
    "area_mean",
    "area_sd",
    "area_median",
    "vertices_mean",
    "eccentricity_mean",
    "corner_ratio_mean",
    "centrality_mean",
    "perimeter_mean",
    "boundary_length",
)
AROUND = ("count", "density", "area_mean", "eccentricity_mean", "boundary_length")
SHOWN = (
    "regions",
    "density",
    "density_near",
    "density_far",
    "area_mean",
    "eccentricity_mean",
    "boundary_length",
    "train_accuracy",
    "test_accuracy",
    "gap",
    "train_loss",
    "test_loss",
)
MARKS = 1000  # inputs that are looked at for lying in the slice
FRAME = (
    "vertices",
    "offsets",
    "loops",
    "label",
    "region",
    "area",
    "boundary",
    "edges",
    "edge_site",
)

T = TypeVar("T")


class Evolution(Curve):
    """A partition over snapshots, one row per snapshot; the pictures' partitions as arrays.

    Attributes:
        frames: Numbers of the rows whose partitions are kept.
    """

    row = "snapshot"
    frames = property(lambda self: [int(i) for i in self.meta["frames"]])

    def frame(self, i: int) -> dict[str, np.ndarray]:
        """What the picture of row i needs.

        Polygons of one class each (`vertices`, `offsets`, `loops` as in a partition; regions
        are cut along the boundary) with label, region and the region's area; `boundary`
        segments; `edges` with `edge_site`.

        Raises:
            OptionError: That row's partition was not kept.
        """
        if i not in self.frames:
            raise OptionError("no such frame", got=i, expected=f"one of {self.frames}")
        return {name: self.arrays[f"frame{i}_{name}"] for name in FRAME}

    @property
    def corners(self) -> np.ndarray:
        """`[k, 2]` of the slice."""
        return self.arrays["slice_corners"]

    @property
    def marks(self) -> np.ndarray:
        """`[m, 2]` what counts as data: anchors of the slice, or inputs that lie in it."""
        return self.arrays["near"]

    def summary(self) -> pd.DataFrame:
        """Each statistic first and last, and its rank correlation with the gap (and their n)."""
        if not len(self.table):
            return super().summary()
        rows = []
        for name in SHOWN:
            if name not in self.table or not np.isfinite(self.table[name].astype(float)).any():
                continue
            values = self.table[name].to_numpy(float)
            row: dict[str, Any] = {"statistic": name, "first": values[0], "last": values[-1]}
            found = self.meta["correlation"].get(name)
            if self.meta["correlation"]:
                row["correlation_with_gap"] = math.nan if found is None else found["spearman"]
                row["n"] = 0 if found is None else found["n"]
            rows.append(row)
        return pd.DataFrame(rows)


@measure(
    cite=("humayun2023", "humayun2024"),
    cost=8.5,
    survey={
        "snapshots": "@snapshots",
        "plane": "@around",
        "train": "@train",
        "test": "@batches",
        "most": 6,
        "max_regions": 50_000,
    },
    example={
        "plane": "anchors(digits(test)[0], digits(test)[1], digits(test)[2], radius=0.2)",
        "test": "digits(test, 12)",
        "train": "digits(train, 12)",
    },
    typed={
        "model": "trained(mlp(16), two_moons, epochs=20, snapshot_every=5)",
        "snapshots": "trained(mlp(16), two_moons, epochs=20, snapshot_every=5)",
        "plane": "box2d((-1.5, -1.2), (2.5, 1.7))",
        "test": "two_moons(test)",
    },
)
def evolution(
    model: Module,
    snapshots: Snapshots,
    plane: Slice,
    *,
    train: Batches | None = None,
    test: Batches | None = None,
    radius: float | None = None,
    most: int | None = None,
    frames: int = 6,
    max_regions: int | None = None,
    progress: context.Progress | None = None,
) -> Evolution:
    """How the linear regions of one slice change during training, beside the train-test gap.

    The partition of the same slice is computed, exactly, for the weights of every snapshot and
    for the model as it is. gap = train accuracy - test accuracy; loss_gap = test loss - train
    loss (cross-entropy in nats; squared error for real-valued labels; one output with labels
    0, 1: logistic). The statistics are those of `Partition.statistics`; near data means near
    the anchors of the slice or, where it has none, near the training (else test) inputs that
    lie in it, as all do in a network's plane of two inputs.

    The correlation of a statistic with the gap (Spearman's rank correlation and Pearson's, over
    the complete rows where both are finite, at least three) stands in ``meta["correlation"]``
    with its n. Snapshots of one run follow each other: their number is not that of independent
    observations, so that no p-value is given.

    Args:
        model: A network of piecewise-linear operations; left as it was.
        snapshots: Its earlier states: a training run's folder, models, state dicts or files.
        plane: A `Slice`, the same for all.
        train: Labelled data that it learned from.
        test: Labelled data that it did not.
        radius: What is near data, see `Partition.statistics`; by default a tenth of the
            slice's extent.
        most: At most so many snapshots, evenly spread, the first and the last among them.
        frames: Of so many rows, evenly spread, the partition is kept for pictures.
        max_regions: No partition has more regions; where that does not suffice, its row is
            marked, counts all regions, and describes those that were cut to the end.
        progress: Called with (rows done, rows, what); default: the context's.

    Returns:
        One row per snapshot, the model last (left out where the last snapshot has its weights):
        snapshot, epoch, step (where the snapshots say), regions, density, mean (and sd) of
        area, vertices, eccentricity, corner_ratio, centrality, perimeter, boundary_length;
        count, density, area_mean, eccentricity_mean, boundary_length with ``_near`` and
        ``_far``; train_accuracy, test_accuracy, gap, train_loss, test_loss, loss_gap;
        complete, unfinished (regions that were not cut to the end, among the regions).

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        ModelError: A snapshot does not fit the model.
        OptionError: A number that is not positive.
    """
    most = None if most is None else options.whole("most", most)
    frames = options.whole("frames", frames)
    max_regions = None if max_regions is None else options.whole("max_regions", max_regions)
    for name, value in (("most", most), ("frames", frames + 1), ("max_regions", max_regions)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is too small", got=value - (name == "frames"))
    check_finite(model)
    given, plane = Snapshots.of(snapshots), as_slice(plane)
    data = {k: as_batches(b) for k, b in (("train", train), ("test", test)) if b is not None}
    near = near_data(plane, *data.values())
    names = evenly(list(given), most)
    order = sequence(model, given, names)
    total = len(order)
    shown = evenly(range(total), frames)
    report = progress or context.progress()
    arrays = {"slice_corners": plane.corners, "near": near}
    rows: list[dict[str, Any]] = []
    with closing(states(model, given, order)) as steps:
        for i, name in enumerate(steps):
            report(i, total, "evolution")
            p = partitioned(
                model,
                plane,
                max_regions,
                lambda done, total, what, i=i: report(i, len(order), what),
            )
            rows.append(
                {"snapshot": name or "model", **when(given, name)}
                | numbers(p, near, radius)
                | gap({k: score(model, b) for k, b in data.items()})
                | {"complete": p.complete, "unfinished": int((~p.finished).sum())}
            )
            if i in shown:
                arrays |= {f"frame{i}_{key}": a for key, a in picture(p).items()}
    report(total, total, "evolution")
    table = pd.DataFrame(rows)
    early = int((~table["complete"]).sum())
    if early:
        warnings.warn(
            f"{early} of {len(table)} partitions stopped early (max_regions={max_regions}): their "
            "rows describe the regions that were cut to the end. Raise max_regions or choose a "
            "smaller slice.",
            IncompleteWarning,
            stacklevel=2,
        )
    table = table[[c for c in table if not table[c].isna().all()]]
    found = correlations(table)
    return Evolution(
        "evolution",
        table=table,
        arrays=arrays,
        units={str(c): "1" for c in table if str(c).endswith("accuracy") or c == "gap"},
        meta={
            "frames": shown,
            "dtype": "float64",
            "sites": p.sites,
            "outputs": p.outputs.shape[1],
            "correlation": found,
            "data": "anchors of the slice" if len(plane.marks) else "inputs in the slice",
        }
        | ({"caption": caption(found)} if found else {}),
        complete=bool(table["complete"].all()),
    )


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if count is None or count >= len(items):
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round() if count > 1 else [len(items) - 1]
    return [items[int(k)] for k in dict.fromkeys(places) if count]


def near_data(plane: Slice, *data: Any) -> np.ndarray:
    """Coordinates `[m, 2]` of the data: the slice's anchors, else inputs that lie in it."""
    if len(plane.marks):
        return plane.marks
    for batches in data:
        found: list[np.ndarray] = []
        for x, _ in batches:
            flat = x.detach().cpu().double().flatten(1)
            if flat.shape[1] != len(plane.origin) or sum(map(len, found)) >= MARKS:
                break
            at = plane.project(flat)
            off = (plane.embed(at).flatten(1) - flat).norm(dim=1)
            found.append(at[(off <= 1e-6 * (1 + flat.norm(dim=1))).numpy()])
        if sum(map(len, found)):
            return np.concatenate(found)[:MARKS]
    return np.zeros((0, 2))


def numbers(p: Partition, near: np.ndarray, radius: float | None) -> dict[str, float]:
    """The statistics of one partition as a row."""
    table = p.statistics(p.plane.embed(near) if len(near) else None, radius)
    groups = {str(row["regions"]): row for _, row in table.iterrows()}
    found = {"regions": len(p)} | {name: float(groups["all"][name]) for name in SIZES}
    if "near" in groups and groups["near"]["count"]:  # else the anchors lie outside the slice
        for group in ("near", "far"):
            found |= {f"{name}_{group}": float(groups[group][name]) for name in AROUND}
    return found


def picture(p: Partition) -> dict[str, np.ndarray]:
    """What a figure of a partition needs, in single precision: polygons of one class each."""
    faces = decisions(p)
    return {
        "vertices": faces.vertices.astype(np.float32),
        "offsets": faces.offsets,
        "loops": faces.loops,
        "label": faces.label.astype(np.int32),
        "region": faces.region.astype(np.int32),
        "area": p.area[faces.region].astype(np.float32),
        "boundary": p.boundary.astype(np.float32),
        "edges": p.edges,
        "edge_site": p.edge_site,
    }


def correlations(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Correlation of every statistic with the gap in accuracy (else in loss), with its n."""
    target = "gap" if "gap" in table else "loss_gap"
    if target not in table:
        return {}
    found = {}
    difference = table[target].to_numpy(float)
    for name in table.columns:
        if name.split("_near")[0].split("_far")[0] not in {*SIZES, *AROUND, "regions"}:
            continue
        values = table[name].to_numpy(float)
        both = np.isfinite(values) & np.isfinite(difference) & table["complete"].to_numpy(bool)
        x, y = values[both], difference[both]
        if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
            continue
        found[name] = {
            "spearman": _pearson(stats.rankdata(x), stats.rankdata(y)),
            "pearson": _pearson(x, y),
            "n": len(x),
        }
    return found


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def caption(found: dict[str, dict[str, float]]) -> str:
    """The correlation of density and gap in words that claim no more than it says."""
    places = {"density_near": "near the data", "density_far": "far from it", "density": "anywhere"}
    chosen = [n for n in ("density_near", "density_far") if n in found] or ["density"]
    parts = [f"{found[n]['spearman']:+.2f} {places[n]}" for n in chosen if n in found]
    count = max((found[n]["n"] for n in chosen if n in found), default=0)
    if not parts:
        return ""
    return (
        f"Rank correlation of region density and train-test gap: {', '.join(parts)} (n = {count} "
        "snapshots of one run, which are not independent observations)."
    )
