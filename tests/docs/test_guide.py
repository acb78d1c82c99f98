"""A reader finds the way: two clicks to a task, search words, names of commands that exist."""

from __future__ import annotations

import re

import pytest
from pages import DOCS, PAGES, ROOT

from isogon.cli import commands
from isogon.survey.declaring import catalogue

# Words of someone who does not know the names of things here -> a page that answers.
SOUGHT = {
    "lightning": "guide/my-checkpoint",
    "pdf": "guide/my-images",
    "checkpoint": "guide/my-checkpoint",
    "region": "partition",
    "similarity": "similarity",
}
# What two newcomers were asked to do -> the page that says how.
TASKS = ("guide/my-images.md", "howto/ball.md")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", TASKS)
def test_tasks_are_one_click_from_the_front_page(page):
    assert f"]({page})" in text("docs/index.md")


@pytest.mark.parametrize("word", list(SOUGHT))
def test_words_are_in_the_pages_that_answer(word):
    found = text(f"docs/{SOUGHT[word]}.md").lower()
    assert len(re.findall(rf"\b{word}", found)) >= 2


def test_the_built_search_finds_them():
    built = DOCS / "_build" / "html" / "searchindex.js"
    if not built.is_file():
        pytest.skip("the documentation is not built here: make docs")
    import json

    found = json.loads(re.sub(r"^Search\.setIndex\(|\)\s*;?\s*$", "", built.read_text("utf-8")))
    for word, page in SOUGHT.items():
        hits = [
            pages
            for index in (found["terms"], found["titleterms"])
            for term, pages in index.items()
            if term.startswith(word[:6])  # terms are stems
        ]
        numbers = {n for h in hits for n in (h if isinstance(h, list) else [h])}
        assert page in {found["docnames"][n] for n in numbers}, word


def test_every_page_is_in_the_contents():
    listed = set()
    for page in ("docs/index.md", "docs/howto/index.md"):
        base = page.removeprefix("docs/").removesuffix("index.md")
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text(page), re.S):
            listed |= {base + line.strip() for line in tree.splitlines() if line[:1].isalpha()}
    pages = {p.removeprefix("docs/").removesuffix(".md") for p in PAGES if p.startswith("docs/")}
    assert pages - {"index"} <= listed


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page):
    names = {n.replace("_", "-") for n in catalogue.names("measure")} | set(commands.COMMANDS)
    experiments = {n.replace("_", "-") for n in catalogue.names("experiment")}
    for line in re.findall(r"`isogon ([a-z][^`]*)`", text(page)):
        command, *rest = line.split()
        assert command in names, line
        if command == "experiment" and rest[0].islower():
            assert rest[0] in experiments, line


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    made = ("gallery/", "reference/", "_build/")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text(page)):
        path = ((ROOT / page).parent / target).resolve()
        inside = path.relative_to(ROOT).as_posix().removeprefix("docs/")
        assert path.exists() or inside.startswith(made), target
