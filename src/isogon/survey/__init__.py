"""Surveys, sweeps and reports: jobs become records, records become one page.

`run` turns a `Job` (strings only) into a `Record` (a reading with its provenance) and is the
only place where specs become objects. `survey` runs every measure that a model and its data
can supply, `report` renders the result as one self-contained HTML file. The package itself may be
called: ``isogon.survey(model, batches, out="survey")`` is `isogon.survey.calls.survey`.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from isogon import lazy

_API = {
    "Job": "isogon.survey.declaring.job",
    "Record": "isogon.survey.running.record",
    "Session": "isogon.survey.running.run",
    "run": "isogon.survey.running.run",
    "compare": "isogon.survey.calls",
}

__getattr__ = lazy.lazy_names(__name__, _API)


class _Package(ModuleType):
    """A package that is also the function of its name: importing one must not hide the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run every measure that a model and its data can supply; see `isogon.survey.calls`."""
        from isogon.survey.calls import survey

        return survey(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        from isogon.survey.calls import survey

        return inspect.signature(survey)

    @property
    def survey(self) -> ModuleType:
        """The package, which is what ``isogon.survey`` is."""
        return self


sys.modules[__name__].__class__ = _Package
