"""The commands: which there are, and what each does with its parsed options."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isogon import context
from isogon.errors import FileError, OptionError, unknown
from isogon.survey.declaring import catalogue

if TYPE_CHECKING:
    from argparse import Namespace

    from isogon.survey.running.record import Record


RUNS = "runs"


@dataclass(frozen=True)
class Command:
    """A subcommand that is not derived from a measure."""

    summary: str
    run: Callable[[list[str]], int]


def command_named(name: str) -> Callable[[list[str]], int]:
    """What runs a subcommand.

    Raises:
        OptionError: There is no such command.
    """
    if name in COMMANDS:
        return COMMANDS[name].run
    if not catalogue.holds("measure", name):
        measures = {n.replace("_", "-") for n in catalogue.names("measure")}
        raise unknown("command", name, sorted({*COMMANDS, *measures}), error=OptionError)
    return lambda words: run_measure(name, words)


def run_measure(name: str, words: list[str]) -> int:
    """Run one measure: table, reading, figure."""
    from isogon.cli import console
    from isogon.cli.parser import derived
    from isogon.survey.declaring.check import check_job
    from isogon.survey.declaring.job import Job
    from isogon.survey.running.certifying import verdict

    declaration = catalogue.declaration(name)
    options = derived(declaration, out=RUNS).parse(words)
    inputs = {i.name: getattr(options, i.name) for i in declaration.inputs}
    values = {o.name: getattr(options, o.name) for o in declaration.options}
    job = Job(
        declaration.name,
        {k: v for k, v in inputs.items() if v is not None},
        values,
        getattr(options, "seed", 0) or 0,
    )
    job, _ = check_job(job, declaration)  # mistakes are told before torch is imported
    with surroundings(options):
        from isogon.survey.running.run import Session, run, writable

        writable(Path(options.out))
        session = Session(device=options.device, batch_size=options.batch_size)
        record = run(job, out=options.out, session=session, again=options.again)
        assert record.directory is not None
        figure = figure_of(record)
        page = paged(record)
    console.print_table(record.reading.summary(), f"{declaration.command}: {declaration.summary}")
    seconds = record.provenance["seconds"]
    when = f"found, computed {record.provenance['started']}" if record.reused else "computed"
    console.say("")
    console.say(f"{when} in {seconds:.2f} s" + ("" if record.reading.complete else ", INCOMPLETE"))
    if told := verdict(record.reading):
        console.say(told)
    console.say(f"reading  {record.directory / 'reading'}")
    if figure is not None:
        console.say(f"figure   {figure}")
    if page is not None:
        console.say(f"page     {page}")
    return 0


def figure_of(record: Record) -> Path | None:
    """The figure of a record, drawn where it is not there yet; None where it can't be."""
    from isogon import storage
    from isogon.show.figure import draw

    assert record.directory is not None  # a command keeps its records
    path = record.directory / f"{record.job.measure}.png"
    if path.is_file() and record.reused:
        return path
    try:
        figure = draw(record.reading)
        with storage.atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=160)
    except Exception as error:  # a figure must not cost the run
        sys.stderr.write(f"isogon: note: no figure ({type(error).__name__}: {error})\n")
        return None
    return path


def paged(record: Record) -> Path | None:
    """The interactive page of a record, written where its measure has one and it is not there."""
    from isogon import registry

    if not registry.has("page", record.job.measure):
        return None
    assert record.directory is not None
    path = record.directory / f"{record.job.measure}.html"
    if path.is_file() and record.reused:
        return path
    try:
        return record.reading.to_html(path, title=record.job.measure.capitalize())
    except Exception as error:  # a page must not cost the run
        sys.stderr.write(f"isogon: note: no page ({type(error).__name__}: {error})\n")
        return None


@contextmanager
def surroundings(options: Namespace):
    """The global options, in force for what runs inside."""
    from isogon.cli import console

    root = getattr(options, "data_root", None)
    if root is not None and not Path(root).is_dir():
        raise FileError(
            "no such folder of data",
            got=root,
            expected="an existing folder",
            fix="Check --data-root.",
        )
    download = True if options.download else None
    examined = False if getattr(options, "no_check", False) else None
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)  # so that my.module:build() is found, behind everything else
    try:
        around = context.use(data_root=root, download=download, check=examined)
        with around, console.progress(options.quiet):
            yield
    finally:
        if added:
            sys.path.remove(here)


def _lazy(module: str, function: str) -> Callable[[list[str]], int]:
    def call(words: list[str]) -> int:
        return getattr(importlib.import_module(f"isogon.cli.{module}"), function)(words)

    return call


COMMANDS: dict[str, Command] = {
    "survey": Command(
        "Every measure that applies to a model, and one HTML report", _lazy("survey", "survey")
    ),
    "compare": Command(
        "Two networks: every measure that applies, and one HTML report",
        _lazy("compare", "compare"),
    ),
    "report": Command("Write the page of a survey or a sweep again", _lazy("survey", "report")),
    "train": Command("Train a network into one checkpoint file", _lazy("train", "train")),
    "evaluate": Command(
        "Accuracy, loss and L2 penalty of a model, nothing trained", _lazy("evaluate", "evaluate")
    ),
    "sweep": Command("Every job of a plan, here or on a cluster", _lazy("sweep", "sweep")),
    "status": Command("How far a sweep is, and what failed", _lazy("sweep", "status")),
    "list": Command(
        "What has a name: measures, archs, datasets, families, ...",
        _lazy("listing", "list_command"),
    ),
    "families": Command(
        "Families of transformations, or the members of one", _lazy("listing", "families")
    ),
    "show": Command("What a spec names, or what a folder of results holds", _lazy("show", "show")),
    "export": Command("A reading as JSON, CSV or Parquet", _lazy("show", "export")),
    "experiment": Command("Studies that combine steps, by name", _lazy("experiment", "experiment")),
}
