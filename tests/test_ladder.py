"""Imports only go down the ladder of layers; modules stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "isogon"
LAYERS = {
    "errors": 0, "context": 0, "specs": 0, "registry": 0, "nesting": 0, "variants": 0,
    "storage": 0, "readings": 0, "jit": 0, "hints": 0, "processes": 0, "stopping": 0,
    "nets": 1, "actions": 1, "data": 1, "stats": 1,
    "cpwl": 2, "training": 2,
    "measures": 3,
    "show": 4,
    "survey": 5,
    "cli": 6, "__main__": 6, "__init__": 6,
}  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def layer(dotted: str) -> int:
    parts = dotted.split(".")
    return LAYERS[parts[1]] if len(parts) > 1 else LAYERS["__init__"]


def dotted(path: Path) -> str:
    parts = ["isogon", *path.relative_to(ROOT).with_suffix("").parts]
    if parts[-1] == "__init__" and len(parts) > 2:
        parts.pop()
    return ".".join(parts)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "isogon")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if node.module and node.module.split(".")[0] == "isogon":
                if node.module == "isogon":
                    yield from (f"isogon.{a.name}" for a in node.names)
                else:
                    yield node.module


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down(path):
    here = dotted(path)
    for name in imports(path):
        if name == "isogon.__version__":
            continue
        assert layer(name) <= layer(here), f"{here} imports {name} from a higher layer"
        if layer(here) == 3 and layer(name) == 3:
            mine, theirs = here.split(".")[2:3], name.split(".")[2:3]
            assert mine == theirs, f"measures never import each other: {here} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) < 400


def test_test_files_have_names_of_their_own():
    """Two test modules of one name in different folders stop pytest at collection."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
