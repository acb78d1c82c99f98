"""Every block of code of the documentation runs as it stands, and gives the numbers beside it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, PAGES, REASONS, RUN, blocks
from PIL import Image

from isogon.cli import main

NUMBER = re.compile(r"#\s*(-?\d+\.\d+)\s*$")
QUOTED = "docs/coming-from.md"  # the page whose numbers are compared
# Tested without being asked for: pages of a second or two; the others are long.
QUICK = {QUOTED}


def photographs(folder: Path) -> None:
    """Twelve images of two classes, as a reader would have them."""
    rng = np.random.default_rng(0)
    for k in range(12):
        wave = np.sin(np.linspace(0, 3 + k % 3, 48))[:, None] * np.ones(48)
        pixels = (wave if k % 2 else wave.T)[..., None] + rng.normal(0, 0.2, (48, 48, 3))
        path = folder / "photos" / ("stripes" if k % 2 else "bars") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(np.clip(pixels * 127 + 128, 0, 255))).save(path)


# What a page finds in its folder: things of the reader's own.
FILES: dict[str, Callable[[Path], None]] = {
    "docs/guide/my-data.md": photographs,
    "docs/guide/my-images.md": photographs,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def here(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(cache))  # models are trained once for all pages
    monkeypatch.delenv("ISOGON_DATA", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:  # modules of the page
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def case(page: str):
    return pytest.param(page, marks=() if page in QUICK else pytest.mark.long)


@pytest.mark.parametrize(
    "page", [case(p) for p in PAGES if any(b.language in RUN for b in blocks(p))]
)
def test_code_runs_and_gives_the_numbers_beside_it(page, here, capsys):
    if page in FILES:
        FILES[page](here)
    space: dict = {"__name__": "page"}
    compared = 0
    for block in blocks(page):
        if not block.runs or block.language not in RUN:
            continue
        if block.file:
            path = here / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            compared += executed(block.text, space, f"{page}:{block.line}")
        elif block.language == "console":
            for words in block.commands():
                assert words[0] == "isogon", (page, block.line, words)
                assert main(words[1:]) == 0, (page, block.line, words, capsys.readouterr().err)
    assert page != QUOTED or compared > 40


def executed(text: str, space: dict, where: str) -> int:
    """Run a block, statement by statement; how many numbers beside it were compared."""
    compared = 0
    lines = text.splitlines()
    for node in ast.parse(text).body:
        code = ast.get_source_segment(text, node)
        said = NUMBER.search(lines[node.end_lineno - 1])
        try:
            if isinstance(node, ast.Expr):
                found = eval(code, space)
                if said:
                    assert found == pytest.approx(float(said[1]), abs=2e-4), code
                    compared += 1
            else:
                exec(compile(ast.Module([node], []), where, "exec"), space)
        except Exception as error:
            error.add_note(f"{where}: {code}")
            raise
    return compared


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_says_why(page):
    for block in blocks(page):
        where = (page, block.line)
        if block.language in RUN and not block.runs:
            assert set(block.words) & set(REASONS), where
        elif block.language == "console":
            assert all(words[0] == "isogon" for words in block.commands()), where
        elif block.language == "yaml":
            assert block.file, (*where, "a plan is written to a file that a command names")


def test_numbers_in_tables_of_peers_are_those_of_the_code():
    """Where a row of a table says the same number twice, the code says it, too."""
    text = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    said = {m[1] for line in text.splitlines() if (m := NUMBER.search(line))}
    rows = re.findall(r"\| (-?\d+\.\d{4}) \|$", text, re.M)
    assert len(rows) > 20
    assert set(rows) <= said
