"""What code stands behind a name: its owner's, all that it imports, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from isogon import context
from isogon.specs import parse
from isogon.storage import modules, references

ISOGON = Path(modules.__file__).resolve().parents[1]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------- users' modules

FORMS = {
    "plain": "import leaf",
    "as": "import leaf as other",
    "from": "from leaf import x",
    "star": "from leaf import *",
    "within a function": "def f():\n    from leaf import x\n    return x",
    "guarded": "try:\n    import leaf\nexcept ImportError:\n    leaf = None",
    "by name": "import importlib\nleaf = importlib.import_module('leaf')",
    "dunder": "leaf = __import__('leaf')",
    "through another": "import middle",
    "of a namespace": "from space.leaf import x",
    "submodule": "import pack.leaf",
    "submodule from": "from pack import leaf",
    "package itself": "import pack.empty",
}
LEAVES = {
    "of a namespace": "space/leaf.py",
    "submodule": "pack/leaf.py",
    "submodule from": "pack/leaf.py",
    "package itself": "pack/__init__.py",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_import_is_followed(here, form):
    write(here / "top.py", FORMS[form])
    write(here / "middle.py", "import leaf")
    write(here / "pack" / "__init__.py", "x = 0")
    write(here / "pack" / "empty.py", "")
    write(here / "aside.py", "x = 0")
    leaf = here / LEAVES.get(form, "leaf.py")
    write(leaf, "x = 1")
    first = modules.digest("top")
    write(here / "aside.py", "x = 2")
    assert modules.digest("top") == first, "what is not imported does not count"
    write(leaf, "x = 2")
    assert modules.digest("top") != first
    assert "leaf" not in sys.modules, "and nothing was imported to find out"


@pytest.mark.parametrize(
    ("line", "leaf"),
    [
        ("from . import leaf", "pack/sub/leaf.py"),
        ("from .leaf import x", "pack/sub/leaf.py"),
        ("from .. import leaf", "pack/leaf.py"),
        ("from ..leaf import x", "pack/leaf.py"),
        ("from ..other.deep import x", "pack/other/deep.py"),
        ("import importlib; importlib.import_module('.leaf', __package__)", "pack/sub/leaf.py"),
    ],
)
def test_relative_imports_are_followed(here, line, leaf):
    for folder in ("pack", "pack/sub", "pack/other"):
        write(here / folder / "__init__.py", "")
    write(here / leaf, "x = 1")
    write(here / "pack" / "sub" / "top.py", line)
    first = modules.digest("pack.sub.top")
    write(here / leaf, "x = 2")
    assert modules.digest("pack.sub.top") != first


def test_circles_end_and_broken_files_count_by_their_bytes(here):
    write(here / "a.py", "import b")
    write(here / "b.py", "import a\nimport c")
    write(here / "c.py", "this is (no Python")
    first = modules.digest("a")
    assert set(modules.files("a")) == {"a", "b", "c"}
    write(here / "c.py", "this is [no Python")
    assert modules.digest("a") != first


def test_what_is_installed_and_what_is_pythons_is_left_out(here):
    write(here / "top.py", "import json, numpy, torch, isogon, hypothesis\nfrom os import path")
    assert set(modules.files("top")) == {"top"}


def test_the_same_source_in_another_folder_is_the_same(here, monkeypatch):
    found = []
    for folder in ("a", "b"):
        write(here / folder / "top.py", "import leaf")
        write(here / folder / "leaf.py", "x = 1")
        monkeypatch.chdir(here / folder)
        found.append(modules.digest("top"))
    assert found[0] == found[1]


def test_installed_packages_count_whole_or_by_their_version(here, monkeypatch):
    site = here / "lib" / "site-packages"
    write(site / "acme" / "__init__.py", "")
    write(site / "acme" / "net.py", "x = 1")
    write(site / "acme" / "unrelated.py", "x = 1")
    monkeypatch.syspath_prepend(str(site))
    first = modules.digest("acme.net")
    write(site / "acme" / "unrelated.py", "x = 2")
    second = modules.digest("acme.net")
    assert second != first
    assert modules.code("acme.net") == "", "a class of it says nothing: its spec does"
    monkeypatch.setattr(modules, "MOST", 1)
    assert modules.digest("acme.net") not in (first, second)


def test_a_module_that_changed_is_imported_again(here):
    write(here / "fresh_top.py", "from fresh_leaf import x")
    write(here / "fresh_leaf.py", "x = 1")
    sys.path.append(str(here))
    try:
        first = modules.imported("fresh_top")
        assert modules.imported("fresh_top") is first
        write(here / "fresh_leaf.py", "x = 2")  # of the same size, within the same second
        assert modules.imported("fresh_top").x == 2
        assert first.x == 1
        write(here / "second_top.py", "from fresh_leaf import x")
        write(here / "fresh_leaf.py", "x = 3")
        assert modules.imported("second_top").x == 3, "also where another module asks"
    finally:
        sys.path.remove(str(here))
        for name in ("fresh_top", "fresh_leaf", "second_top"):
            sys.modules.pop(name, None)
            modules._loaded.pop(name, None)


# --------------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    "spec",
    [
        "top:build()",
        "trained('top:build()', digits)",
        "trained(cnn, 'top:data(3)')",
        "trained(cnn, digits, family='top:family()')",
        "top:build()@w.pt",
        "wrap('w.pt')",
        "trained('cnn@w.pt', digits)",
        "wrap(a=('x', 'w.pt'))",
        "wrap('sub/w.pt')",
        "cnn(width=2)@w.pt",
    ],
)
def test_what_a_spec_refers_to_counts_at_any_depth(here, spec):
    write(here / "top.py", "import leaf")
    write(here / "data" / "sub" / "w.pt", "a")
    for file in ("leaf.py", "w.pt"):
        write(here / file, "a = 1")
    with context.use(data_root=here / "data"):
        first = references.digest(parse(spec))
        assert references.digest(parse(spec)) == first
        changed = "sub/w.pt" if "sub" in spec else "leaf.py" if "top" in spec else "w.pt"
        write(here / ("data/" + changed if "sub" in spec else changed), "a = 2")
        assert references.digest(parse(spec)) != first


def test_a_file_that_names_files_gets_none_opened(here):
    write(here / "w.pt", "a")
    with context.from_file("other"):
        assert references.digest(parse("cnn@w.pt")) == references.digest(parse("cnn"))
    assert references.digest(parse("cnn@w.pt")) != references.digest(parse("cnn"))


# --------------------------------------------------------------------------- measures

ASK = """
import json, sys
from isogon.storage import modules, references
print(json.dumps({m: modules.code_digest(m) for m in sys.argv[1:]}))
"""


def test_a_measure_stands_for_its_package_and_for_the_rooms_that_it_uses(tmp_path):
    """Edits to a copy of isogon's sources: which measures they make another one of."""
    copy = tmp_path / "isogon"
    shutil.copytree(ISOGON, copy, ignore=shutil.ignore_patterns("__pycache__"))
    homes = {
        "partition": "isogon.measures.partition.measure",
        "segments": "isogon.measures.segments",
        "invariance": "isogon.measures.orbits.invariance",
        "reset": "isogon.measures.arrangement.reset",
    }

    def ask():
        command = [sys.executable, "-c", ASK, *homes.values()]
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        return json.loads(out)

    def changed(file):
        path = copy / file
        path.write_text(path.read_text() + "\n# improved\n")
        nonlocal held
        before, held = held, ask()
        return {name for name, home in homes.items() if held[home] != before[home]}

    held = ask()
    assert len(set(held.values())) == 3, "partition and segments name each other"
    assert changed("measures/partition/mesh/mesh.py") == {"partition", "segments"}
    assert changed("measures/arrangement/reset.py") == {"reset"}
    assert changed("cpwl/rules/maxima.py") == {"partition", "segments"}
    assert changed("measures/orbits/lie.py") == {"invariance"}
    assert changed("nets/hygiene.py") == set(homes)
    assert changed("stats/quantiles.py") >= {"invariance"}
    for aside in ("survey/pages/report.py", "show/style.py", "cli/help.py", "nets/arch/cct.py"):
        path = copy / aside
        path.write_text(path.read_text() + "\n# improved\n")
    assert changed("training/run.py") == set()
