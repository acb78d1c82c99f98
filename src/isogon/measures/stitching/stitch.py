"""Stitching: the head of one network, a fitted map, the tail of another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.stitching.cuts import Cut, Cuts, paired
from isogon.measures.stitching.maps import Between
from isogon.measures.stitching.methods import Stitch, stitches
from isogon.measures.stitching.moments import PairSums, connected
from isogon.measures.stitching.trials import Counting, Recalibrating, Tail, Trial
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.origin import check_classes
from isogon.nets.passes import one_pass
from isogon.nets.unwrap import unwrap
from isogon.readings import SiteTable
from isogon.registry import measure

CHUNK = 64  # samples whose activations of a wait for those of b


@measure(
    cite=("bansal2021", "godfrey2022"),
    cost=5.0,
    survey=False,
    example={
        "b": "cnn(width=2, seed=1)",
        "train": "digits(train, 24)",
        "test": "digits(test, 12)",
        "by": ("identity", "G_relu", "linear"),
    },
)
def stitch(
    a: Module,
    b: Module,
    train: Batches,
    test: Batches,
    *,
    by: Annotated[str, "Stitch"] | tuple[Annotated[str, "Stitch"], ...] = "linear",
    sites: str = "activations",
    sites_b: str | None = None,
    pairs: Literal["diagonal", "all"] = "diagonal",
    in_block: bool = False,
    norm_samples: int = 2000,
    generator: torch.Generator | None = None,
) -> SiteTable:
    """How well network b works with the first layers of network a in place of its own.

    The head of a up to a site, a map of channels (the stitch), the tail of b from a site on. All
    maps are closed forms of the second moments of the two activations, which one pass over
    ``train`` gives for all sites and all maps; ``isogon list stitches`` names them. Positions of a
    map keep their place; maps of another size than b's are brought to it by the nearest.

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
            orthogonal, linear, low_rank(4), ...
        sites: Which sites of a, see `isogon.sites`.
        sites_b: Which sites of b; those of ``sites`` by default.
        pairs: ``diagonal``: the k-th site of a into the k-th of b, or ``all``.
        in_block: Stitch within residual blocks too: the paths around the site carry a's own
            activations, unstitched; the k-th site with the k-th only.
        norm_samples: Most samples of ``train`` that batch-norm statistics are taken from.
        generator: Draws permutations.

    Returns:
        One row per method and pair: site_a, site_b, site (= site_a), by, in_block, accuracy,
        penalty, penalty_frozen_bn, floor, ceiling (fractions), loss (cross-entropy, nats),
        agreement (share of samples on which the stitched network answers as b
        recalibrated), seconds (of
        fitting: the row's share of the pass, and its solution).

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
    learn, judge = as_batches(train), as_batches(test)
    few = learn.first(FEW)[0]
    for model in (a, b):
        check_finite(model)
        examine(model, few)
    a, b = unwrap(a), unwrap(b)
    check_classes(b, judge)
    generator = generator or torch.Generator().manual_seed(0)
    sides = {
        "b": Cuts(b, sites_b or sites, few, "b", in_block=in_block),
        "a": Cuts(a, sites, few, "a", in_block=in_block),
    }
    made = Stitching(sides, *paired(sides["a"].found, sides["b"].found, pairs), chosen)
    models = {"a": a, "b": b}
    made.fit(models, learn, generator)
    made.recalibrate(models, learn, norm_samples)
    one_pass(models, judge, made.counting(), what="stitched networks")
    return made.reading(judge)


@dataclass(eq=False)
class Row:
    """One method at one pair of cuts."""

    a: Cut
    b: Cut
    by: str
    seconds: float
    trials: dict[str, Trial]


class Stitching:
    """All pairs and methods, what is fitted for them, and their trials.

    Args:
        sides: Both models' cuts, b first: answers are compared with its own.
        pairs: Which cuts go together.
        notes: What was left out.
        methods: The stitches.
    """

    def __init__(
        self,
        sides: dict[str, Cuts],
        pairs: list[tuple[Cut, Cut]],
        notes: list[str],
        methods: list[Stitch],
    ) -> None:
        self.sides, self.pairs, self.notes, self.methods = sides, pairs, notes, methods
        for name in ("a", "b"):
            if sides[name].skipped:
                listed = ", ".join(sides[name].skipped[:8])
                more = len(sides[name].skipped) - 8
                self.notes.append(
                    f"not cuts of {name}, left out: {listed}" + (f" and {more} more" * (more > 0))
                )
        wrong = [p for p in pairs if p[0].channels != p[1].channels]
        for m in methods:
            if m.same and len(wrong) == len(pairs):
                one, two = wrong[0]
                raise OptionError(
                    f"{m.name} is between layers of one width",
                    got=f"{one.channels} channels at {one.site}, {two.channels} at {two.site}",
                    expected="equally many channels",
                    fix="Use by=permutation, G_relu or linear.",
                )
            if m.same and wrong:
                self.notes.append(f"{m.name}: {len(wrong)} pairs of unequal widths were left out")
        self.rows: list[Row] = []
        self.base: dict[Cut, dict[str, Trial]] = {}
        self.seconds: dict[str, float] = {}

    def fit(self, models: dict[str, Module], train: Any, generator: torch.Generator) -> None:
        """One pass over data, and every closed form."""
        began = time.perf_counter()
        room: dict[int, Tensor] = {}
        groups = [PairSums(g, room) for g in connected(self.pairs)]
        one_pass(models, train, groups, chunk=CHUNK, what="moments of both networks")
        passed = time.perf_counter() - began
        sums = {pair: g for g in groups for pair in g.pairs}
        cuts = dict.fromkeys(two for _, two in self.pairs)
        tails = {cut: Tail(self.sides["b"].anatomy, cut) for cut in cuts}
        heads = dict.fromkeys(one for one, _ in self.pairs)
        orders = {one: torch.randperm(one.channels, generator=generator) for one in heads}
        ceilings: dict[tuple[Cut, str], Trial] = {}
        for two, tail in tails.items():
            own = Trial(two, tail, tail.own)
            other = Trial(two, tail, tail.fresh()) if tail.norms else own
            self.base[two] = {"frozen": own, "recalibrated": other}
        for one, two in self.pairs:
            moments, tail = sums[one, two].of(one, two), tails[two]
            for m in self.methods:
                if m.same and one.channels != two.channels:
                    continue
                began = time.perf_counter()
                found = _between(m.fit(moments, generator), one, two)
                seconds = time.perf_counter() - began + passed / len(self.pairs)
                if (two, m.name) not in ceilings:
                    itself = m.fit(sums[one, two].itself(two), generator)
                    ceilings[two, m.name] = Trial(
                        two, tail, tail.fresh(), _between(itself, two, two)
                    )
                like = self.base[two]["recalibrated"]
                stitched = Trial(one, tail, tail.fresh(), found, like=like)
                trials = {
                    "stitched": stitched,
                    "frozen": Trial(one, tail, tail.own, found) if tail.norms else stitched,
                    "floor": Trial(one, tail, tail.fresh(), found, orders[one]),
                    "ceiling": ceilings[two, m.name],
                }
                self.rows.append(Row(one, two, m.name, seconds, trials))
        self.seconds["moments"] = passed

    def recalibrate(self, models: dict[str, Module], train: Any, most: int) -> None:
        """Statistics of batch-norms from what flows there."""
        trials = [t for t in self.trials() if t.tail.norms and t.statistics is not t.tail.own]
        if not trials:
            return
        began = time.perf_counter()
        x, y = train.first(most)
        size = train.batch_size
        batches = list(zip(x.split(size), y.split(size)))
        watcher: Any = Recalibrating(self.sides, trials)
        one_pass(models, batches, [watcher], what="batch-norm statistics")
        self.seconds["recalibration"] = time.perf_counter() - began

    def counting(self) -> list[Any]:
        """Who counts right answers."""
        return [Counting(self.sides, self.trials())]

    def trials(self) -> list[Trial]:
        """Each once; those of b with its own layers first."""
        own = [t for trials in self.base.values() for t in trials.values()]
        return list(dict.fromkeys([*own, *(t for r in self.rows for t in r.trials.values())]))

    def reading(self, test: Any) -> SiteTable:
        """The table."""
        rows = []
        for r in self.rows:
            t, base = r.trials, self.base[r.b]
            stitched = t["stitched"]
            rows.append(
                {
                    "site_a": r.a.site.name,
                    "site_b": r.b.site.name,
                    "site": r.a.site.name,
                    "by": r.by,
                    "in_block": r.a.in_block or r.b.in_block,
                    "accuracy": stitched.accuracy,
                    "penalty": base["recalibrated"].accuracy - stitched.accuracy,
                    "penalty_frozen_bn": base["frozen"].accuracy - t["frozen"].accuracy,
                    "floor": t["floor"].accuracy,
                    "ceiling": t["ceiling"].accuracy,
                    "loss": stitched.loss / stitched.total,
                    "agreement": stitched.agreed / stitched.total,
                    "seconds": r.seconds,
                }
            )
        table = pd.DataFrame(rows)
        groups = table.groupby("by", sort=False)
        summary = groups[["accuracy", "penalty", "floor", "ceiling"]].mean()
        summary.insert(2, "worst penalty", groups["penalty"].max())
        summary.insert(0, "rows", groups.size())
        meta: dict[str, Any] = {
            "accuracy": next(iter(self.base.values()))["frozen"].accuracy,
            "samples": int(test.count),
            "sites_a": [c.site.name for c in self.sides["a"].found],
            "sites_b": [c.site.name for c in self.sides["b"].found],
            "clock": ["seconds"],
            "summary": summary.reset_index().to_dict("list"),
        }
        if self.notes:
            meta["notes"] = self.notes
        units = dict.fromkeys(("accuracy", "penalty", "penalty_frozen_bn", "floor", "ceiling"), "1")
        units |= {"agreement": "1", "loss": "nats", "seconds": "s"}
        return SiteTable("stitch", table, units=units, meta=meta)


def _between(inner: Module, one: Cut, two: Cut) -> Module:
    return Between(inner, (one.axis, two.axis), two.space)
