"""What a sweep found: headline numbers of its readings over seeds, with their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from isogon.findings import Finding, Names, findings, numbers
from isogon.findings.finding import described, effect, nothing
from isogon.findings.intervals import LEVEL, mean
from isogon.findings.sides import in_unit
from isogon.findings.words import in_points, interval, number, percent, span, start
from isogon.survey.pages.figures import SEED, Facts, factors, seeds
from isogon.survey.running.record import Record

MANY = 8  # seeds that have a column each
LIMITS = {"%": (0.0, 1.0), "points": (-1.0, 1.0)}  # of shares, and of differences of shares


def facts_of(
    records: Mapping[str, Record], names: Mapping[str, Mapping[str, str]] | None = None
) -> Facts:
    """What the jobs of one measure differ in, the seeds among it."""
    jobs = {id: r.job for id, r in records.items()}
    facts = factors(jobs, names or {})
    for id, seed in seeds(jobs).items():
        facts[id][SEED] = seed
    return facts


def spread(records: Mapping[str, Record], facts: Facts) -> pd.DataFrame:
    """A row per headline number (and per setting): each seed's value, mean, sd, runs.

    Args:
        records: Job -> record, of one measure.
        facts: As `facts_of` gives them.
    """
    rows = []
    for words, values in _settings(records, facts).items():
        for name, (unit, runs) in values.items():
            row: dict[str, Any] = {"setting": words, "number": name}
            if len(runs) <= MANY:
                row |= {f"seed {seed}": in_unit(v, unit) for seed, v in runs.items()}
            held = np.array(list(runs.values()))
            row["mean"] = in_unit(float(held.mean()), unit)
            sd = float(held.std(ddof=1)) if len(held) > 1 else math.nan
            sd = 0.0 if sd < 1e-12 * abs(held).max() else sd  # rounding of a mean
            row["sd"] = _spread(sd, unit) if len(held) > 1 else "–"
            row["runs"] = len(held)
            rows.append(row)
    frame = pd.DataFrame(rows)
    if len(frame) and frame["setting"].nunique() == 1:
        frame = frame.drop(columns="setting")
    return frame.astype(object).where(frame.notna(), "–") if len(frame) else frame


def found_over(records: Mapping[str, Record], facts: Facts) -> list[Finding]:
    """What a measure says over all of its readings: a mean with its spread, or settings apart.

    Args:
        records: Job -> record, of one measure.
        facts: As `facts_of` gives them.
    """
    settings = _settings(records, facts)
    first = next(iter(records.values()))
    measure = first.job.measure
    weights = [findings(r.reading, Names())[0].weight for r in records.values()]
    weight = float(np.mean(weights))
    found: list[Finding] = []
    shared = [
        n for n in next(iter(settings.values()), {}) if all(n in s for s in settings.values())
    ]
    if not shared:
        return []
    if len(settings) > 1:
        for name in shared:
            made = _apart(name, settings)
            if made is not None:
                found.append(made)
        if found:
            return sorted((f.of(measure) for f in found), key=lambda f: -f.weight)[:2]
    words, values = next(iter(settings.items()))
    name = _headline(values)
    unit, runs = values[name]
    held = np.array(list(runs.values()))
    where = f" of {words}" if words and len(settings) > 1 else ""
    if len(held) < 2:
        text = f"{start(name)}{where} is {in_unit(float(held[0]), unit)}."
        found = [described(text, in_unit(float(held[0]), unit), "one run", 2 * weight)]
    else:
        centre, low, high = mean(held)
        if unit in LIMITS:  # no share lies beyond its ends, whatever Student's t says of three
            low, high = np.clip((low, high), *LIMITS[unit]).tolist()
        what = "pair of seeds" if "b" in first.job.inputs else "seed"
        many = what.replace("pair", "pairs") if "pair" in what else "seeds"
        value = in_unit(centre, unit)
        if _bare(held.min(), unit) == _bare(held.max(), unit):
            text = f"For each of {len(held)} {many} {name}{where} is {value}."
            return [described(text, value, "no spread", 2 * weight).of(measure)]
        ends = span(float(held.min()), float(held.max()), lambda v: _bare(v, unit))
        text = f"Over {len(held)} {many} {name}{where} is {value} on average, {ends} from {what} "
        text += f"to {what} (sd {_spread(float(held.std(ddof=1)), unit)})."
        against = f"{interval(low, high, lambda v: _bare(v, unit))} for the mean"
        if what != "seed":
            against += ", as if pairs were independent"
        found = [described(text, value, against, 2 * weight)]
    return [f.of(measure) for f in found]


def _settings(
    records: Mapping[str, Record], facts: Facts
) -> dict[str, dict[str, tuple[str, dict[str, float]]]]:
    """Setting -> number -> its unit and its value for each seed."""
    found: dict[str, dict[str, tuple[str, dict[str, float]]]] = {}
    for k, (id, record) in enumerate(records.items()):
        told = facts.get(id, {})
        words = ", ".join(v for f, v in told.items() if f != SEED)
        seed = told.get(SEED, str(k))
        for n in numbers(record.reading):
            if math.isfinite(n.value):
                _, runs = found.setdefault(words, {}).setdefault(n.name, (n.unit, {}))
                runs[seed if seed not in runs else f"{seed} ({k})"] = n.value
    return found


def _headline(values: Mapping[str, tuple[str, dict[str, float]]]) -> str:
    """The number to tell: of shares the largest on average, else the first."""
    shares = {n: np.mean(list(r.values())) for n, (u, r) in values.items() if u == "points"}
    costs = {n: v for n, v in shares.items() if "as it is" not in n}
    return max(costs, key=lambda n: costs[n]) if costs else next(iter(values))


def _apart(
    name: str, settings: Mapping[str, Mapping[str, tuple[str, dict[str, float]]]]
) -> Finding | None:
    """The two settings that are farthest apart in a number, by Welch's interval."""
    held = {w: np.array(list(v[name][1].values())) for w, v in settings.items()}
    held = {w: v for w, v in held.items() if len(v) > 1}
    if len(held) < 2:
        return None
    unit = next(iter(settings.values()))[name][0]
    order = sorted(held, key=lambda w: float(held[w].mean()))
    low_name, high_name = order[0], order[-1]
    one, two = held[low_name], held[high_name]
    gap = float(two.mean() - one.mean())
    top = 1.0 if unit in ("points", "%") else max(abs(two.mean()), abs(one.mean()), 1e-300)
    value = f"{in_unit(one.mean(), unit)} and {in_unit(two.mean(), unit)}"
    if not one.std() and not two.std():
        return None
    # one comparison of all pairs of settings: corrected by Bonferroni
    pairs = len(held) * (len(held) - 1) // 2
    test = stats.ttest_ind(two, one, equal_var=False)
    ends = test.confidence_interval(1 - LEVEL / pairs)
    low, high = ends.low, ends.high
    if unit in LIMITS:
        low, high = max(low, -1.0), min(high, 1.0)
    against = f"95 % interval of the difference {span(low, high, lambda v: _bare(v, unit))}"
    against += f"; {len(one)} and {len(two)} runs"
    text = f"{start(name)} is {in_unit(two.mean(), unit)} for {high_name} and "
    if low <= 0 <= high:
        text = f"The runs do not tell settings apart in {name}: {value} at the ends."
        return nothing(text, value, against, abs(gap) / top)
    return effect(
        f"{text}{in_unit(one.mean(), unit)} for {low_name}.", value, against, abs(gap) / top
    )


def _bare(value: float, unit: str) -> str:
    value = float(value)
    return (
        in_points(value) if unit == "points" else percent(value) if unit == "%" else number(value)
    )


def _spread(value: float, unit: str) -> str:
    return in_points(value) if unit in ("points", "%") else number(value, 2)
