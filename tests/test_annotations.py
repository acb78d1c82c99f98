"""Parameters that bear the name of one of isogon's own nouns name its class, not `Any`."""

import ast
from pathlib import Path

import pytest

import isogon

SOURCES = Path(isogon.__file__).parent
NOUNS = {
    *("p", "partition", "mesh", "program", "plane", "slice", "boundary", "segments", "bands"),
    *("reading", "readings", "record", "records", "job", "jobs", "plan", "sweep", "session"),
    *("site", "sites", "stage", "cut", "cuts", "walk", "graph", "anatomy", "tap", "watcher"),
    *("watchers", "stat", "batches", "samples", "family", "group", "action", "metric", "by"),
    *("model", "models", "module", "example", "fabric", "checkpoint", "config", "declaration"),
    *("certificate", "concepts", "labels", "rows", "x", "row", "frame", "table", "fig", "ax"),
}
NOT_OURS = {  # parameters of these names that hold what anybody may give
    "storage/digests.py",  # digests of whatever there is
}


def holds_any(annotation: ast.expr | None) -> bool:
    """Whether an annotation is `Any` itself, a union or a sequence of it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    match annotation:
        case ast.Name(id="Any"):
            return True
        case ast.BinOp(left=left, right=right):
            return holds_any(left) or holds_any(right)
        case ast.Subscript(value=ast.Name(id="list" | "Sequence" | "Iterable"), slice=of):
            return holds_any(of)
    return False


def unnamed(source: str, nouns: set[str]) -> list[tuple[int, str, str]]:
    """Line, function and parameter where a noun's class is not named."""
    found = []
    for f in ast.walk(ast.parse(source)):
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef):
            a = f.args
            for parameter in (*a.posonlyargs, *a.args, *a.kwonlyargs):
                if parameter.arg in nouns and holds_any(parameter.annotation):
                    found.append((f.lineno, f.name, parameter.arg))
    return found


def test_parameters_named_by_a_noun_name_its_class():
    found = [
        f"{path.relative_to(SOURCES)}:{line} {function}({name})"
        for path in sorted(SOURCES.rglob("*.py"))
        if str(path.relative_to(SOURCES)) not in NOT_OURS
        for line, function, name in unnamed(path.read_text(), NOUNS)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(p: Any): ...", 1),
        ("def f(p: 'Any'): ...", 1),
        ("def f(*, p: Any | None = None): ...", 1),
        ("async def f(p: list[Any], /): ...", 1),
        ("class A:\n    def f(self, p: Any, q: Any): ...", 1),
        ("def f(p: Partition, q: Any): ...", 0),
        ("def f(p: dict[str, Any]): ...", 0),
    ],
)
def test_the_walk_sees_them(source: str, count: int):
    assert len(unnamed(source, {"p"})) == count
