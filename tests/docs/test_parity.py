"""The parity page and the how-tos name only what exists."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import isogon
from isogon import registry
from isogon.show.invariance import draw_invariance
from isogon.show.partition import draw_partition
from isogon.survey.declaring import catalogue
from isogon.training.config import FitConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINES = ["S", "M", "T", "H", "Y"]
COUNTS = {"S": 8, "M": 4, "T": 6, "H": 4, "Y": 7}
ROWS = [
    [cell.strip() for cell in line.strip()[1:-1].split("|")]
    for line in (DOCS / "parity.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [SMTHY]\d", line)
]
COMMANDS = {
    "survey",
    "compare",
    "report",
    "train",
    "evaluate",
    "sweep",
    "status",
    "list",
    "show",
    "export",
    "experiment",
}


def names() -> set[str]:
    return {n for kind in registry.HOMES for n in registry.names(kind)}


def test_every_line_is_answered():
    found = [row[0] for row in ROWS]
    assert found == [f"{k}{i + 1}" for k in LINES for i in range(COUNTS[k])]
    for row in ROWS:
        assert len(row) == 5, row
        status = row[4].split(":")[0]
        assert status in ("done", "partly", "not yet"), row
        assert (status == "done") == (":" not in row[4]), row[0]
        assert (row[2] != "") or status == "not yet", row[0]


@pytest.mark.parametrize("row", ROWS, ids=[r[0] for r in ROWS])
def test_names_in_the_answers_exist(row):
    known = names()
    options = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(FitConfig)}
    commands = COMMANDS | {n.replace("_", "-") for n in catalogue.names("measure")}
    for span in re.findall(r"`([^`]+)`", row[2]):
        head = re.match(r"[\w.-]*", span)[0]
        if span.startswith("ig."):
            attribute = head.split(".")[1]
            assert hasattr(isogon, attribute), span
        elif span.startswith("isogon "):
            assert span.split()[1] in commands, span
        elif span.startswith("--"):
            assert span.split()[0] in options | {"--on"}, span
        elif span.startswith("."):
            kinds = [registry.get("reading", "Partition").build, isogon.Slice]
            assert any(hasattr(k, head.strip(".")) for k in kinds), span
        elif span.startswith("isogon."):
            __import__(span)
        elif row[2] and head and span not in ("Family",):
            parameters = {
                p
                for m in ("walk", "invariance", "stitch", "rotate", "orientation")
                for p in signature(m)
            }
            for figure in (draw_invariance, draw_partition):
                parameters |= set(inspect.signature(figure).parameters)
            assert head in known | parameters, span


def signature(measure: str) -> set[str]:
    return set(inspect.signature(registry.get("measure", measure).build).parameters)


def test_documents_never_name_what_is_not_there():
    """Commands in console blocks start with a command that exists."""
    commands = COMMANDS | {n.replace("_", "-") for n in catalogue.names("measure")}
    for page in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"), DOCS.parent / "README.md"]:
        for command in re.findall(r"^\$ isogon (\S+)", page.read_text(encoding="utf-8"), re.M):
            known = command in commands or command.startswith("--")
            known = known or command in ("margin", "agreement")  # of examples/extending
            assert known, f"{page.name}: isogon {command}"
