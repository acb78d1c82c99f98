"""Stitching: the head of one network, a fitted map, the tail of another."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.stitching.cuts import Cuts, paired
from isogon.measures.stitching.methods import stitches
from isogon.measures.stitching.stitched_pairs import Settings, Stitching
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.origin import check_classes
from isogon.nets.passes import one_pass
from isogon.nets.unwrap import unwrap
from isogon.readings import SiteTable
from isogon.registry import measure


@measure(
    cite=("bansal2021", "godfrey2022"),
    cost=9.2,
    survey={
        "b": "@twin",
        "train": "@train",
        "test": "@batches",
        "by": ("identity", "G_relu", "linear"),
    },
    example={
        "b": "cnn(width=2, seed=1)",
        "train": "digits(train, 24)",
        "test": "digits(test, 12)",
        "by": ("identity", "G_relu", "linear"),
    },
    typed={"b": "trained(cnn, digits, epochs=5, seed=1)", "train": "digits(train)"},
)
def stitch(
    a: Module,
    b: Module,
    train: Batches,
    test: Batches,
    *,
    by: Annotated[str, "Stitch"] | tuple[Annotated[str, "Stitch"], ...] = "linear",
    refine: int | tuple[int, ...] = 0,
    sites: str = "activations",
    sites_b: str | None = None,
    pairs: Literal["diagonal", "all"] = "diagonal",
    in_block: bool = False,
    validation: float = 0.1,
    lr: float = 1e-3,
    warmup: int = 0,
    norm: Literal["none", "before", "after", "both"] = "none",
    norm_samples: int = 2000,
    generator: torch.Generator | None = None,
) -> SiteTable:
    """How well network b works with the first layers of network a in place of its own.

    The head of a up to a site, a map of channels (the stitch), the tail of b from a site on. All
    maps are closed forms of the second moments of the two activations, which one pass over
    ``train`` gives for all sites and all maps; ``isogon list stitches`` names them. Positions of a
    map keep their place; maps of another size than b's are brought to it by the nearest.

    With ``refine`` each map is then trained for so many minibatches on the cross-entropy of the
    stitched network, within its set of maps: both networks stay as they are, batch norms of the
    tail are normalised by the minibatch. The map of the smallest loss on the first samples of
    ``train`` is kept, the closed form among them. Of a stitch that names several strengths or
    ranks, the one of the least loss on validation samples is taken; ``test`` is for the report.

    The tail's batch-norm statistics are recalibrated: taken from what flows into it, over the first
    samples of ``train``. ``penalty`` = accuracy of b with its own tail recalibrated on the same
    samples - accuracy stitched; ``penalty_frozen_bn`` the same with b's own statistics on both
    sides. ``floor``: accuracy where the channels of a are put in a random order before the fitted
    map; ``ceiling``: accuracy of b stitched to itself by the same method.

    Args:
        a: The network whose first layers are taken.
        b: The network whose last layers are taken; of any architecture.
        train: Samples that the maps are fitted on.
        test: Samples (x, y) that accuracy is measured on.
        by: Spec of a stitch, or several: identity, random_permutation, permutation, G_relu,
            orthogonal, linear, low_rank(4), lasso(0.01), birkhoff, wreath, ...
        refine: Minibatches that the map is trained for; several numbers give rows for each. A map
            that has nothing to train (identity, permutation) has one row, of the least of them.
        sites: Which sites of a, see `isogon.sites`.
        sites_b: Which sites of b; those of ``sites`` by default.
        pairs: ``diagonal``: the k-th site of a into the k-th of b, or ``all``.
        in_block: Stitch within residual blocks too: the paths around the site carry a's own
            activations, unstitched; the k-th site with the k-th only.
        validation: Share of ``train`` that maps are not fitted on where strengths or ranks are
            chosen; drawn at random.
        lr: Learning rate of Adam; falls linearly to 0.
        warmup: Minibatches in which it grows linearly at first.
        norm: Batch norm in front of the map, after it, or both; it begins as the identity in front,
            with b's means and standard deviations after, and is trained with the map.
        norm_samples: Most samples of ``train`` that batch-norm statistics, and losses while
            training, are taken from.
        generator: Draws permutations, validation samples and the order of minibatches.

    Returns:
        One row per method, number of minibatches and pair: site_a, site_b, site (= site_a), by,
        refine, in_block, accuracy, penalty, penalty_frozen_bn, floor, ceiling (fractions; the
        ceiling is not trained), loss (cross-entropy, nats), agreement (share of samples on which
        the stitched network answers as b recalibrated), strength (that was chosen), sparsity
        (share of the map's entries that are 0 up to rounding), seconds (of fitting: the row's
        share of the pass,
        its solution, and its training). ``meta["strengths"]``: loss on validation samples of each
        strength.

    Raises:
        NotACut: Data flow around a site that was asked for by its exact name.
        OptionError: No site that can be stitched, or an unknown option.
        SpecError: No such stitch.
        ModelError: A model that can't be traced, is random, or depends on the batch.
        DataError: No samples, NaN, or labels that are no classes of b.
    """
    chosen = stitches(by)
    if norm_samples < 2:
        raise OptionError("too few samples for statistics", got=norm_samples, expected="2 or more")
    settings = Settings.of(refine, validation, lr, warmup, norm, norm_samples)
    learn, judge = as_batches(train), as_batches(test)
    few = learn.first(FEW)[0]
    for model in (a, b):
        check_finite(model)
        examine(model, few, softmax=True)
    a, b = unwrap(a), unwrap(b)
    check_classes(b, judge)
    generator = generator or torch.Generator().manual_seed(0)
    sides = {
        "b": Cuts(b, sites_b or sites, few, "b", in_block=in_block),
        "a": Cuts(a, sites, few, "a", in_block=in_block),
    }
    made = Stitching(sides, *paired(sides["a"].found, sides["b"].found, pairs), chosen, settings)
    models = {"a": a, "b": b}
    made.fit(models, learn, generator)
    made.refine(models, learn)
    made.recalibrate(models, learn)
    one_pass(models, judge, made.counting(), what="stitched networks")
    return made.reading(judge)
