"""Experiment: the linear regions of one slice through training, as table, figure and film."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch.nn import Module

from isogon import data, readings
from isogon.data import Batches
from isogon.errors import OptionError
from isogon.measures.evolution.evolution import Evolution, evolution
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.specs import parse_slice
from isogon.nets import load
from isogon.registry import register
from isogon.storage import atomic
from isogon.training.snapshots import Snapshots
from isogon.training.snapshots import snapshots as states_of

# What a partition is followed on: model with its snapshots, plane, training and test data.
MOMENTS = "snapshot_at=(0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0)"
COURSES = {
    "laptop": (
        f"trained(mlp(48), two_moons(train, 150, noise=0.25), epochs=200, {MOMENTS})",
        "box2d((-1.8, -1.5), (2.8, 2.0))",
        "two_moons(train, 150, noise=0.25)",
        "two_moons(test, noise=0.25)",
    ),
    "paper": (
        f"trained(cnn, mnist(train, 1000), epochs=100, {MOMENTS})",
        "anchors(mnist(test)[0], mnist(test)[1], mnist(test)[2], radius=1.0)",
        "mnist(train, 1000)",
        "mnist(test, 2000)",
    ),
}


@register("experiment", cite=("humayun2023", "humayun2024"))
def partition_evolution(
    *,
    model: Module | None = None,
    snapshots: Snapshots | None = None,
    plane: Slice | None = None,
    train: Batches | None = None,
    test: Batches | None = None,
    scale: Literal["laptop", "paper"] = "laptop",
    color: Literal["class", "area"] = "class",
    most: int = 40,
    max_regions: int = 200_000,
    out: str = "runs/partition-evolution",
) -> Evolution:
    """Follow the linear regions of one slice through training, as numbers and as a film.

    Args:
        model: The network; with its snapshots, plane and data that of ``scale`` if not given.
        snapshots: Its states during training: the folder of a run, or ``trained(...)`` with
            ``snapshot_every`` or ``snapshot_at``; needed with a model.
        plane: The slice; needed with a model.
        train: Labelled data that it learned from.
        test: Labelled data that it did not.
        scale: ``laptop`` (an MLP on two moons) or ``paper`` (a CNN on 1,000 images of MNIST).
        color: What colours the regions: their class, or their area (dark: small).
        most: At most so many snapshots.
        max_regions: No partition has more regions.
        out: Folder for the reading, ``table.csv``, ``figure.png`` and ``evolution.gif``.
    """
    from isogon import show
    from isogon.show.evolution import animate

    if model is None:
        spec, where, learned, held_out = COURSES[scale]
        model, snapshots = load.load(spec), snapshots or states_of(spec)
        plane = plane or parse_slice(where)
        train = data.batches(learned) if train is None else train
        test = data.batches(held_out) if test is None else test
    if snapshots is None or plane is None:
        raise OptionError(
            "a model alone has no history",
            got="--model without --snapshots and --plane",
            expected="both",
            fix="Name the run's folder and a slice, or leave out --model.",
        )
    found = evolution(
        model,
        snapshots,
        plane,
        train=train,
        test=test,
        most=most,
        frames=most + 1,
        max_regions=max_regions,
    )
    folder = Path(out)
    found.save(folder / "reading")
    readings.export(found, folder / "table.csv")
    with atomic(folder / "figure.png") as temporary:
        show.draw(found, color=color).savefig(temporary, format="png", dpi=200)
    animate(found, folder / "evolution.gif", color=color)
    return found
