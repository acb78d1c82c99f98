"""What is fitted between two networks, trained, tried and told."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon import context
from isogon.data import Batches
from isogon.errors import OptionError
from isogon.measures.stitching.cuts import Cut, Cuts
from isogon.measures.stitching.maps import Between
from isogon.measures.stitching.methods import Stitch
from isogon.measures.stitching.moments import PairSums, connected
from isogon.measures.stitching.refine.course import Course, Pace
from isogon.measures.stitching.refine.kept import Kept
from isogon.measures.stitching.refine.norms import Norm, normed, share_of_zeros
from isogon.measures.stitching.trials import Counting, Recalibrating, Tail, Trial
from isogon.nets.hygiene import device_dtype
from isogon.nets.passes import one_pass
from isogon.readings import SiteTable
from isogon.stats.cross import Cross

if TYPE_CHECKING:
    from isogon.nets.watchers import Viewer


CHUNK = 64  # samples whose activations of a wait for those of b


@dataclass(frozen=True)
class Settings:
    """How maps are trained and chosen, see `isogon.stitch`."""

    steps: tuple[int, ...] = (0,)
    validation: float = 0.1
    lr: float = 1e-3
    warmup: int = 0
    norm: Norm = "none"
    most: int = 2000

    @classmethod
    def of(
        cls,
        refine: int | tuple[int, ...],
        validation: float,
        lr: float,
        warmup: int,
        norm: Norm,
        most: int,
    ) -> Settings:
        """The same, checked.

        Raises:
            OptionError: Out of range.
        """
        steps = tuple(refine) if isinstance(refine, tuple | list) else (refine,)
        if not steps or min(steps) < 0 or warmup < 0 or not lr > 0:
            raise OptionError(
                "options out of range",
                got=f"refine={refine}, warmup={warmup}, lr={lr:g}",
                expected="refine >= 0, warmup >= 0, lr > 0",
            )
        if not 0 < validation < 1:
            raise OptionError(
                "validation out of range",
                got=validation,
                expected="a share between 0 and 1, e.g. 0.1",
            )
        if norm not in ("none", "before", "after", "both"):
            raise OptionError(
                "no such place of a norm", got=norm, expected="none, before, after or both"
            )
        return cls(tuple(dict.fromkeys(steps)), validation, lr, warmup, norm, most)


@dataclass(eq=False)
class Row:
    """One method, trained for so many steps, at one pair of cuts.

    Attributes:
        a: Where the head ends.
        b: Where the tail begins.
        by: The stitch.
        steps: Minibatches.
        choices: Its strengths, and the map that is fitted for each.
        seconds: That it took.
        map: What was chosen.
        strength: Its strength, or None.
        losses: Of the choices, on validation samples.
        trials: Ways through it.
    """

    a: Cut
    b: Cut
    by: Stitch
    steps: int
    choices: list[tuple[float | None, Stitch, Module]]
    seconds: float
    map: Module | None = None
    strength: float | None = None
    losses: dict[float, float] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether it needs the activations once more: to be trained, or chosen."""
        return len(self.choices) > 1 or self.steps > 0


class Stitching:
    """All pairs and methods, what is fitted for them, and their trials.

    Args:
        sides: Both models' cuts, b first: answers are compared with its own.
        pairs: Which cuts go together.
        notes: What was left out.
        methods: The stitches.
        settings: How they are trained and chosen.
    """

    def __init__(
        self,
        sides: dict[str, Cuts],
        pairs: list[tuple[Cut, Cut]],
        notes: list[str],
        methods: list[Stitch],
        settings: Settings,
    ) -> None:
        self.sides, self.pairs, self.notes, self.methods = sides, pairs, notes, methods
        self.settings = settings
        for m in methods:
            if m.only and not any(settings.steps):
                raise OptionError(
                    f"{m.name} has no closed form",
                    got="refine=0",
                    expected="minibatches to train it for",
                    fix="Give refine=200, say.",
                )
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

    def fit(self, models: dict[str, Module], train: Batches, generator: torch.Generator) -> None:
        """One pass over data, and every closed form."""
        began = time.perf_counter()
        count, chosen = 0, [m for m in self.methods if m.among]
        self.learned, self.held = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        if chosen or any(self.settings.steps):
            count = int(train.count)
            self.learned = torch.arange(count)
        if chosen:
            self._hold_out(count, generator)
            train = Batches(train.samples.subset(self.learned), train.batch_size)
        room: dict[int, Tensor] = {}
        groups = [PairSums(g, room) for g in connected(self.pairs)]
        one_pass(models, train, groups, chunk=CHUNK, what="moments of both networks")
        passed = time.perf_counter() - began
        sums = {pair: g for g in groups for pair in g.pairs}
        cuts = dict.fromkeys(two for _, two in self.pairs)
        self.tails = {cut: Tail(self.sides["b"].anatomy, cut) for cut in cuts}
        heads = dict.fromkeys(one for one, _ in self.pairs)
        self.orders = {one: torch.randperm(one.channels, generator=generator) for one in heads}
        self.ceilings: dict[tuple[Cut, str, float | None], Module] = {}
        for two, tail in self.tails.items():
            own = Trial(two, tail, tail.own)
            other = Trial(two, tail, tail.fresh()) if tail.norms else own
            self.base[two] = {"frozen": own, "recalibrated": other}
        for one, two in self.pairs:
            moments = sums[one, two].of(one, two)
            for m in self.methods:
                if m.same and one.channels != two.channels:
                    continue
                began = time.perf_counter()
                choices = [
                    (value, s, self._dressed(s.fit(moments, generator), moments))
                    for value, s in m.choices
                ]
                seconds = time.perf_counter() - began + passed / len(self.pairs)
                if (two, m.name, m.choices[0][0]) not in self.ceilings:
                    own = sums[one, two].itself(two)
                    for value, c in m.choices:
                        itself = self._dressed(c.fit(own, generator), own)
                        self.ceilings[two, m.name, value] = itself
                for steps in self._steps(m):
                    if steps or not m.only:
                        self.rows.append(Row(one, two, m, steps, choices, seconds))
        self.seed = int(torch.randint(2**31, (), generator=generator))
        self.seconds["moments"] = passed

    def _steps(self, method: Stitch) -> tuple[int, ...]:
        """Minibatches of each row of a method: the least alone where there is nothing to train."""
        trained = method.train is not None or self.settings.norm != "none"
        return self.settings.steps if trained else (min(self.settings.steps),)

    def _hold_out(self, count: int, generator: torch.Generator) -> None:
        """Which samples maps are fitted on, and which they are chosen by."""
        held = round(self.settings.validation * count)
        if not 0 < held < count:
            raise OptionError(
                "too few samples to choose a strength by",
                got=f"{count} samples, validation={self.settings.validation:g}",
                expected="at least one in either part",
            )
        order = torch.randperm(count, generator=generator)
        self.held, self.learned = order[:held].sort().values, order[held:].sort().values

    def _dressed(self, inner: Module, moments: Cross) -> Module:
        if self.settings.norm == "none":
            return inner
        dtype = device_dtype(self.sides["b"].anatomy.model)[1]
        return normed(inner, moments, self.settings.norm, dtype)

    def refine(self, models: dict[str, Module], train: Batches) -> None:
        """Train maps on the task loss and choose strengths, head by head."""
        began, report, done = time.perf_counter(), context.progress(), 0
        todo = [r for r in self.rows if r.reads]
        total = sum(r.steps * len(r.choices) for r in todo)

        def step() -> None:
            nonlocal done
            report(done, total, "training stitches")
            done += 1

        for row in self.rows:
            if not row.reads:
                row.strength, _, row.map = row.choices[0]
        for one in dict.fromkeys(r.a for r in todo):
            kept = Kept(self.sides["a"], one, train)
            one_pass({"a": models["a"]}, train, [kept], what="activations to train on")
            for row in (r for r in todo if r.a is one):
                self._settle(row, kept, int(train.batch_size), step)
        if todo:
            self.seconds["training"] = time.perf_counter() - began

    def _settle(self, row: Row, kept: Kept, size: int, step: Callable[[], None]) -> None:
        """Train the map of each strength, and take the best of them."""
        began, s = time.perf_counter(), self.settings
        pace = Pace(row.steps, s.lr, s.warmup, size, s.most, self.seed)
        course = Course(kept, row.b, self.tails[row.b], self.learned, pace)
        found = []
        for value, stitch, start in row.choices:
            inner = getattr(start, "inner", start) if s.norm != "none" else start
            refinable = None
            if row.steps and stitch.train is not None:
                refinable = stitch.train(inner, torch.Generator().manual_seed(self.seed))
            trained = course.run(start, refinable, step) if row.steps else start
            if len(row.choices) > 1 and value is not None:
                row.losses[value] = course.loss(trained, self.held)
            found.append((value, trained))
        best = min(row.losses, key=row.losses.__getitem__) if row.losses else found[0][0]
        row.strength = best
        row.map = next(trained for value, trained in found if value == best)
        row.seconds += time.perf_counter() - began

    def recalibrate(self, models: dict[str, Module], train: Batches) -> None:
        """Ways through all maps, with statistics of batch-norms from what flows there."""
        ceilings: dict[tuple[Cut, str, float | None], Trial] = {}
        for row in self.rows:
            assert row.map is not None
            one, two, tail = row.a, row.b, self.tails[row.b]
            through = _between(row.map, one, two)
            like = self.base[two]["recalibrated"]
            stitched = Trial(one, tail, tail.fresh(), through, like=like)
            # norms around the map keep statistics of their own in every way through it
            mixed = copy.deepcopy(through) if stitched.norms else through
            key = two, row.by.name, row.strength
            if key not in ceilings:
                itself = _between(self.ceilings[key], two, two)
                ceilings[key] = Trial(two, tail, tail.fresh(), itself)
            row.trials = {
                "stitched": stitched,
                "frozen": Trial(one, tail, tail.own, through) if tail.norms else stitched,
                "floor": Trial(one, tail, tail.fresh(), mixed, self.orders[one]),
                "ceiling": ceilings[key],
            }
        trials = [t for t in self.trials() if t.statistics is not t.tail.own]
        trials = [t for t in trials if t.tail.norms or t.norms]
        if not trials:
            return
        began = time.perf_counter()
        if len(self.held):
            train = Batches(train.samples.subset(self.learned), train.batch_size)
        x, y = train.first(self.settings.most)
        size = train.batch_size
        batches = list(zip(x.split(size), y.split(size)))
        watcher = Recalibrating(self.sides, trials)
        one_pass(models, batches, [watcher], what="batch-norm statistics")
        self.seconds["recalibration"] = time.perf_counter() - began

    def counting(self) -> list[Viewer]:
        """Who counts right answers."""
        return [Counting(self.sides, self.trials())]

    def trials(self) -> list[Trial]:
        """Each once; those of b with its own layers first."""
        own = [t for trials in self.base.values() for t in trials.values()]
        return list(dict.fromkeys([*own, *(t for r in self.rows for t in r.trials.values())]))

    def reading(self, test: Batches) -> SiteTable:
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
                    "by": r.by.name,
                    "refine": r.steps,
                    "in_block": r.a.in_block or r.b.in_block,
                    "accuracy": stitched.accuracy,
                    "penalty": base["recalibrated"].accuracy - stitched.accuracy,
                    "penalty_frozen_bn": base["frozen"].accuracy - t["frozen"].accuracy,
                    "floor": t["floor"].accuracy,
                    "ceiling": t["ceiling"].accuracy,
                    "loss": stitched.loss / stitched.total,
                    "agreement": stitched.agreed / stitched.total,
                    "strength": float("nan") if r.strength is None else r.strength,
                    "sparsity": share_of_zeros(r.map, r.a.channels),
                    "seconds": r.seconds,
                }
            )
        table = pd.DataFrame(rows)
        groups = table.groupby(["by", "refine"], sort=False)
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
        if any(r.losses for r in self.rows):
            meta["strengths"] = [
                {
                    "site_a": r.a.site.name,
                    "site_b": r.b.site.name,
                    "by": r.by.name,
                    "refine": r.steps,
                    "strength": value,
                    "loss": loss,
                    "chosen": value == r.strength,
                }
                for r in self.rows
                for value, loss in r.losses.items()
            ]
            meta["validation"] = len(self.held)
        if self.notes:
            meta["notes"] = self.notes
        units = dict.fromkeys(("accuracy", "penalty", "penalty_frozen_bn", "floor", "ceiling"), "1")
        units |= {"agreement": "1", "sparsity": "1", "loss": "nats", "seconds": "s"}
        return SiteTable("stitch", table, units=units, meta=meta)


def _between(inner: Module, one: Cut, two: Cut) -> Module:
    return Between(inner, (one.axis, two.axis), two.space)
