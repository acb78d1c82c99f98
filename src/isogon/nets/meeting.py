"""Measures that read the same data in the same way, in one pass.

Each measure is called once until it asks for its first pass (`Meeting.ask`), and ends there. What
was asked of the same models, data and orbit is then one pass over the union of the watchers
(`Meeting.run`): each model runs once, each orbit is warped once. At last each measure is called
again (`Meeting.met`); where it asks for that pass its watchers are given what the others have seen,
and it goes on as if they had been there. They were shown the same chunks of the same values as in
a pass of their own, so that the results are the same bit by bit. A measure that fails on the way is
left out: called alone, it fails in its own words.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isogon import context
from isogon.nets.elsewhere import Asked, TurnOver, run_by
from isogon.nets.watchers import PerSample

if TYPE_CHECKING:
    from isogon.readings.reading import Reading


@dataclass
class Pass:
    """One that was run for several measures.

    Attributes:
        asked: By measure.
        seen: Samples.
        seconds: How long it took.
    """

    asked: dict[str, Asked]
    seen: int = 0
    seconds: float = 0.0


@dataclass
class Meeting:
    """The first passes of several measures.

    Attributes:
        asked: What each has asked for.
        spent: Seconds that it took each to ask.
        held: The pass that was run for each.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    held: dict[str, Pass] = field(default_factory=dict)

    def ask(self, name: str, measured: Callable[[], Reading]) -> None:
        """Call a measure until it asks for a pass."""
        start = time.perf_counter()
        with warnings.catch_warnings(), context.use(progress=context.silent):
            warnings.simplefilter("ignore")  # it warns when it is called in earnest
            try:
                with run_by(_Listening(self.asked, name)):
                    measured()
            except TurnOver:
                pass
            except Exception:
                self.asked.pop(name, None)
        self.spent[name] = time.perf_counter() - start

    def run(self, all_passes: Callable[..., int]) -> None:
        """Run what was asked for by two or more."""
        groups: dict[Any, dict[str, Asked]] = {}
        for name, asked in self.asked.items():
            if not any(isinstance(w, PerSample) for w in asked.watchers):  # it runs models itself
                groups.setdefault(_alike(asked), {})[name] = asked
        for group in groups.values():
            if len(group) < 2:
                continue
            first, start = next(iter(group.values())), time.perf_counter()
            watchers = [w for asked in group.values() for w in asked.watchers]
            options = {**first.options, "what": ", ".join(group)}
            passes = max(asked.options.get("passes", 1) for asked in group.values())
            options["passes"] = passes
            found = Pass(group)
            found.seen = all_passes(first.models, first.batches, watchers, **options)
            found.seconds = time.perf_counter() - start
            self.held |= dict.fromkeys(group, found)

    @contextmanager
    def met(self, name: str) -> Iterator[None]:
        """Inside, the measure finds its first pass run."""
        if name not in self.held:
            yield
            return
        with run_by(_Answering(self.held[name], name)):
            yield

    def facts(self, name: str) -> dict[str, Any]:
        """What others had a share in: seconds of the pass, and the measures; ``{}`` alone."""
        if name not in self.held:
            return {}
        found = self.held[name]
        return {"seconds": found.seconds, "with": [n for n in found.asked if n != name]}

    def seconds(self, name: str) -> float:
        """A measure's part of what the meeting took: asking, and its share of the pass."""
        found = self.held.get(name)
        return self.spent.get(name, 0.0) + (found.seconds / len(found.asked) if found else 0.0)


@dataclass
class _Listening:
    asked: dict[str, Asked]
    name: str

    def all_passes(self, asked: Asked) -> int:
        self.asked[self.name] = asked
        raise TurnOver


@dataclass
class _Answering:
    held: Pass
    name: str
    used: bool = False

    def all_passes(self, asked: Asked) -> int | None:
        before = self.held.asked[self.name]
        if self.used or _alike(asked) != _alike(before):
            return None
        self.used = True
        for mine, ran in zip(asked.watchers, before.watchers, strict=True):
            vars(mine).update(vars(ran))
        return self.held.seen


def _alike(asked: Asked) -> Any:
    """What must be the same objects for two to be one pass."""
    models = asked.models
    named = dict(models) if isinstance(models, Mapping) else {"": models}
    rest = {k: v for k, v in asked.options.items() if k not in ("orbit", "what", "passes")}
    key = tuple((name, id(m)) for name, m in named.items())
    return key, id(asked.batches), id(asked.options.get("orbit")), tuple(sorted(rest.items()))
