"""Distances along a leaf: how far apart two images are for the classifier."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch.nn import Module

from isogon.actions import Family
from isogon.actions import family as parsed
from isogon.data import Points, points
from isogon.data.finite import check_inputs
from isogon.errors import DataError
from isogon.measures.manifold.walk import batched, walk
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import precision
from isogon.nets.layout import check_images
from isogon.readings import SampleTable
from isogon.registry import measure


@measure(
    cite="grementieri2022",
    cost=6.0,
    survey={"start": "@class:0", "steps": 200},
    example={"steps": 5},
    typed={"start": "digits(test, 4)", "family": "rotations(4)", "steps": 100},
)
def leaf_distance(
    model: Module,
    start: Points,
    family: Family | None = None,
    *,
    toward: Points | None = None,
    step: float = 0.05,
    steps: int = 1000,
    stop: float = 0.5,
    patience: int = 20,
    clamp: tuple[float, float] | None = None,
) -> SampleTable:
    """Length of the walk along the leaf from each image to each of its transforms, or to a target.

    The walk goes straight at its target within the leaf (see `walk`), which bounds the geodesic
    distance within the leaf from above. It ends within ``stop`` of the target, or where the leaf
    comes no nearer: ``remaining`` is the distance then, the part of the change that the
    classifier does not see; ``leaf`` is the length of the path to that point.

    Args:
        model: Any module from [N, ...] to logits [N, C].
        start: Images, [n, ...] (or one without its axis).
        family: Transformations whose images are the targets; ``rotations(8)`` where neither
            this nor ``toward`` is given.
        toward: Targets, [n, ...] or one for all, instead of transforms.
        step: Length of a step (L2).
        steps: Most steps.
        stop: Distance at which a target counts as reached.
        patience: Steps without coming closer, after which a walk ends.
        clamp: Bounds of the input domain.

    Returns:
        One row per sample and transformation: sample, transformation, euclidean (distance),
        leaf, remaining, reached, prediction (at the end), same (whether that is the prediction
        at the start).

    Raises:
        DataError: Starts and targets that don't fit together, or with NaN in them.
        ModelError: See `walk`; also a model of images with the channels last.
    """
    check_finite(model)
    start = points(start)
    # which shape the model takes is asked with numbers, so that NaN has an error of its own
    start = start.reshape(batched(model, start.nan_to_num(0.0, 0.0, 0.0))[0].shape)
    check_inputs(start, what="the starts")
    if toward is None:
        family = parsed("rotations(8)" if family is None else family)
        check_images(model, start)
        labels, targets = list(family.labels), family.orbit(start)
    else:
        target = points(toward).to(start)
        target = target[None] if target.shape == start.shape[1:] else target
        labels, targets = ["target"], target[None]
        if targets.shape[1:2] == (1,) and targets.shape[2:] == start.shape[1:]:
            targets = targets.expand(1, *start.shape)
    if targets.shape[1:] != start.shape:
        raise DataError(
            "targets don't fit the starts",
            got=f"{list(targets.shape[1:])} for {list(start.shape)}",
            expected="one target of the same shape per start",
        )
    count = len(start)
    path = walk(
        model,
        start.repeat(len(labels), *[1] * (start.dim() - 1)),
        toward=targets.flatten(0, 1),
        step=step,
        steps=steps,
        stop=stop,
        patience=patience,
        clamp=clamp,
        frames=1,
    )
    table = path.table
    first = table.groupby("walk").first()
    near = table.loc[table.groupby("walk")["distance"].idxmin()].set_index("walk")
    frame = pd.DataFrame(
        {
            "sample": np.tile(np.arange(count), len(labels)),
            "transformation": np.repeat(labels, count),
            "euclidean": first["distance"].to_numpy(),
            "leaf": near["travelled"].to_numpy(),
            "remaining": near["distance"].to_numpy(),
            "reached": near["distance"].to_numpy() <= stop,
            "prediction": near["prediction"].to_numpy(),
            "same": near["prediction"].to_numpy() == first["prediction"].to_numpy(),
        }
    )
    return SampleTable(
        measure="leaf_distance",
        table=frame,
        units=dict.fromkeys(("euclidean", "leaf", "remaining"), "L2, units of input"),
        meta={"transformations": labels, "step": step, "stop": stop, "dtype": precision(model)},
    )
