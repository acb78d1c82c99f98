"""Which measurements can be shared out over jobs."""

from __future__ import annotations

from isogon.errors import IsogonError, OptionError
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job


class Missing(IsogonError):
    """Shares of which a pass is still to be run, before they can be merged."""


def check_splits(job: Job, declaration: Declaration, count: int) -> None:
    """Refuse to share out what can't be.

    Raises:
        OptionError: The measure reads its data in another way than by passes that merge, an option
            of it does, or the number is no number of jobs.
    """
    if count < 1:
        raise OptionError("no such number of shares", got=count, expected="1 or more")
    if count == 1:
        return
    if declaration.extra.get("shards") is not True:
        able = [
            n
            for n in catalogue.names("measure")
            if catalogue.declaration(n).extra.get("shards") is True
        ]
        raise OptionError(
            f"{declaration.name} can't be shared out over jobs",
            got=f"shards: {count}",
            expected=f"one of: {', '.join(able)}",
            fix="Give shards: in the entries of those measures instead.",
        )
    for name in declaration.extra.get("whole", ()):
        if job.options.get(name):
            raise OptionError(
                f"{declaration.name} can't be shared out over jobs with {name}",
                got=f"shards: {count}, {name}: {job.options[name]}",
                expected=f"shards or {name}",
                fix="Measure that in an entry of its own.",
            )
