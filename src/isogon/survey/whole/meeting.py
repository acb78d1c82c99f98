"""Measures of a survey that read the same data in the same way, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from isogon.errors import IsogonError
from isogon.nets.meeting import Meeting
from isogon.nets.passes import all_passes
from isogon.survey.declaring.check import check_job
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job
from isogon.survey.running.run import Session, call_measure, find_record
from isogon.survey.whole.defaults import NotSupplied


def meet(jobs: Sequence[Job], session: Session) -> Meeting:
    """Run the first passes of measures together, as far as they are alike.

    Raises:
        IsogonError: A job can't be done; the pass failed. Each alone will say what is wrong.
    """
    meeting = Meeting()
    for job in jobs:
        checked, declaration = check_job(job)
        objects, _ = session.inputs(checked, declaration)
        meeting.ask(job.measure, partial(call_measure, checked, objects))
    meeting.run(all_passes)
    return meeting


class Company:
    """Who may join whom, and the one meeting of them, when the first of them is run.

    Args:
        declarations: The measures of the survey.
        made: Makes the job of a measure.
        out: Folder of the records: what is there already is not asked again.
        session: Objects that the measures share.
        again: Whether what is there is computed again.
    """

    def __init__(
        self,
        declarations: Iterable[Declaration],
        made: Callable[[Declaration], Job],
        out: Path,
        session: Session,
        again: bool,
    ) -> None:
        self.joining = [d for d in declarations if d.extra.get("joins") is True]
        self.made, self.out, self.session, self.again = made, out, session, again
        self.meeting: Meeting | None = None

    def of(self, declaration: Declaration) -> Meeting | None:
        """The meeting that a measure takes part in; None for those that are always alone."""
        if declaration not in self.joining:
            return None
        if self.meeting is None:
            try:
                jobs = list(self._missing())
                self.meeting = meet(jobs, self.session) if len(jobs) > 1 else Meeting()
            except Exception:  # each alone will say what is wrong
                self.session.forget()
                self.meeting = Meeting()
        return self.meeting

    def _missing(self) -> Iterable[Job]:
        for declaration in self.joining:
            try:
                job = self.made(declaration)
                there = not self.again and find_record(job, out=self.out, session=self.session)
            except (IsogonError, NotSupplied):
                continue
            if not there:
                yield job
