"""The report of a sweep: its figures, the numbers behind them, and every job, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from isogon import context, storage
from isogon.errors import IsogonError
from isogon.readings.latex import latex
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import given
from isogon.survey.declaring.job import Job
from isogon.survey.pages.figures import Drawn, study
from isogon.survey.pages.prose import definition
from isogon.survey.pages.report import cited, embedded, page, span, table_cells, title
from isogon.survey.running.record import Record, load_inside
from isogon.survey.running.states import JobState
from isogon.survey.running.sweep import Sweep

NAME = "report.html"
FIGURES = "figures"
TABLES = "tables"


def write(sweep: Sweep, *, alive: set[str] | None = None) -> list[Path]:
    """Write ``report.html``, ``figures/*.png`` and the numbers behind these as ``tables/*``.

    Args:
        sweep: With at least one finished job.
        alive: Slurm jobs that still exist; None where Slurm was not asked.

    Returns:
        Paths of the page and of the figures.

    Tables are CSV and LaTeX, ``table-K`` behind figure K (``table-K-2`` where it has several).
    """
    with context.from_file(sweep.directory):  # the folder may not make us run what it names
        return _written(sweep, sweep.states(alive))


def _written(sweep: Sweep, states: list[JobState]) -> list[Path]:
    records = _records(sweep, states)
    figures, problems = [], []
    jobs = [*(r.job for r in records.values()), *sweep.jobs.values()]
    for measure in dict.fromkeys(job.measure for job in jobs):
        own = {id: r for id, r in records.items() if r.job.measure == measure}
        try:
            for drawn in study(own, sweep.figures, sweep.names):
                figures.append(drawn)
        except Exception as error:  # a figure must not cost the numbers, or another measure's
            known = isinstance(error, IsogonError)
            problems.append(str(error) if known else f"{type(error).__name__}: {error}")
    problem = "; ".join(dict.fromkeys(problems))
    paths = [sweep.directory / NAME]
    folder = sweep.directory / FIGURES
    for old in folder.glob("figure-*.png"):
        old.unlink(missing_ok=True)  # another sweep on this folder may end now
    for old in (sweep.directory / TABLES).glob("table-*.*"):
        old.unlink(missing_ok=True)
    for k, drawn in enumerate(figures, 1):
        paths.append(folder / f"figure-{k}.png")
        with storage.atomic(paths[-1]) as temporary:
            drawn.figure.savefig(temporary, format="png", dpi=160)
        for i, frame in enumerate((t for t in drawn.tables.values() if len(t)), 1):
            name = f"table-{k}" if i == 1 else f"table-{k}-{i}"
            _tabled(sweep.directory / TABLES / name, frame)
    text = render(sweep, states, records, figures, problem)
    with storage.atomic(paths[0]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return paths


def _tabled(path: Path, frame: pd.DataFrame) -> None:
    """A table as CSV and as LaTeX."""
    csv: Any = frame.to_csv(index=False, lineterminator="\n")
    texts = {".csv": csv, ".tex": latex(frame) + "\n"}
    for suffix, text in texts.items():
        with storage.atomic(path.with_name(path.name + suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def render(
    sweep: Sweep,
    states: list[JobState],
    records: dict[str, Record],
    figures: Iterable[Drawn],
    problem: str = "",
) -> str:
    """The page as text."""
    sections = [_section(k, drawn, sweep) for k, drawn in enumerate(figures, 1)]
    measures = dict.fromkeys(job.measure for job in sweep.jobs.values())
    spent = sum(r.provenance["seconds"] for r in records.values())
    top = [
        ("jobs done", str(len(records)), f"of {sum(j.shard is None for j in sweep.jobs.values())}"),
        ("models", str(len({r.job.inputs.get("model") for r in records.values()})), ""),
        ("figures", str(len(sections)), ""),
        ("measured in", *span(spent)),
    ]
    return page(
        "sweep.html",
        sweep=sweep,
        heading=sweep.title or sweep.directory.name,
        figures=top,
        sections=sections,
        problem=problem,
        jobs=[_job(sweep, state, records.get(state.id)) for state in states],
        definitions=[_definition(name) for name in measures],
        provenance=_provenance(records),
    )


def _records(sweep: Sweep, states: list[JobState]) -> dict[str, Record]:
    """The whole records of finished jobs, in the order of the plan as it is written."""
    place = {id: i for i, id in enumerate(sweep.names)}
    wholes = (s for s in states if s.record and sweep.jobs[s.id].shard is None)
    done = sorted(wholes, key=lambda s: place.get(s.id, len(place)))
    found = {s.id: load_inside(sweep.directory, s.record) for s in done}
    return {id: record for id, record in found.items() if record is not None}


def _section(k: int, drawn: Drawn, sweep: Sweep) -> dict[str, Any]:
    return {
        "id": f"figure-{k}",
        "title": drawn.title,
        "figure": embedded(drawn.figure, f"{sweep.title}-{k}"),
        "caption": drawn.caption,
        "tables": [
            (name, table_cells(frame, name, {}))
            for name, frame in drawn.tables.items()
            if len(frame)
        ],
    }


def _job(sweep: Sweep, state: JobState, record: Record | None) -> dict[str, Any]:
    seconds = f"{record.provenance['seconds']:.2f}" if record else ""
    return {
        "id": state.id,
        "state": state.state,
        "seconds": seconds,
        "command": _command(sweep.jobs[state.id]),
        "error": state.error,
    }


def _command(job: Job) -> str:
    """The command line of a job, without the options that have their defaults."""
    try:
        declaration = catalogue.declaration(job.measure)
    except IsogonError:
        return job.command()
    return Job(job.measure, job.inputs, given(job, declaration), job.seed, job.shard).command()


def _definition(name: str) -> dict[str, Any]:
    try:
        declaration = catalogue.declaration(name)
    except IsogonError:  # made by a package that is not installed any more
        return {"title": title(name), "summary": "", "body": "", "works": []}
    body = Markup(definition(declaration.doc))
    works = cited(declaration)
    return {"title": title(name), "summary": declaration.summary, "body": body, "works": works}


def _provenance(records: dict[str, Record]) -> list[tuple[str, str]]:
    """Where and with what; several values where the jobs differ."""
    found: dict[str, dict[str, None]] = {}
    for record in records.values():
        p = record.provenance
        facts = {"device": p["device"], "threads": p["threads"], **p["versions"]}
        for name, value in facts.items():
            found.setdefault(name, {})[str(value)] = None
    started = sorted(str(r.provenance["started"]) for r in records.values())
    times = [("first started", started[0]), ("last started", started[-1])] if started else []
    return [*times, *((name, ", ".join(values)) for name, values in found.items())]
