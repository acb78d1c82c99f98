"""Every example of every help text runs as it stands, in an empty folder, on embedded data."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO

import pytest

from isogon.cli import commands, main
from isogon.survey.declaring import catalogue

MEASURES = [name.replace("_", "-") for name in catalogue.names("measure")]
EXPERIMENTS = [name.replace("_", "-") for name in catalogue.names("experiment")]
# Tested without being asked for: one of each sort, of a second or less; the others take minutes.
QUICK = {"data-matrix", "list", "families"}
HELPS = {
    "isogon": ["--help"],
    **{name: [name, "--help"] for name in (*commands.COMMANDS, *MEASURES)},
    **{f"experiment {name}": ["experiment", name, "--help"] for name in EXPERIMENTS},
}
WITHOUT = {"isogon", "report", "status", "experiment"}  # explained by the help of others


def said(words) -> str:
    text = StringIO()
    with redirect_stdout(text):
        assert main(words) == 0
    return text.getvalue()


def examples(text: str) -> list[list[str]]:
    """The commands of a help text; those that need a cluster stand under a heading that says so."""
    text = text.split("\non a cluster")[0].replace("\\\n", " ")
    return [shlex.split(x)[1:] for x in re.findall(r"^ +(isogon [a-z].*)$", text, re.M)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def here(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(cache))  # models are trained once for all of them
    monkeypatch.delenv("ISOGON_DATA", raising=False)
    return tmp_path


def case(name: str):
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.long)


@pytest.mark.parametrize("name", [case(name) for name in HELPS])
def test_examples_run_as_they_stand(name, here, capsys):
    text = said(HELPS[name])
    if plan := re.search(r"example plan:\n((?:  .*\n)+)", text):
        (here / "plan.yaml").write_text(re.sub(r"^  ", "", plan[1], flags=re.M))
    for words in examples(text):
        assert main(words) == 0, (words, capsys.readouterr().err)


@pytest.mark.parametrize("name", list(HELPS))
def test_there_is_an_example(name, monkeypatch):
    found = examples(said(HELPS[name]))
    assert found or name in WITHOUT
    if name in MEASURES or name in EXPERIMENTS:
        assert found[0][: len(name.split())] == name.split()
        assert "--out" not in found[0], "the first one is to be typed as it stands"
        assert "SPEC" not in found[0]
