"""The survey: every measure that a model and its data can supply, within a time budget."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from isogon import context
from isogon.errors import FileError, IsogonError, NoSuchSite, OptionError, SpecError
from isogon.nets.origin import check_classes
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import check_job, given
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job
from isogon.survey.running.certifying import verdict
from isogon.survey.running.run import Session, find_record, run, versions, writable
from isogon.survey.whole.defaults import NotSupplied, Subject, options, supply
from isogon.survey.whole.kept import FILE, Line, Survey, read_survey
from isogon.survey.whole.meeting import Company
from isogon.survey.whole.objects import handed_over, session_of
from isogon.survey.whole.subject import facts

if TYPE_CHECKING:
    from torch.nn import Module

    from isogon.data.batches import DataLike

LOOK = 3.0  # seconds that an interrupted survey looks for what was computed before
__all__ = ["FILE", "Line", "Survey", "read_survey", "survey"]

INTERRUPTED = "interrupted; run again to go on"
GRACE = 5.0  # seconds that a measure which does not report progress may run over the budget

_WRONG = (SpecError, OptionError, FileError)  # errors of a survey, not of what is surveyed


class OutOfTime(BaseException):
    """Raised inside a measure when the budget is spent: no `except Exception` on the way keeps it.

    (Tracing, say, would report it as a model that can't be traced, and remember that.)
    """


def survey(
    model: str | Module,
    batches: DataLike,
    *,
    budget: float = 120.0,
    out: str | Path,
    session: Session | None = None,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    again: bool = False,
    seed: int = 0,
    command: str = "",
    surroundings: dict[str, Any] | None = None,
    notify: Callable[[Line], None] | None = None,
) -> Survey:
    """Run every registered measure whose inputs a model and its data can supply.

    Cheap measures run first. A measure that is stopped by the budget, does not apply or fails
    is listed with the reason; run again, the survey computes only what is missing.

    Args:
        model: Spec of a model, or a module, which leaves as it came in.
        batches: Spec of labelled data, or a re-iterable of (x, y).
        budget: Seconds for the measures (building or training the model comes before).
        out: Folder of the survey.
        session: Device and shared objects.
        only: Names of the measures to run; all of them where it is empty.
        skip: Names of measures to leave out.
        again: Compute what is there already.
        seed: Of everything that is drawn at random.
        command: The command line, for the report.
        surroundings: Global options that belong into the commands that the report shows.
        notify: Called with each finished line.

    Returns:
        The survey, also saved in ``out``.

    Raises:
        IsogonError: The model or the data can't be built, ``out`` can't be written, or a name
            in ``only`` or ``skip`` is unknown.
    """
    directory = Path(out)
    if not budget > 0:
        raise OptionError("no time to survey in", got=budget, expected="--budget above 0 seconds")
    chosen = declarations(only, skip)
    writable(directory)
    session = session or session_of(model)
    with handed_over(model=model, batches=batches) as specs:
        found, subject = _begun(specs, budget, session, seed, command, directory)
        made = partial(_job, subject=subject, seed=seed)
        company = Company(chosen, made, directory / "records", session, again)
        tasks = [Task(d, partial(made, d), company) for d in chosen]
        return carried_out(found, tasks, session, again, surroundings, notify)


def _begun(
    specs: dict[str, str], budget: float, session: Session, seed: int, command: str, directory: Path
) -> tuple[Survey, Subject]:
    """A survey before its first measure, and its subject."""
    model, batches = specs["model"], specs["batches"]
    data = session.get("Batches", batches, seed=seed)
    module = session.get("Module", model, like=data, seed=seed)
    check_classes(module, data)
    subject = Subject(model, batches, module, data)
    found = Survey(
        model,
        batches,
        facts(subject),
        budget=budget,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        command=command,
        directory=directory,
    )
    return found, subject


@dataclass(frozen=True)
class Task:
    """One line of a survey before it is run.

    Attributes:
        declaration: Of the measure.
        made: Makes its job; raises `NotSupplied` where there is nothing for an input.
        company: Those whose first pass it may join.
        side: Of a comparison.
    """

    declaration: Declaration
    made: Callable[[], Job]
    company: Company | None = None
    side: str = ""


def carried_out(
    found: Survey,
    tasks: Sequence[Task],
    session: Session,
    again: bool,
    surroundings: dict[str, Any] | None,
    notify: Callable[[Line], None] | None,
) -> Survey:
    """Run the tasks one after another within the survey's budget; keep and return the survey."""
    assert found.directory is not None
    clock = time.monotonic()
    report = context.progress()
    try:
        for i, task in enumerate(tasks):
            report(i, len(tasks), "survey")
            left = found.budget - (time.monotonic() - clock)
            line = _one(task, found.directory, session, left, again, surroundings)
            found.lines.append(line)
            if notify is not None:
                notify(line)
        report(len(tasks), len(tasks), "survey")
    except KeyboardInterrupt:
        found.interrupted = True
        done = len(found.lines)
        rest = tasks[done:]
        found.lines += [Line(t.declaration.name, "skipped", INTERRUPTED, side=t.side) for t in rest]
        with suppress(KeyboardInterrupt, OutOfTime), deadline(LOOK):
            for k, task in enumerate(rest, done):  # what is there from before stays
                alone = replace(task, company=None)
                line = _one(alone, found.directory, session, 0, False, surroundings)
                found.lines[k] = line if line.record else found.lines[k]
    found.seconds = time.monotonic() - clock
    found.save()
    return found


def declarations(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[Declaration]:
    """The measures of a survey, cheap ones first.

    Raises:
        SpecError: A name that is no measure.
    """
    only, skip = (tuple(catalogue.declaration(n).name for n in names) for names in (only, skip))
    found = []
    for name in catalogue.names("measure"):
        if name in skip or (only and name not in only):
            continue
        declaration = catalogue.declaration(name)
        if declaration.extra.get("survey", True) is not False or name in only:
            found.append(declaration)
    return sorted(found, key=lambda d: (d.extra.get("cost", 5.0), d.name))


def _job(declaration: Declaration, subject: Subject, seed: int) -> Job:
    """What a survey asks of a measure."""
    chosen = options(declaration)
    if declaration.option("seed"):
        chosen.setdefault("seed", seed)
    return check_job(
        Job(declaration.name, supply(declaration, subject), chosen, seed), declaration
    )[0]


def _one(
    task: Task,
    directory: Path,
    session: Session,
    left: float,
    again: bool,
    surroundings: dict[str, Any] | None,
) -> Line:
    declaration, company = task.declaration, task.company
    name = declaration.name
    line = Line(name, "skipped", side=task.side)
    clock = time.monotonic()
    try:
        job = task.made()
        short = Job(name, job.inputs, given(job, declaration), job.seed)
        line.command = short.command(globals_=surroundings)
        out = directory / "records"
        record = None if again else find_record(job, out=out, session=session)
        if record is None and left <= 0:
            raise OutOfTime
        if record is None:
            end = time.monotonic() + left
            with deadline(left):
                meeting = company.of(declaration) if company is not None else None
                record = run(job, out=out, session=session, again=again, until=end, meeting=meeting)
        assert record.directory is not None
        line.status = "reused" if record.reused else "done"
        line.record = record.directory.relative_to(directory).as_posix()
        line.seconds = record.provenance["seconds"]
        line.verdict = verdict(record.reading)
        return line
    except (NotSupplied, IsogonError) as error:
        # what was asked for wrongly (by us: a survey makes up the inputs) is no "does not apply"
        wrong = isinstance(error, _WRONG) and not isinstance(error, NoSuchSite)
        line.status, line.reason = "failed" if wrong else "skipped", str(error)
    except OutOfTime:
        if left > 0:
            session.forget()  # the model may have been in the middle of something
        line.reason = (
            f"stopped after {time.monotonic() - clock:.0f} s, the budget is spent"
            if left > 0
            else "not started, the budget is spent"
        )
    except Exception as error:  # one broken measure must not take the others with it
        line.status, line.reason = "failed", f"{type(error).__name__}: {error}"
        line.detail = traceback.format_exc(limit=-6)
        session.forget()
    return line


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` inside when the time is over.

    Measures are stopped where they report progress; one that reports none is interrupted by
    an alarm a little later (on the main thread of Unix only).
    """
    end = time.monotonic() + seconds
    outer = context.progress()

    def watch(done: int, total: int | None, what: str) -> None:
        outer(done, total, what)
        if time.monotonic() > end and (total is None or done < total):
            raise OutOfTime

    def alarm(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    previous = signal.signal(signal.SIGALRM, alarm) if main else None
    if main:
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    try:
        with context.use(progress=watch):
            yield
    finally:
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
