"""Imports only go down the ladder of layers; modules stay readable."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

from isogon.survey.declaring import sources

ROOT = Path(__file__).resolve().parents[1] / "src" / "isogon"
LAYERS = {
    "errors": 0, "context": 0, "specs": 0, "registry": 0, "nesting": 0, "variants": 0, "lazy": 0,
    "storage": 0, "readings": 0, "jit": 0, "hints": 0, "bars": 0, "processes": 0, "stopping": 0,
    "options": 0,
    "nets": 1, "actions": 1, "data": 1, "stats": 1,
    "cpwl": 2, "training": 2,
    "measures": 3,
    "findings": 4, "show": 4,
    "survey": 5,
    "cli": 6, "__main__": 6, "__init__": 6,
}  # fmt: skip
# Capabilities (`measures/`) may use those that stand before them here, and no others; likewise
# the folders of `survey/`, and those of `measures/partition/`.
ORDERS = {
    "isogon.measures": (
        "partition", "segments", "boundary", "ball", "local_complexity", "evolution",
        "manifold", "orbits", "arrangement", "alignment", "stitching", "dissection",
    ),
    "isogon.measures.partition": (
        "kernels", "patterns", "crossings", "charts", "slices", "lowering", "specs", "mesh",
        "tiles", "lines", "chords", "expected", "grow", "windows", "forecast", "decisions",
        "affine", "locate", "statistics", "adjacency", "certificate", "reading", "measure",
    ),
    "isogon.survey": ("declaring", "running", "whole", "pages", "experiments", "calls"),
}  # fmt: skip
# What a package may use of its own layer: capabilities that build on another.
USES = {
    "segments": {"partition"},
    "boundary": {"partition"},
    "ball": {"partition"},
    "local_complexity": {"partition", "ball"},
    "evolution": {"partition"},
    "manifold": {"segments"},
    "stitching": {"alignment"},
}
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


def looked_up(path: Path):
    """Modules of built-in measures that library code gets by name: imports in disguise."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "build", "has")
            and ast.unparse(node.func.value) == "registry"
            and len(node.args) > 1
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[1], ast.Constant)
            and node.args[0].value == "measure"
        ):
            yield HOME[node.args[1].value]


HOME = {name: entry.build.__module__ for name, entry in sources.source_entries("measure").items()}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down(path):
    here = dotted(path)
    for name in [*imports(path), *looked_up(path)]:
        if name == "isogon.__version__":
            continue
        assert layer(name) <= layer(here), f"{here} imports {name} from a higher layer"


@pytest.mark.parametrize("parent", ORDERS)
def test_rooms_use_those_before_them(parent):
    order, folder = ORDERS[parent], ROOT.joinpath(*parent.split(".")[1:])
    rooms = {p.stem for p in folder.iterdir() if p.name[0] != "_" and p.suffix in ("", ".py")}
    assert rooms <= set(order), "a room without a place in the order"
    for path in folder.rglob("*.py"):
        here = dotted(path).removeprefix(f"{parent}.").split(".")[0]
        if here == parent.split(".")[0]:
            continue  # the package itself
        for name in [*dependencies(path), *looked_up(path)]:  # annotations are free
            there = name.removeprefix(f"{parent}.").split(".")[0]
            if not name.startswith(f"{parent}.") or there == here or there not in rooms:
                continue
            assert order.index(there) < order.index(here), f"{dotted(path)} imports {name}"
            if parent == "isogon.measures":
                assert there in USES.get(here, ()), f"{dotted(path)} imports {name}"


def dependencies(path: Path):
    """What a module imports, lazily too; not what it imports for annotations alone."""
    tree = ast.parse(path.read_text())
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typed:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Import) and id(node) not in typed:
            yield from (a.name for a in node.names)


def test_no_circles():
    names = {dotted(p): p for p in MODULES}
    names["isogon"] = names.pop("isogon.__init__")
    graph = {here: {n for n in dependencies(p) if n in names} - {here} for here, p in names.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) < 400


def test_test_files_have_names_of_their_own():
    """Two test modules of one name in different folders stop pytest at collection."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
