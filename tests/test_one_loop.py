"""One loop runs models over data: `isogon.nets.passes.one_pass`. Others have a reason."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "isogon"
DATA = {"batches", "data", "loader", "train", "test", "source", "samples"}
# module, function: why it reads data by itself
REASONS = {
    ("nets/passes.py", "_share"): "the loop",
    ("nets/recalibrate.py", "recalibrated"): "runs batch-norm in training mode, which changes it",
    ("training/run.py", "_train_epoch"): "trains",
    ("training/feeds.py", "_measure"): "mean and spread of inputs, no model",
    ("nets/labels.py", "__iter__"): "passes batches on, labels checked",
    ("survey/running/placing.py", "__iter__"): "passes batches on, to a device",
    ("survey/whole/defaults.py", "_classes"): "reads labels, no model",
    ("measures/evolution/evolution.py", "near_data"): "reads inputs, no model",
    ("measures/partition/specs.py", "_nearest"): "reads inputs, no model",
}


def named(node: ast.expr) -> str:
    """The last word of what is iterated over, behind `enumerate`, `iter` and the like."""
    while isinstance(node, ast.Call):
        passed_on = named(node.func) in ("enumerate", "iter", "zip", "reversed")
        node = node.args[0] if passed_on and node.args else node.func
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    return node.id.strip("_") if isinstance(node, ast.Name) else ""


def loops(tree: ast.AST):
    """Function and line of every loop over something that is called like data."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.For | ast.comprehension):
                pair = isinstance(node.target, ast.Tuple) and len(node.target.elts) <= 3
                word = named(node.iter)
                if word in ("batches", "loader", "epoch") or (pair and word in DATA):
                    yield function.name, node.iter.lineno
            # for start in range(...): x, y = samples.take(...)
            if isinstance(node, ast.For) and ast.unparse(node.iter).startswith("range("):
                for call in ast.walk(node):
                    if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "take":
                        yield function.name, node.iter.lineno


def found() -> dict[tuple[str, str], int]:
    return {
        (str(path.relative_to(ROOT)), name): line
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent.name != "show"  # draws tables
        for name, line in loops(ast.parse(path.read_text()))
    }


def test_no_other_loop_over_data():
    for (module, function), line in found().items():
        known = (module, function) in REASONS or (module, "*") in REASONS
        assert known, f"{module}:{line} {function} loops over data: use one_pass, or give a reason"


def test_every_reason_is_of_a_loop_that_is_there():
    there = found()
    for module, function in REASONS:
        assert any(m == module and function in (f, "*") for m, f in there), (module, function)


def test_the_search_sees_what_it_should():
    text = """
def a(batches):
    for x, y in batches: pass
def b(self):
    return [x for x, _ in self._data]
def c(data):
    for i, (x, y) in enumerate(data): pass
def d(samples):
    for start in range(3):
        x, y = samples.take(slice(start))
def e(rows):
    for name, value in rows.items(): pass
    for k in data: pass
"""
    assert [name for name, _ in loops(ast.parse(text))] == ["a", "b", "c", "d"]
