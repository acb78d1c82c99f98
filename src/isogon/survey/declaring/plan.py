"""Plans: a page of YAML that stands for many jobs, checked before any of them runs.

::

    title: What the page is called          # optional, like about, scales, axes and figures
    about: The question that is asked.
    scales:                     # {name} is replaced below by the value of the chosen scale,
      laptop: {epochs: 5}       # the first one by default
      paper: {epochs: 200}
    axes:                       # {name} is replaced in every text below by each value
      seed: [0, 1, 2]
    model:                      # a spec, a list, or names with specs: the model of every measure
      plain: trained(cnn, digits, epochs={epochs}, seed={seed})
    batches: digits(test)       # any input may be given once for all measures
    measures:                   # lists multiply
      - name: data-matrix
        shards: 4               # one measurement over so many jobs; may stand at the top, too
      - name: invariance
        family: [rotations(8), rotations(16)]
        aggregate: channel
    pairs:                      # measures of two models: each pair of the models above, those of
      - name: similarity        # all values of the axes together
        over: distinct          # distinct (default), ordered, or all
    figures:                    # see `isogon.survey.pages.figures`; a sensible one by default
      - panels: family
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isogon import nesting, storage
from isogon.errors import FileError, IsogonError, OptionError, unknown
from isogon.specs import Spec, parse
from isogon.storage.yaml_text import MAX_BYTES, MAX_CHARACTERS, MAX_VALUES, read_yaml
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.check import check_job
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job, key_of
from isogon.survey.declaring.pairs import Filled, many, paired
from isogon.survey.declaring.splitting import check_splits

MAX_JOBS = 100_000
FIGURE_KEYS = ("panels", "curves", "each", "column", "where", "draw", "title", "caption")
KEYS = ("about", "axes", "figures", "measures", "pairs", "scales", "seed", "shards", "title")


@dataclass(frozen=True)
class Plan:
    """Checked jobs, each once, those of one model beside each other."""

    title: str
    jobs: tuple[Job, ...]
    about: str = ""
    figures: tuple[dict[str, Any], ...] = ()
    names: dict[str, dict[str, str]] = field(default_factory=dict)  # job -> input -> given name

    def ids(self) -> dict[str, Job]:
        """Job by identifier: readable, and the same for the same job in another plan."""
        return {_id(j): j for j in self.jobs}


def read_plan(path: str | Path, *, scale: str | None = None, shards: int | None = None) -> Plan:
    """Read and check a plan, at one of its scales (the first one by default).

    Args:
        path: The file.
        scale: Name of the scale.
        shards: Over how many jobs each measurement is shared out; what the plan says by default.

    Raises:
        FileError: The file can't be read, or is not YAML.
        OptionError: It does not follow the schema, or a job does not fit its measure.
        SpecError: A name that does not exist.
    """
    path = Path(path)
    data = read_yaml(_text(path), "plan", source=path)
    return expand(data, title=path.stem, scale=scale, shards=shards)


def _text(path: Path) -> bytes:
    """What is in a plan's file, if it is no more than a plan may be."""
    with storage.regular(path, "plan").open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise FileError("plan too large", got=str(path), expected=f"at most {MAX_BYTES} bytes")
    return text


def expand(
    data: Any, *, title: str = "plan", scale: str | None = None, shards: int | None = None
) -> Plan:
    """All jobs that a plan stands for.

    Raises:
        OptionError, SpecError: As `read_plan`.
    """
    if not isinstance(data, dict) or not (data.get("measures") or data.get("pairs")):
        raise OptionError(
            "not a plan",
            got=type(data).__name__ if not isinstance(data, dict) else ", ".join(map(str, data)),
            expected="a mapping with measures: or pairs:",
            fix="See plans/ for examples.",
        )
    data = _scaled(data, scale)
    shared = {str(k): v for k, v in data.items() if k not in KEYS}
    axes = data.get("axes") or {}
    if not isinstance(axes, dict):
        raise OptionError("axes must be a mapping", got=axes, expected="name: [values]")
    jobs: dict[str, Job] = {}
    made = 0
    names: dict[str, dict[str, str]] = {}
    used: set[str] = set()
    points = [dict(zip(axes, p)) for p in _product("axes", *map(many, axes.values()))]
    if not points:
        raise _nothing(axes)
    sections = {name: _entries(data.get(name), name) for name in ("measures", "pairs")}
    least = len(points) * sum(map(len, sections.values()))
    if least > MAX_JOBS:
        raise OptionError("plan too large", got=f"{least} jobs", expected=f"<= {MAX_JOBS} jobs")
    for section, make in (("measures", _measure_jobs), ("pairs", _pair_jobs)):
        for place, entry in enumerate(sections[section], 1):
            where = f"{section} {place} ({entry.get('name')})"
            try:
                declaration = catalogue.declaration(str(entry["name"]))
                used |= {i.name for i in declaration.inputs} | {o.name for o in declaration.options}
                count = _count(shards, entry.get("shards"), data.get("shards"))
                own = {k: v for k, v in entry.items() if k not in ("name", "shards")}
                entry = {**_seeded(data), **own}
                filled = ((_filled(entry, point), _filled(shared, point)) for point in points)
                before = made
                for job, called in make(declaration, filled):
                    made += 1 if count == 1 else 1 + count
                    if made > MAX_JOBS:  # also where they are the same job again
                        raise OptionError("plan too large", expected=f"<= {MAX_JOBS} jobs")
                    job, _ = check_job(job, declaration)
                    names_exist(job, declaration)
                    check_splits(job, declaration, count)
                    for each in [*(job.shares(count) if count > 1 else []), job]:
                        jobs[key_of(each.to_json())] = each
                    names.setdefault(_id(job), {}).update(called)
                if made == before:
                    raise _nothing({**axes, **shared, **entry})
            except IsogonError as error:
                message = type(error)(
                    f"{where}: {error.problem}",
                    got=error.got,
                    expected=error.expected,
                    fix=error.fix,
                )
                raise message from None
    known = {i.name for n in catalogue.names("measure") for i in catalogue.declaration(n).inputs}
    used |= known  # data that no measure of this plan takes is no mistake
    for name in shared:
        if name not in used:
            raise unknown("key of the plan", name, {*KEYS, *used}, error=OptionError)
    ordered = sorted(jobs.values(), key=lambda j: tuple(j.inputs.values())[:1])
    about, figures = str(data.get("about", "")), tuple(_figures(data.get("figures")))
    return Plan(str(data.get("title", title)), tuple(ordered), about, figures, names)


def names_exist(job: Job, declaration: Declaration) -> None:
    """Refuse specs, also inside specs and in options, of no registered name.

    Nothing is built, but for nouns that say of themselves that they are ``light``.

    Raises:
        SpecError: Listing what there is.
    """
    for wanted in declaration.inputs:
        kinds = catalogue.noun(wanted.noun).get("kinds")
        if wanted.name in job.inputs and kinds:
            _exists(parse(job.inputs[wanted.name]), kinds)
    entry = catalogue.stand_in("measure", declaration.name)
    for name, noun in nesting.nouns(entry).items():
        if declaration.option(name) is None or job.options.get(name) is None:
            continue
        for text in many(job.options[name]):
            _exists(parse(text), catalogue.noun(noun).get("kinds", ()))
            if catalogue.noun(noun).get("light"):
                catalogue.entry("noun", noun).build(text)


def _exists(spec: Spec, kinds: tuple[str, ...]) -> None:
    """The same for one spec and the specs in its arguments."""
    if spec.name is None or spec.module is not None or not kinds:
        return
    known = {n for kind in kinds for n in catalogue.names(kind)}
    if spec.name not in known:
        raise unknown(" or ".join(kinds), spec.name, known)
    kind = next(k for k in kinds if spec.name in catalogue.names(k))
    for noun, value in nesting.nested(catalogue.entry(kind, spec.name), spec):
        _exists(parse(value), catalogue.noun(noun).get("kinds", ()))


# --------------------------------------------------------------------------- internals


Named = tuple[Job, dict[str, str]]  # a job, and what the plan calls its inputs


def _id(job: Job) -> str:
    whole = f"{job.measure}-{key_of(job.whole().to_json())[:10]}"
    return whole if job.shard is None else f"{whole}.{job.shard[0] + 1}of{job.shard[1]}"


def _count(*said: Any) -> int:
    """Over how many jobs a measurement is shared out, by the first that says so."""
    count = next((n for n in said if n is not None), 1)
    if isinstance(count, bool) or not isinstance(count, int):
        raise OptionError("shards must be a number of jobs", got=count, expected="shards: 4")
    return count


def _scaled(data: dict, scale: str | None) -> dict:
    """The plan with ``{name}`` replaced by the values of a scale."""
    scales = data.get("scales") or {}
    if not isinstance(scales, dict) or not all(isinstance(v, dict) for v in scales.values()):
        raise OptionError("scales must be a mapping", got=scales, expected="laptop: {name: value}")
    if scale is None:
        scale = next(iter(scales), None)
    elif scale not in scales:
        raise unknown("scale of the plan", scale, map(str, scales), error=OptionError)
    rest = {k: v for k, v in data.items() if k != "scales"}
    return rest if scale is None else _filled(rest, scales[scale])


def _figures(section: Any) -> list[dict[str, Any]]:
    """The figures of a plan, as `isogon.survey.pages.figures` draws them."""
    found = [] if section is None else many(section)
    for entry in found:
        if not isinstance(entry, dict):
            raise OptionError("figures must be a list", got=entry, expected="- panels: family")
        for key in entry:
            if key not in FIGURE_KEYS:
                raise unknown("key of a figure", str(key), FIGURE_KEYS, error=OptionError)
    return found


def _nothing(given: dict[str, Any]) -> OptionError:
    """The error for an entry that no job comes out of."""
    empty = [f"{name}: []" for name, value in given.items() if value in ([], {}, ())]
    return OptionError(
        "this stands for no job",
        got=", ".join(empty) or "nothing to combine",
        expected="at least one value in every list",
        fix=f"Give a value for {empty[0].split(':')[0]}, or leave it out." if empty else None,
    )


def _measure_jobs(declaration: Declaration, filled: Iterable[Filled]) -> Iterator[Named]:
    for entry, shared in filled:
        yield from _combined(declaration, entry, shared)


def _combined(declaration: Declaration, entry: dict, shared: dict) -> Iterator[Named]:
    """The jobs of one entry at one point of the axes."""
    inputs: dict[str, list] = {}
    called: dict[str, dict[str, str]] = {}
    for wanted in declaration.inputs:
        given = entry.pop(wanted.name, shared.get(wanted.name))
        if given is None and wanted.name in catalogue.models(declaration):
            given = shared.get("model")
        if isinstance(given, dict):
            given = {str(k): many(v) for k, v in given.items()}
            called[wanted.name] = {str(v): k for k, values in given.items() for v in values}
            given = [v for values in given.values() for v in values]
        if given is not None:
            inputs[wanted.name] = [str(v) for v in many(given)]
    for job in _jobs(declaration, inputs, entry, shared):
        texts = {n: called[n].get(spec) for n, spec in job.inputs.items() if n in called}
        yield job, {n: t for n, t in texts.items() if t is not None}


def _pair_jobs(declaration: Declaration, filled: Iterable[Filled]) -> Iterator[Named]:
    yield from _measure_jobs(declaration, paired(declaration, filled))


def _jobs(
    declaration: Declaration, inputs: dict[str, list], entry: dict, shared: dict
) -> Iterator[Job]:
    """Every combination of the inputs and the options."""
    seeds = many(entry.pop("seed", 0)) if declaration.option("seed") is None else [0]
    options: dict[str, list] = {}
    for name, value in entry.items():
        option = declaration.option(name)
        if option is None:
            known = [i.name for i in declaration.inputs] + [o.name for o in declaration.options]
            raise unknown(
                f"input or option of {declaration.command}", name, known, error=OptionError
            )
        options[name] = _values(value, option.type)
    for o in declaration.options:
        if o.name not in options and o.name in shared:
            options[o.name] = _values(shared[o.name], o.type)
    names = [*inputs, *options]
    for chosen in _product(declaration.command, *inputs.values(), *options.values(), seeds):
        *values, seed = chosen
        given = dict(zip(names, values))
        yield Job(
            declaration.name,
            {n: given[n] for n in inputs},
            {n: given[n] for n in options},
            seed if isinstance(seed, int) else 0,
        )


def _values(value: Any, code: Any) -> list:
    """The values of an option: a list multiplies, unless the option itself is a list."""
    value = _numbers(value)
    if not isinstance(value, list) or types.fits_code(value, code):
        return [tuple(value) if isinstance(value, list) else value]
    return [tuple(v) if isinstance(v, list) else v for v in value]


def _numbers(value: Any) -> Any:
    """YAML reads 1e-3 as text: it is a number."""
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _product(what: str, *lists: list) -> Iterator[tuple]:
    size = 1
    for values in lists:
        size *= len(values)
    if size > MAX_JOBS:
        raise OptionError(f"{what} stands for {size} jobs", expected=f"at most {MAX_JOBS}")
    return itertools.product(*lists)


def _entries(section: Any, name: str) -> list[dict]:
    if section is None:
        return []
    entries = [{"name": e} if isinstance(e, str) else e for e in many(section)]
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise OptionError(
                f"{name} must be a list", got=entry, expected="- name: MEASURE, with its options"
            )
    return entries


def _seeded(data: dict) -> dict:
    return {"seed": data["seed"]} if "seed" in data else {}


def _filled(value: Any, point: dict[str, Any], left: list[int] | None = None) -> Any:
    """``{name}`` replaced by the value of that axis; a text that is only that keeps its type.

    ``left`` counts down the values and characters that may come out: replacements hold names
    of their own, and a few lines of them could stand for more text than memory holds.
    """
    left = [MAX_VALUES, MAX_CHARACTERS] if left is None else left
    left[0] -= 1
    if isinstance(value, dict):
        value = {str(_filled(k, point, left)): _filled(v, point, left) for k, v in value.items()}
    elif isinstance(value, list):
        value = [_filled(v, point, left) for v in value]
    elif isinstance(value, str):
        if value[1:-1] in point and value[:1] + value[-1:] == "{}":
            return point[value[1:-1]]
        for name, here in point.items():
            if count := value.count(mark := "{" + name + "}"):
                here = str(here)
                left[1] -= count * len(here)
                _within(left)
                value = value.replace(mark, here)
    _within(left)
    return value


def _within(left: list[int]) -> None:
    if min(left) < 0:
        raise OptionError(
            "what the plan stands for is too large",
            got="axes or scales that repeat each other",
            expected=f"at most {MAX_VALUES} values and {MAX_CHARACTERS} characters",
            fix="Split the plan, or write it shorter.",
        )
