"""The comparison: every measure of two networks, and each measure of one of both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.errors import OptionError
from isogon.nets.origin import check_classes
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import check_job
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job
from isogon.survey.running.run import Session, versions, writable
from isogon.survey.whole.agreement import agreement
from isogon.survey.whole.defaults import Subject, options, supply
from isogon.survey.whole.kept import Line, Survey
from isogon.survey.whole.meeting import Company
from isogon.survey.whole.objects import handed_over, session_of
from isogon.survey.whole.subject import facts
from isogon.survey.whole.survey import Task, carried_out, declarations

if TYPE_CHECKING:
    from torch.nn import Module

    from isogon.data.batches import DataLike

SIDES = ("a", "b")


def compare(
    a: str | Module,
    b: str | Module,
    batches: DataLike,
    *,
    train: DataLike | None = None,
    budget: float = 120.0,
    out: str | Path,
    names: tuple[str, ...] = (),
    session: Session | None = None,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    again: bool = False,
    seed: int = 0,
    command: str = "",
    surroundings: dict[str, Any] | None = None,
    notify: Callable[[Line], None] | None = None,
) -> Survey:
    """Every measure of two networks, and each measure of one network of both, on the same data.

    What one of them can't be measured by is listed with the reason; run again, only what is
    missing is computed.

    Args:
        a: Spec of a model, or a module.
        b: Of the other one.
        batches: Spec of labelled data, or a re-iterable of (x, y).
        train: Data that stitches are fitted on; None: the data's own training split, if it has one.
        budget: Seconds for the measures (building or training the models comes before).
        out: Folder of the comparison.
        names: What the two are called in the report; what their specs differ in, by default.
        session: Device and shared objects.
        only: Names of the measures to run; all of them where it is empty.
        skip: Names of measures to leave out.
        again: Compute what is there already.
        seed: Of everything that is drawn at random.
        command: The command line, for the report.
        surroundings: Global options that belong into the commands that the report shows.
        notify: Called with each finished line.

    Returns:
        The comparison, also saved in ``out``.

    Raises:
        IsogonError: A model or the data can't be built, ``out`` can't be written, or a name in
            ``only`` or ``skip`` is unknown.
    """
    directory = Path(out)
    if not budget > 0:
        raise OptionError("no time to compare in", got=budget, expected="--budget above 0 seconds")
    if names and len(names) != 2:
        raise OptionError("names of two networks", got=list(names), expected="two names")
    chosen, both = _chosen(only, skip)
    writable(directory)
    session = session or session_of(a, b)
    with handed_over(a=a, b=b, batches=batches, train=train) as specs:
        data = session.get("Batches", specs["batches"], seed=seed)
        subjects = {}
        for side in SIDES:
            module = session.get("Module", specs[side], like=data, seed=seed)
            check_classes(module, data)
            given_train = specs.get("train")
            subjects[side] = Subject(specs[side], specs["batches"], module, data, given_train)
        found = Survey(
            specs["a"],
            specs["batches"],
            facts(subjects["a"]),
            budget=budget,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            command=command,
            directory=directory,
            other=specs["b"],
            names=dict(zip(SIDES, names)),
            other_facts=facts(subjects["b"]),
            agreement=agreement(subjects["a"].module, subjects["b"].module, subjects["a"].data),
        )
        tasks = []
        companies = {
            side: Company(
                chosen,
                partial(_job, side=side, subjects=subjects, seed=seed),
                directory / "records",
                session,
                again,
            )
            for side in SIDES
        }
        # what is about the two comes first: where time is short it must not be what is left out
        order = sorted(
            [*both, *chosen], key=lambda d: (d not in both, d.extra.get("cost", 5.0), d.name)
        )
        for d in order:
            if d in both:
                tasks.append(Task(d, partial(_pair, d, subjects, seed)))
            else:
                for side in SIDES:
                    made = partial(_job, d, side, subjects, seed)
                    tasks.append(Task(d, made, companies[side], side))
        return carried_out(found, tasks, session, again, surroundings, notify)


def _chosen(
    only: tuple[str, ...], skip: tuple[str, ...]
) -> tuple[list[Declaration], list[Declaration]]:
    """The measures of one network, and those of two, whether a survey runs them or not."""
    pairs = [
        d
        for name in catalogue.names("measure")
        if len(catalogue.models(d := catalogue.declaration(name))) == 2
    ]
    # a name that is no measure is refused in the one place that knows them all
    known = declarations(only, skip)
    left_out = {catalogue.declaration(n).name for n in skip}
    wanted = {catalogue.declaration(n).name for n in only}
    two = [d for d in pairs if d.name not in left_out and (not only or d.name in wanted)]
    names = {d.name for d in pairs}
    return [d for d in known if d.name not in names], two


def _job(declaration: Declaration, side: str, subjects: dict[str, Subject], seed: int) -> Job:
    """A measure of one network; all that does not depend on the network is the first one's."""
    own = supply(declaration, subjects[side])
    shared = supply(declaration, subjects["a"]) if side != "a" else own
    nouns = {i.name: catalogue.noun(i.noun) for i in declaration.inputs}
    nouns_of = {i.name: i.noun for i in declaration.inputs}
    inputs = {}
    for name, spec in own.items():
        of_model = "model" in nouns[name].get("kinds", ()) or nouns_of[name] == "Snapshots"
        inputs[name] = spec if of_model else shared.get(name, spec)
    chosen = options(declaration)
    if declaration.option("seed"):
        chosen.setdefault("seed", seed)
    return check_job(Job(declaration.name, inputs, chosen, seed), declaration)[0]


def _pair(declaration: Declaration, subjects: dict[str, Subject], seed: int) -> Job:
    """A measure of two networks."""
    one, two = catalogue.models(declaration)
    inputs = supply(
        declaration, subjects["a"], {one: subjects["a"].model, two: subjects["b"].model}
    )
    chosen = options(declaration)
    if declaration.option("seed"):
        chosen.setdefault("seed", seed)
    return check_job(Job(declaration.name, inputs, chosen, seed), declaration)[0]
