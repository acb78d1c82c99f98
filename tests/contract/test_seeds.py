"""Sweeps over seeds: one section, one figure and one table for each measure of the registry."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_measures import MEASURES, job_of

from isogon.measures.orbits.compare import compare
from isogon.readings import Grid, SampleTable, SiteTable
from isogon.show.runs import mean_and_sd
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.job import Job
from isogon.survey.pages.figures import factors, seeds, study
from isogon.survey.running.record import Record
from isogon.survey.running.run import Session, run

SEEDS = (0, 1, 2)
_session = Session()


def of_seed(job: Job, seed: int) -> Job:
    """The same job of models that were drawn with another seed."""
    inputs = {name: parse(spec) for name, spec in job.inputs.items()}
    for name, spec in inputs.items():
        if spec.name in catalogue.names("arch"):
            apart = 10 * int(spec.kwargs.get("seed", 0))  # the second of two models
            inputs[name] = replace(spec, kwargs={**spec.kwargs, "seed": apart + seed})
    return replace(job, inputs={name: str(spec) for name, spec in inputs.items()})


@cache
def records_of_seeds(name: str) -> dict[str, Record]:
    """The runs of a measure that differ in seeds alone, by the names of their jobs."""
    jobs = {f"{name}-{seed}": of_seed(job_of(name), seed) for seed in SEEDS}
    return {id: run(job, session=_session) for id, job in jobs.items()}


@pytest.mark.parametrize("name", MEASURES)
def test_seeds_of_a_measure_are_one_section(name):
    records = records_of_seeds(name)
    readings = [r.reading for r in records.values()]
    jobs = {id: r.job for id, r in records.items()}
    assert not any(factors(jobs, {}).values()), "seeds are no factor"
    (drawn,) = study(records)
    assert drawn.title == name.replace("_", " ").capitalize()
    held = [frame for frame in drawn.tables.values() if len(frame)]
    assert len(held) == 1
    (table,) = held
    drawn.figure.canvas.draw()
    assert any(ax.has_data() or ax.images for ax in drawn.figure.axes)
    said = ("runs", "models", "elements", "count")  # elements: one is drawn per seed here
    counts = [c for c in table if str(c).split()[-1] in said]
    assert counts
    assert (table[counts] == len(SEEDS)).all(axis=None)
    where = table.iloc[0]
    if type(readings[0]) is SampleTable and where.get("at") == "all samples":
        values = [_finite(r.table[where["statistic"]]) for r in readings]
    elif isinstance(readings[0], Grid):
        array = where["statistic"] if "statistic" in table else "similarity"
        values = [float(r.arrays[array].flat[0]) for r in readings]
    elif isinstance(readings[0], SiteTable) and "statistic" in table:
        own = [r.table[r.table["site"] == where.get("at", where.get("site"))] for r in readings]
        values = [_finite(t[where["statistic"]]) for t in own]
    else:
        values = None
    found = compare(readings, ["x", "x", "y"], over="models")
    assert len(found.table)
    assert "tukey_p" in found.table
    if values is None:
        return
    assert float(where["mean"]) == pytest.approx(float(np.mean(values)), rel=1e-9, nan_ok=True)


def _finite(column) -> float:
    values = column.to_numpy(float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def test_seeds_are_told_apart_where_readings_are_shown_one_by_one():
    plain = job_of("data_matrix")
    jobs = {str(k): of_seed(plain, k) for k in SEEDS}
    assert seeds(jobs) == {"0": "0", "1": "1", "2": "2"}
    records = {id: run(job, session=_session) for id, job in jobs.items()}
    titles = [d.title for d in study(records, [{"draw": {}}])]
    assert titles == [f"Data matrix: seed {k}" for k in SEEDS]
    (one,) = study(records, [{"where": {"seed": 1}}])  # one reading: its own, richer figure
    assert list(one.tables) == ["In numbers"]
    (named,) = study(records, [{"curves": "seed"}])
    assert list(dict.fromkeys(named.tables["Mean over runs"]["name"])) == [
        f"seed {k}" for k in SEEDS
    ]


def test_seeds_that_go_together_are_named_once():
    two = {
        "a": Job("similarity", {"a": "cnn(seed=0)", "b": "cnn(seed=5)", "batches": "digits"}),
        "b": Job("similarity", {"a": "cnn(seed=1)", "b": "cnn(seed=6)", "batches": "digits"}),
    }
    assert seeds(two) == {"a": "0/5", "b": "1/6"}
    same = {
        k: Job("data_matrix", {"model": f"trained(cnn, digits, seed={k})"}, {}, int(k))
        for k in "01"
    }
    assert seeds(same) == {"0": "0", "1": "1"}


def test_spread_is_that_of_a_sample_over_finite_runs():
    runs = np.array([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]])
    mean, sd = mean_and_sd(runs)
    np.testing.assert_allclose(mean, [2.0, 2.0, np.nan])
    np.testing.assert_allclose(sd, [np.sqrt(2), np.nan, np.nan])
