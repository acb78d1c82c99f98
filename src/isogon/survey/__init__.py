"""Surveys, sweeps and reports: jobs become records, records become one page.

`run` turns a `Job` (strings only) into a `Record` (a reading with its provenance) and is the
only place where specs become objects. `survey` runs every measure that a model and its data
can supply, `report` renders the result as one self-contained HTML file.
"""

from __future__ import annotations

import importlib
from typing import Any

_API = {
    "Job": "isogon.survey.record",
    "Record": "isogon.survey.record",
    "Session": "isogon.survey.run",
    "run": "isogon.survey.run",
    "survey": "isogon.survey.everything",
}


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'isogon.survey' has no attribute {name!r}")
