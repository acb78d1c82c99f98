"""Surveys, sweeps and reports: jobs become records, records become one page.

`run` turns a `Job` (strings only) into a `Record` (a reading with its provenance) and is the
only place where specs become objects. `survey` runs every measure that a model and its data
can supply, `report` renders the result as one self-contained HTML file.
"""

from __future__ import annotations

from isogon import lazy

_API = {
    "Job": "isogon.survey.declaring.job",
    "Record": "isogon.survey.running.record",
    "Session": "isogon.survey.running.run",
    "run": "isogon.survey.running.run",
    "survey": "isogon.survey.whole.survey",
}

__getattr__ = lazy.lazy_names(__name__, _API)
