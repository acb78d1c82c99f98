"""Names as they are typed, in groups; records by the name of their measure; what to do next."""

from __future__ import annotations

import os
import re

import pytest

import isogon as ig
from isogon.cli import listing, main
from isogon.cli.console import counted
from isogon.survey.declaring import catalogue
from isogon.survey.running import record

DATA = "two_moons(test, 8)"
PLAN = "model: mlp(4)\nbatches: two_moons(test, 8)\nmeasures: [{name: data-matrix}]\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    return tmp_path


def said(capsys, *words: str) -> str:
    assert main([*words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", ["measure", "experiment"])
def test_what_is_a_command_is_listed_as_it_is_typed(kind, capsys):
    text = said(capsys, "list", f"{kind}s")
    for name in catalogue.names(kind):
        assert re.search(rf"^{name.replace('_', '-')}\b", text, re.M)
        if "_" in name:
            assert name not in text


def test_every_name_is_in_one_group(capsys):
    for kind in catalogue.LISTED:
        rows = [name for rows in listing.grouped(kind).values() for name, _ in rows]
        if kind != "arch":  # those of torchvision share a line
            assert len(rows) == len(set(rows)) == len(catalogue.names(kind))
    assert {k for kinds in listing.KINDS.values() for k in kinds} == set(catalogue.LISTED)
    assert list(listing.grouped("arch")) == ["isogon's own", listing.TORCHVISION]
    assert listing.OTHERS not in listing.grouped("measure")


@pytest.mark.parametrize("name", ["leaf-walk", "leaf_walk"])
def test_both_forms_are_taken_where_a_name_is_typed(name, capsys):
    said(capsys, "experiment", name, "--help")
    said(capsys, "show", name)


@pytest.mark.parametrize("name", ["local-complexity", "local_complexity"])
def test_both_forms_of_a_measure(name, capsys):
    assert "--radius" in said(capsys, name, "--help")


def test_one_is_not_many():
    assert [counted(n, "job") for n in (0, 1, 1200)] == ["0 jobs", "1 job", "1,200 jobs"]


def test_a_record_is_found_by_its_measure_and_read_from_its_folder(here, capsys):
    command = ("data-matrix", "--model", "mlp(4)", "--batches")
    said(capsys, *command, DATA)
    first = record.newest(here / "runs" / "data-matrix")
    os.utime(first / record.FILE, (1, 1))
    said(capsys, *command, "two_moons(test, 5)")
    newest = record.newest(here / "runs" / "data_matrix")
    assert newest != first
    for place in (newest, newest / "reading", newest / record.FILE, newest / "reading.json"):
        if place.name != "reading.json":
            assert len(ig.read(place).table) == 5
    assert "5 samples" in said(capsys, "show", "runs/data-matrix")
    said(capsys, "export", "runs/data-matrix", "--out", "table.csv")
    assert len((here / "table.csv").read_text().splitlines()) == 6
    assert main(["show", "runs/segments"]) != 0  # no such record: as any word that names nothing


def test_a_measure_whose_name_begins_another_is_not_taken_for_it(here):
    for name in ("walk-0123456789ab", "walk_far-0123456789ab"):
        (here / name).mkdir()
        (here / name / record.FILE).write_text("{}")
    assert record.newest(here / "walk").name == "walk-0123456789ab"
    assert record.newest(here / "walk-far").name == "walk_far-0123456789ab"


def test_status_says_what_to_do_next(here, capsys):
    (here / "plan.yaml").write_text(PLAN)
    said(capsys, "sweep", "plan.yaml", "--out", "s", "-q")
    assert said(capsys, "status", "s").splitlines()[-1] == "next     open s/report.html"
    (here / "s" / "report.html").unlink()
    assert said(capsys, "status", "s").splitlines()[-1] == "next     isogon report s"
    (state,) = (here / "s" / "state").glob("*.json")
    text = state.read_text()
    state.write_text(text.replace('"done"', '"failed"'))
    assert main(["status", "s"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next     isogon sweep plan.yaml --out s --retry"
