"""Reference pages come from the registry: one per entry, every parameter described."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from isogon import registry
from isogon.survey.declaring.declare import arguments
from isogon.survey.pages import bibliography

EXTENSION = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "registry_pages.py"
KINDS = ("measure", "dataset", "family", "group", "experiment", "slice", "concepts")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("registry_pages", EXTENSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("reference") / "reference"
    (folder / "measure").mkdir(parents=True)
    (folder / "measure" / "gone.md").write_text("# of an entry that is gone")
    module.generate(folder)
    return folder


def own(kind):
    return [e for e in registry.entries(kind) if e.build.__module__.startswith("isogon.")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_its_page(pages, kind):
    for entry in own(kind):
        text = (pages / kind / f"{entry.name}.md").read_text(encoding="utf-8")
        assert entry.name in text.splitlines()[0]
    assert not (pages / "measure" / "gone.md").exists()


def test_every_architecture_is_on_a_page(pages):
    held = "\n".join(p.read_text(encoding="utf-8") for p in (pages / "arch").iterdir())
    for entry in own("arch"):
        assert entry.name in held


@pytest.mark.parametrize("kind", ["measure", "dataset", "family", "group", "experiment"])
def test_every_parameter_is_described(kind):
    missing = []
    for entry in own(kind):
        doc = inspect.getdoc(entry.build) or ""
        assert entry.summary.endswith((".", ":")), entry.name
        named = arguments(doc)
        missing += [
            f"{entry.name}({p.name})"
            for p in inspect.signature(entry.build).parameters.values()
            if p.kind is not p.VAR_KEYWORD and p.name not in named
        ]
    assert not missing


def test_every_source_is_in_the_bibliography():
    for kind in (*KINDS, "arch", "metric", "stitch"):
        for entry in own(kind):
            keys = entry.extra.get("cite", ())
            for key in [keys] if isinstance(keys, str) else keys:
                assert bibliography.work_of(key) is not None, f"{entry.name}: {key}"


def test_every_work_stands_once():
    text = bibliography.FILE.read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", text, re.M)
    assert sorted(keys) == sorted(set(keys))
