"""What publications found is found again by the plans, at the scale of a laptop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isogon.cli import main
from isogon.survey.declaring import plan

sys.path.insert(0, str(Path(__file__).parent))
from findings import FINDINGS, OTHERWISE, numbers

PLANS = Path(__file__).parents[2] / "plans"


def test_every_plan_is_read_at_every_scale():
    paths = [p for p in PLANS.rglob("*.yaml") if p.parent.name not in ("training", "invariance")]
    assert {f"{p.parent.name}/{p.stem}" for p in paths} >= {
        name for name in FINDINGS if not name.startswith("invariance")
    }
    for path in paths:
        for scale in ("laptop", "paper"):
            assert plan.read_plan(path, scale=scale).jobs
        assert f"plans/{path.parent.name}/{path.name}" in path.read_text()


@pytest.mark.long
@pytest.mark.parametrize("name", FINDINGS)
def test_finding(name, tmp_path, request):
    words = ["sweep", str(PLANS / f"{name}.yaml"), "--out", str(tmp_path), "--quiet"]
    if FINDINGS[name][1]:
        words += ["--data-root", str(request.getfixturevalue("shared") / "data")]
    assert main(words) == 0
    found = numbers(name, tmp_path)
    if name in OTHERWISE and not found["holds"]:
        pytest.xfail(f"{OTHERWISE[name]}: {found}")
    assert found["holds"], found
