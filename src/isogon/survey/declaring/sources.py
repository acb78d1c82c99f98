"""What isogon itself registers, read from its sources without importing them.

A registration is a call of a decorator of `isogon.registry` (or `isogon.variants`) on a function
at the top of a module, with arguments that can be read off the text: literals, names of constants
and type aliases, arithmetic on them. Each becomes an `Entry` whose builder is a stand-in with the
signature, docstring, module and names of the real one, so that everything derived from an entry
(how it is called, its summary, its declaration) is derived by the same code. A test holds that
the stand-ins say what the real entries say.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from isogon.registry import Entry
from isogon.variants import each

ROOT = Path(__file__).resolve().parents[2]
# Decorators that name their kind, and those that are given it.
NAMING = ("arch", "dataset", "family", "group", "measure")
GIVEN = ("register", "variants")
PLAIN = ("isogon.specs", "isogon.errors")  # imported as they are: they need nothing else


@cache
def source_entries(kind: str) -> dict[str, Entry]:
    """Name -> stand-in of every built-in entry of a kind; empty where there are no sources."""
    modules = (_Module.at(path) for path in _registering().get(kind, ()))
    found = (e for module in modules for e in module.registered() if e.kind == kind)
    return {e.name: e for e in sorted(found, key=lambda e: e.name)}


def entry(kind: str, name: str) -> Entry | None:
    """The stand-in of one built-in entry; the files that seem to hold it are read first."""
    written = re.compile(rf'^def {re.escape(name)}\(|"{re.escape(name)}"', re.M)
    likely = [p for p in _registering().get(kind, ()) if written.search(_texts()[p])]
    for path in likely:
        for found in _Module.at(path).registered():
            if (found.kind, found.name) == (kind, name):
                return found
    return source_entries(kind).get(name)


def available() -> bool:
    """Whether the sources are there to be read (not in a zip, not compiled away)."""
    return bool(_texts())


@cache
def _texts() -> dict[Path, str]:
    try:
        return {path: path.read_text("utf-8") for path in ROOT.rglob("*.py")}
    except OSError:
        return {}


@cache
def _registering() -> dict[str, list[Path]]:
    """Kind -> the files that register something of it, by a search of their text."""
    call = re.compile(
        rf'^@?(?:registry\.)?(?:({"|".join(NAMING)})|{"|".join(GIVEN)})\(\s*(?:"(\w+)")?', re.M
    )
    found: dict[str, list[Path]] = {}
    for path, text in sorted(_texts().items()):
        if "registry" in text or "isogon.variants" in text:
            for kind in {m[1] or m[2] for m in call.finditer(text)}:
                found.setdefault(kind, []).append(path)
    return found


class _Unread:
    """Stands for a value that only running the code would tell."""

    def __class_getitem__(cls, _item: Any) -> type:
        return cls

    def __getattr__(self, _name: str) -> Any:
        return _Unread


class _Module:
    """One module: what its names are bound to while it runs, as far as its text tells."""

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(("isogon", *(p for p in parts if p != "__init__")))
        self.body = ast.parse(_texts()[path]).body
        self.bound: dict[str, ast.stmt] = {}
        for node in self.body:  # what stands under `if TYPE_CHECKING` is not bound at run time
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.bound[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.bound |= {(a.asname or a.name).split(".")[0]: node for a in node.names}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.bound |= {t.id: node for t in targets if isinstance(t, ast.Name)}

    @classmethod
    @cache
    def at(cls, path: Path) -> _Module:
        """The module in a file."""
        return cls(path)

    @classmethod
    def called(cls, dotted: str) -> _Module | None:
        """The module of a dotted name, if it is one of isogon's."""
        parts = dotted.split(".")
        base = ROOT.joinpath(*parts[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if parts[0] == "isogon" and path in _texts():
                return cls.at(path)
        return None

    # ------------------------------------------------------------------ values

    def __getitem__(self, name: str) -> Any:
        """The value of a name; KeyError where it has none at run time."""
        if name not in self.bound:
            raise KeyError(name)
        node = self.bound[name]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return self.value(node.value)
        if isinstance(node, ast.Import | ast.ImportFrom):
            return _imported(node, name)
        if isinstance(node, ast.ClassDef):  # its plain attributes, e.g. defaults of a dataclass
            pairs = ((n.target, n.value) for n in node.body if isinstance(n, ast.AnnAssign))
            held = {t.id: self.value(v) for t, v in pairs if isinstance(t, ast.Name) and v}
            return type(name, (_Unread,), held)
        return _Unread

    def value(self, node: ast.expr | None) -> Any:
        """The value of an expression of literals and names, else an `_Unread`."""
        if node is None:
            return _Unread()
        try:
            code = compile(ast.Expression(node), self.name, "eval")
            return eval(code, {"__builtins__": _BUILTINS}, _Scope(self))  # isogon's own text
        except Exception:
            return _Unread()

    # ------------------------------------------------------------------ registrations

    def registered(self) -> Iterator[Entry]:
        """Every registration at the top of the module."""
        for node in self.body:
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    yield from self._entries(decorator, node)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                for argument in node.value.args:  # registry.register(...)(function)
                    target = self.bound.get(getattr(argument, "id", ""))
                    if isinstance(target, ast.FunctionDef):
                        yield from self._entries(node.value.func, target)

    def _entries(self, call: ast.expr, function: ast.FunctionDef) -> Iterator[Entry]:
        if not isinstance(call, ast.Call) or not (how := self._decorator(call.func)):
            return
        arguments = [self.value(a) for a in call.args]
        extra = {k.arg: self.value(k.value) for k in call.keywords if k.arg}
        kind = arguments.pop(0) if how in GIVEN else how
        build = self._stand_in(function)
        if how == "variants":
            for name, one in each(build, arguments[0]):
                yield Entry(kind, name, one, extra)
            return
        name = arguments[0] if arguments else extra.pop("name", None)
        if kind == "measure" and how == "measure":
            cite = extra.get("cite", ())
            extra["cite"] = (cite,) if isinstance(cite, str) else tuple(cite)
        yield Entry(kind, name or function.name, build, extra)

    def _decorator(self, node: ast.expr) -> str:
        """Which decorator of the registry an expression is, or nothing."""
        if isinstance(node, ast.Attribute):
            home, name = getattr(node.value, "id", ""), node.attr
        else:
            home, name = "", getattr(node, "id", "")
        bound = self.bound.get(home or name)
        source = bound.module if isinstance(bound, ast.ImportFrom) else None
        known = source in ("isogon.registry", "isogon.variants") or home == "registry"
        return name if known and name in (*NAMING, *GIVEN) else ""

    def _stand_in(self, node: ast.FunctionDef) -> Any:
        scope: dict[str, Any] = {"__name__": self.name}
        annotations = {}
        for a in _arguments(node.args):
            if a.annotation is not None:
                annotations[a.arg] = ast.unparse(a.annotation)
                for part in ast.walk(a.annotation):
                    if isinstance(part, ast.Name) and part.id in self.bound:
                        scope[part.id] = self[part.id]
        build = types.FunctionType(_nothing.__code__, scope, node.name)
        build.__doc__ = ast.get_docstring(node, clean=False)
        build.__module__, build.__qualname__ = self.name, node.name
        build.__annotations__ = annotations
        build.__signature__ = self._signature(node.args, annotations)  # type: ignore[attr-defined]
        return build

    def _signature(self, a: ast.arguments, annotations: Mapping[str, str]) -> inspect.Signature:
        none = inspect.Parameter.empty
        ordered = [*a.posonlyargs, *a.args]
        given = [none] * (len(ordered) - len(a.defaults)) + [self.value(d) for d in a.defaults]
        rows = [
            (p, inspect.Parameter.POSITIONAL_ONLY if i < len(a.posonlyargs) else _EITHER, d)
            for i, (p, d) in enumerate(zip(ordered, given, strict=True))
        ]
        if a.vararg:
            rows.append((a.vararg, inspect.Parameter.VAR_POSITIONAL, none))
        for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True):
            value = none if d is None else self.value(d)
            rows.append((p, inspect.Parameter.KEYWORD_ONLY, value))
        if a.kwarg:
            rows.append((a.kwarg, inspect.Parameter.VAR_KEYWORD, none))
        return inspect.Signature(
            [
                inspect.Parameter(p.arg, kind, default=d, annotation=annotations.get(p.arg, none))
                for p, kind, d in rows
            ]
        )


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_BUILTINS = {
    b.__name__: b
    for b in (bool, bytes, complex, dict, float, frozenset, int, list, object, range, set, str)
} | {"tuple": tuple, "type": type, "None": None, "True": True, "False": False}


class _Scope(dict):
    """The names of a module, as `eval` looks them up."""

    def __init__(self, module: _Module) -> None:
        self.module = module

    def __missing__(self, name: str) -> Any:
        return self.module[name]


def _imported(node: ast.Import | ast.ImportFrom, name: str) -> Any:
    source = node.module if isinstance(node, ast.ImportFrom) else None
    if source is None:
        return _Unread()
    original = next(a.name for a in node.names if (a.asname or a.name) == name)
    if source.split(".")[0] in sys.stdlib_module_names or source in PLAIN:
        return getattr(importlib.import_module(source), original)
    module = _Module.called(source)
    try:
        return _Unread if module is None else module[original]
    except KeyError:  # a submodule, or bound on first use
        return _Unread


def _arguments(a: ast.arguments) -> list[ast.arg]:
    optional = (a.vararg, a.kwarg)
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *(o for o in optional if o is not None)]


def _nothing() -> None:
    """The code of a stand-in."""
