"""The figures of a sweep: which jobs become which curves, and the page that holds them."""

from __future__ import annotations

import re

import pytest

from isogon.cli import main
from isogon.errors import OptionError
from isogon.survey.declaring import plan
from isogon.survey.declaring.job import Job
from isogon.survey.pages import sweep_report
from isogon.survey.pages.figures import _grouped, differences, factors, study
from isogon.survey.running.record import load
from isogon.survey.running.sweep import Sweep

PLAN = """
title: Two widths
about: Does width matter?
scales:
  laptop: {samples: 16}
  paper: {samples: 64}
axes:
  seed: [0, 1]
model:
  narrow: trained(cnn(width=2), digits, epochs=0, seed={seed})
  wide: trained(cnn(width=3), digits, epochs=0, seed={seed})
batches: digits(test, {samples})
measures:
  - name: invariance
    family: [rotations(4), translations(1)]
figures:
  - panels: family
    title: Both families
  - where: {family: rotations(4), model: wide}
    draw: {column: sample_variance}
    title: One of them
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep that ran to its end on the command line."""
    here = tmp_path_factory.mktemp("sweep")
    (here / "plan.yaml").write_text(PLAN)
    words = ["sweep", str(here / "plan.yaml"), "--out", str(here / "out"), "--quiet"]
    patch = pytest.MonkeyPatch()
    patch.setenv("ISOGON_CACHE", str(here / "cache"))
    assert main(words) == 0
    yield here / "out"
    patch.undo()


def test_differences_name_what_differs_and_leave_out_seeds():
    specs = [
        "trained(cnn(width=2), digits, epochs=5, seed=0)",
        "trained(cnn(width=2), digits, epochs=5, seed=1)",
        "trained(cnn(width=2, batch_norm=true), digits(train, 100), seed=1)",
        "trained(mlp, digits, epochs=5, family='rotations(4)')",
    ]
    assert list(differences(specs).values()) == [
        "cnn, width 2, epochs 5",
        "cnn, width 2, epochs 5",
        "cnn, width 2, batch norm, train, 100",
        "mlp, epochs 5, family rotations(4)",
    ]
    assert differences(specs[:2])[specs[0]] == "plain"


def test_factors_are_what_varies():
    jobs = {
        str(i): Job("invariance", {"model": m, "batches": b}, {"by_class": c, "sites": "relu"})
        for i, (m, b, c) in enumerate(
            [("cnn", "digits(test, 8, seed=0)", True), ("mlp", "digits(test, 8, seed=1)", False)]
        )
    }
    assert factors(jobs, {"0": {"model": "one"}}) == {
        "0": {"model": "one", "by_class": "true"},
        "1": {"model": "mlp", "by_class": "false"},
    }


def test_a_number_is_named_by_what_it_is_of():
    facts = {"a": {"along": "leaf", "noise_steps": "0"}, "b": {"along": "leaf", "seed": "1"}}
    assert list(_grouped(["a"], facts, ["along", "noise_steps"])) == ["leaf, noise steps 0"]
    assert list(_grouped(["b"], facts, ["along", "seed"])) == ["leaf, seed 1"]
    values = ["1e-3", "-2", "true", "3 x 3", "rotations(4)"]
    named = [next(iter(_grouped(["a"], {"a": {"x": v}}, ["x"]))) for v in values]
    assert named == ["x 1e-3", "x -2", "x true", "3 x 3", "rotations(4)"]


def test_scales_and_names_of_a_plan():
    import yaml

    data = yaml.safe_load(PLAN)
    laptop, paper = plan.expand(data), plan.expand(data, scale="paper")
    assert {j.inputs["batches"] for j in laptop.jobs} == {"digits(test, 16)"}
    assert {j.inputs["batches"] for j in paper.jobs} == {"digits(test, 64)"}
    assert [n["model"] for n in laptop.names.values()] == ["narrow"] * 2 + ["wide"] * 2 + (
        ["narrow"] * 2 + ["wide"] * 2
    )
    with pytest.raises(OptionError, match=r"no scale of the plan|scale of the plan"):
        plan.expand(data, scale="papr")
    with pytest.raises(OptionError, match="key of a figure"):
        plan.expand({**data, "figures": [{"panel": "family"}]})


def test_the_sweep_ends_in_its_figures_and_a_page(folder):
    assert sorted(p.name for p in (folder / "figures").iterdir()) == [
        "figure-1.png", "figure-2.png", "figure-3.png",
    ]  # fmt: skip
    text = (folder / "report.html").read_text()
    for said in ("Two widths", "Does width matter?", "Both families", "One of them", "Tukey"):
        assert said in text or said == "Tukey"
    assert text.count("<figure>") == 3
    assert not re.findall(r'(?:src|href)="https?://', re.sub(r'<a href="http[^>]*>', "", text))


def test_figures_pool_seeds_and_split_families(folder):
    sweep = Sweep.read(folder)
    records = sweep_report._records(sweep, sweep.states())
    both, *single = study(records, sweep.figures, sweep.names)
    assert [ax.get_title(loc="left") for ax in both.figure.axes] == [
        "rotations(4)", "translations(1)",
    ]  # fmt: skip
    assert [t.get_text() for t in both.figure.legends[0].get_texts()] == ["narrow", "wide"]
    means = both.tables["Means per site"]
    assert set(means["models"]) == {2}
    assert len(means) == 2 * 2 * 3
    tests = both.tables["Tests"]
    assert set(tests["over"]) == {"models"}
    assert len(single) == 2, "seeds are no factor, so both networks are drawn"
    with pytest.raises(OptionError, match="family"):
        list(study(records, [{"panels": "famly"}], sweep.names))
    with pytest.raises(OptionError, match="value of family"):
        list(study(records, [{"where": {"family": "rotations(5)"}}], sweep.names))


def test_the_report_is_written_again_and_a_wrong_figure_costs_no_numbers(folder, capsys):
    sweep = Sweep.read(folder)
    sweep.figures = [{"panels": "famly"}]
    sweep_report.write(sweep)
    assert "could not be drawn" in (folder / "report.html").read_text()
    assert main(["report", str(folder)]) == 0
    assert "figure-3.png" in capsys.readouterr().out
    assert "could not be drawn" not in (folder / "report.html").read_text()
    assert main(["show", str(folder)]) == 0
    assert "8 records" in capsys.readouterr().out


def test_other_figures_of_a_record_by_the_command_line(folder, tmp_path, capsys):
    record = next((folder / "records").iterdir())
    graph = tmp_path / "graph.svg"
    job = load(record).job.inputs
    typed = ["--model", job["model"], "--batches", job["batches"]]
    assert main(["show", str(record), "--draw", "graph", *typed, "--out", str(graph)]) == 0
    assert "relu" in graph.read_text()
    scatter = "scatter=[normalized_variance, sample_variance]"
    assert main(["show", str(record), "--draw", scatter]) == 0
    assert list(record.glob("invariance-scatter*.png"))
    capsys.readouterr()
    assert main(["show", str(record), "--draw", "scater=x"]) == 2
    assert "scatter" in capsys.readouterr().err
    assert main(["show", str(record), "--out", "x.doc"]) == 2
