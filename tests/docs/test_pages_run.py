"""Code of pages that quote numbers is run, and gives them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["coming-from.md"]
NUMBER = re.compile(r"#\s*(-?\d+\.\d+)\s*$")


def blocks(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_code_gives_the_numbers_beside_it(page):
    space: dict = {"__name__": "page"}
    compared = 0
    for block in blocks(page):
        lines = block.splitlines()
        for node in ast.parse(block).body:
            code = ast.get_source_segment(block, node)
            said = NUMBER.search(lines[node.end_lineno - 1])
            if isinstance(node, ast.Expr):
                found = eval(code, space)
                if said:
                    assert found == pytest.approx(float(said[1]), abs=2e-4), code
                    compared += 1
            else:
                exec(compile(ast.Module([node], []), page, "exec"), space)
    assert compared > 40


def test_numbers_in_tables_of_peers_are_those_of_the_code():
    """Where a row of a table says the same number twice, the code says it, too."""
    text = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    said = {m[1] for line in text.splitlines() if (m := NUMBER.search(line))}
    rows = re.findall(r"\| (-?\d+\.\d{4}) \|$", text, re.M)
    assert len(rows) > 20
    assert set(rows) <= said
