"""The figures of a sweep: what differs between its jobs becomes curves, panels and figures.

Jobs differ in *factors*: inputs and options of the measure. What a value of a factor is called
is what the plan calls it (``model: {plain: SPEC}``), else the part of the spec that differs from
the others' (``kernel 5``). Seeds are no difference: jobs that differ in seeds alone are one
curve, with a spread; the factor ``seed`` tells them apart where it is named, or where readings are
shown one by one. Without ``figures`` a plan has one figure and one table per measure. With them,
they say how factors are used::

    figures:
      - panels: family          # factors whose values are panels beside each other
        each: batches           # factors with a figure for each value
        curves: model           # factors that name the curves; by default all others
        column: [anova_f, goodfellow]    # statistics, each with its panels
        where: {family: rotations(16)}   # only these values
        title: A heading
        caption: A line below the figure.
      - draw: {stability: true} # a figure for each reading, with options of `isogon.draw`
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from isogon.errors import IsogonError, OptionError, unknown
from isogon.show.figure import draw
from isogon.show.together import Panel, draw_together, has_own, tables
from isogon.specs import Spec, parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.job import Job
from isogon.survey.running.record import Record

Facts = dict[str, dict[str, str]]  # job -> factor -> what its value is called
SEED = "seed"
APART = 8  # seeds that are a curve each, where nothing else tells the jobs apart
MOST = 12  # figures of single readings


@dataclass(frozen=True)
class Drawn:
    """A figure of a sweep with the tables behind it, and the measure that it is of."""

    title: str
    figure: Figure
    caption: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    measure: str = ""


def study(
    records: Mapping[str, Record],
    figures: Sequence[Mapping[str, Any]] = (),
    names: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Drawn]:
    """All figures of a sweep's finished jobs.

    Args:
        records: Job -> record, in the order of the plan.
        figures: As in the module's description; sensible ones where there are none.
        names: Job -> input -> what the plan calls it.

    Raises:
        OptionError: A figure names a factor or a value that there is not.
    """
    by_measure: dict[str, list[str]] = {}
    for id, record in records.items():
        by_measure.setdefault(record.job.measure, []).append(id)
    for measure, ids in by_measure.items():
        jobs = {i: records[i].job for i in ids}
        facts = factors(jobs, names or {})
        for id, seed in seeds(jobs).items():
            facts[id][SEED] = seed
        for entry in figures or [_default(facts)]:
            entry = {"title": heading(measure), **entry}
            chosen = _where(ids, facts, entry.get("where") or {})
            alone = "draw" in entry or (len(chosen) == 1 and not has_own(measure))
            made = _single if alone else _together
            for drawn in made(records, chosen, facts, entry):
                yield replace(drawn, measure=measure)


def factors(jobs: Mapping[str, Job], names: Mapping[str, Mapping[str, str]]) -> Facts:
    """What the jobs of one measure differ in, and what each value is called."""
    found: Facts = {id: {} for id in jobs}
    inputs = dict.fromkeys(n for j in jobs.values() for n in j.inputs)
    options = dict.fromkeys(n for j in jobs.values() for n in j.options)
    models = {n for measure in {j.measure for j in jobs.values()} for n in _models(measure)}
    for name in inputs:
        specs = {id: job.inputs.get(name, "") for id, job in jobs.items()}
        given = [s for s in specs.values() if s]
        texts = differences(given) if name in models else {s: _unseeded(s) for s in given}
        for id, spec in specs.items():
            called = names.get(id, {}).get(name)
            if called is None or str(_parsed(called)) == spec:  # not a name, but the spec again
                called = texts.get(spec, "none")
            found[id][name] = called
    for name in options:
        for id, job in jobs.items():
            found[id][name] = word(job.options.get(name))
    varying = [n for n in (*inputs, *options) if len({f[n] for f in found.values()}) > 1]
    return {id: {n: f[n] for n in varying} for id, f in found.items()}


def seeds(jobs: Mapping[str, Job]) -> dict[str, str]:
    """What tells jobs apart that differ in seeds: of each the seeds that vary, ``0`` or ``0/1``.

    Seeds that always go together (of a model and its data) are named once.
    """
    found: dict[str, dict[tuple[str, ...], str]] = {}
    for id, job in jobs.items():
        parts = [(n, *p) for n, spec in job.inputs.items() for p in _flat(parse(spec), ())]
        found[id] = {(n, *path): v for n, path, v in parts if path[-1:] == (SEED,)}
        found[id][SEED,] = str(job.options.get(SEED, job.seed))
    paths = list(dict.fromkeys(p for f in found.values() for p in f))
    # fresh weights have the seed of the job, where their spec says none
    columns = [tuple(f.get(p, f[SEED,]) for f in found.values()) for p in paths]
    told = list(dict.fromkeys(c for c in columns if len(set(c)) > 1))
    return {id: "/".join(c[k] for c in told) for k, id in enumerate(jobs)} if told else {}


def heading(measure: str) -> str:
    """A measure's name as the heading of its figures."""
    return measure.replace("_", " ").capitalize()


def differences(specs: Sequence[str]) -> dict[str, str]:
    """Of each spec, the part that differs from the others'; seeds are left out.

    ``trained(cnn, digits, epochs=5)`` and ``trained(cnn, digits, epochs=9, mixed=true)`` are
    ``epochs 5`` and ``epochs 9, mixed``; one with nothing of its own is ``plain``.
    """
    flat = {s: dict(_flat(parse(s), ())) for s in specs}
    paths = list(dict.fromkeys(p for f in flat.values() for p in f))
    varying = [
        p for p in paths if p[-1:] != ("seed",) and len({f.get(p) for f in flat.values()}) > 1
    ]
    found = {}
    for spec, parts in flat.items():
        words = []
        for path in varying:
            value = parts.get(path)
            key = path[-1].replace("_", " ") if path and not path[-1].isdigit() else ""
            if value is None or value == "false":
                continue
            words.append(key if value == "true" else f"{key} {value}".strip())
        found[spec] = ", ".join(words) or "plain"
    return found


# --------------------------------------------------------------------------- internals


def _models(measure: str) -> list[str]:
    """The inputs of a measure that are models."""
    try:
        declaration = catalogue.declaration(measure)
    except IsogonError:  # made by a package that is not installed any more
        return ["model"]
    nouns = {i.name: catalogue.noun(i.noun) for i in declaration.inputs}
    return [n for n, noun in nouns.items() if "model" in noun.get("kinds", ())]


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The parts of a spec by their place in it."""
    if isinstance(value, str) and path and value.endswith(")"):
        value = _parsed(value)  # a spec in quotes is shown whole, in its canonical text
    if not isinstance(value, Spec):
        yield path, word(value)
    elif path and path[-1] == "family":
        yield path, str(value)
    else:
        yield path, str(value.name if value.name is not None else value.path)
        parts = itertools.chain(
            ((str(i), v) for i, v in enumerate(value.args)), value.kwargs.items()
        )
        for key, part in parts:
            yield from _flat(part, (*path, key))
        if value.index is not None:
            yield (*path, "index"), str(value.index)


def _unseeded(spec: str) -> str:
    """A spec without its seed."""
    found = parse(spec)
    kwargs = {k: v for k, v in found.kwargs.items() if k != "seed"}
    return str(replace(found, kwargs=kwargs))


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except Exception:  # a text that only looks like a spec
        return text


def word(value: Any) -> str:
    """A value of a spec as it is told: of several, one after the other."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(word, value))
    return str(value)


def _default(facts: Facts) -> dict[str, Any]:
    """Panels by family, where the jobs differ in it and in something else; seeds told apart.

    Tables are over seeds, also where figures show a curve of each.
    """
    varying = [f for f in next(iter(facts.values()), {}) if f != SEED]
    if not varying and 1 < len({f.get(SEED) for f in facts.values()}) == len(facts) <= APART:
        return {"curves": SEED, "pooled": True}
    return {"panels": "family"} if "family" in varying and len(varying) > 1 else {}


def _words(facts: dict[str, str], names: Sequence[str]) -> str:
    """What the values of some factors are called: a number by what it is of."""
    values = ((f, facts.get(f, "")) for f in names)
    return ", ".join(_named(f, v) for f, v in values if v or f != SEED)


def _named(factor: str, value: str) -> str:
    bare = re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|true|false|none", value)
    return f"{factor.replace('_', ' ')} {value}" if bare or factor == SEED else value


def _many(value: Any) -> list:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _where(ids: list[str], facts: Facts, wanted: Mapping[str, Any]) -> list[str]:
    for factor, values in wanted.items():
        there = {facts[i].get(factor) for i in ids}
        if there == {None}:
            raise unknown("factor", str(factor), facts[ids[0]], error=OptionError)
        for value in _many(values):
            if str(value) not in there:
                raise unknown(f"value of {factor}", str(value), map(str, there), error=OptionError)
        ids = [i for i in ids if facts[i][factor] in set(map(str, _many(values)))]
    return ids


def _grouped(ids: list[str], facts: Facts, by: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id in ids:
        found.setdefault(_words(facts[id], by), []).append(id)
    return found


def _together(
    records: Mapping[str, Record], ids: list[str], facts: Facts, entry: Mapping[str, Any]
) -> Iterator[Drawn]:
    panels, each = _many(entry.get("panels")), _many(entry.get("each"))
    known = list(facts[ids[0]])
    varying = [f for f in known if f != SEED and len({facts[i][f] for i in ids}) > 1]
    for name in (*panels, *each, *_many(entry.get("curves"))):
        if name not in known:
            raise unknown("factor", str(name), known, error=OptionError)
    curves = _many(entry.get("curves")) or [f for f in varying if f not in (*panels, *each)]
    columns = _many(entry.get("column")) or [None]
    for name, part in _grouped(ids, facts, each).items():
        held = []
        for column in columns:
            for text, mine in _grouped(part, facts, panels).items():
                readings = tuple(records[i].reading for i in mine)
                words = tuple(_words(facts[i], curves) for i in mine)
                labels = tuple(_words(facts[i], [SEED]) for i in mine)
                held.append(Panel(text, readings, words, column, labels))
        figure = draw_together(held)
        title = ": ".join(t for t in (str(entry["title"]), name) if t)
        if entry.get("pooled"):
            held = [replace(panel, names=("",) * len(panel.names)) for panel in held]
        yield Drawn(title, figure, str(entry.get("caption", "")), tables(held))


def _single(
    records: Mapping[str, Record], ids: list[str], facts: Facts, entry: Mapping[str, Any]
) -> Iterator[Drawn]:
    options = entry.get("draw") or {}
    if not isinstance(options, Mapping):
        raise OptionError("options of a figure", got=options, expected="draw: {name: value}")
    for id in ids[:MOST]:
        varying = [f for f in facts[id] if len({facts[i][f] for i in ids}) > 1]
        title = ": ".join(t for t in (str(entry["title"]), _words(facts[id], varying)) if t)
        caption = str(entry.get("caption", ""))
        if len(ids) > MOST and id == ids[MOST - 1]:
            caption += f" The other {len(ids) - MOST} readings are in the records."
        reading = records[id].reading
        yield Drawn(title, draw(reading, **options), caption, {"In numbers": reading.summary()})
