"""What code stands behind a name: digests of the source of modules and of what they import.

Two rules. A *user's* module stands for itself and for what it imports, directly or not, from
the user's own folders; what is installed counts by the package that the module itself is in. A
*measure* stands for its own package and for the rooms of isogon that this imports from. Imports
are read from the source, and nothing is imported to find them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import os
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from isogon.storage import file_digests
from isogon.storage.stamps import Stamp, note_stamp

ISOGON = Path(__file__).resolve().parents[1]
# Parts of isogon that compute what a measure says; each counts as a whole, since its pieces find
# each other by registered names (op rules, statistics), which no import shows.
ROOMS = ("actions", "cpwl", "data", "nets", "stats")
MOST = 400  # files of an installed package that is told apart by more than its version


def digest(module: str) -> str:
    """Digest of the source of a module and of all that it imports from the same owner.

    Args:
        module: Its full name; of a user's folder, of an installed package, or of isogon.

    Returns:
        64 hexadecimal digits; those of nothing where no source is found.
    """
    found = files(module)
    start = locate(module)
    own = start is not None and _is_own(start)
    if own:
        _remember(module)  # also what was imported since by a function of it
    version = "" if own or start is None else _version(module.split(".")[0])
    return _of(version, _contents(found))


def code(module: str) -> str:
    """Digest of the source behind a class: a user's as `digest`, isogon's own file, else empty.

    What is installed is left out: it is told apart by the specs that name it.
    """
    if module.split(".")[0] in ("", "torch", "torchvision", "numpy", "builtins"):
        return ""
    path = locate(module)
    if path is None:
        return ""
    if ISOGON in path.parents:
        return file_digests.file(path)
    return digest(module) if _is_own(path) else ""


def code_digest(module: str) -> str:
    """Digest of the code that computes a measure which is defined in ``module``."""
    return _built_in(module) if module.split(".")[0] == "isogon" else _measure(module)


@cache
def _built_in(module: str) -> str:
    return _measure(module)  # the code in memory stays what it is


def _measure(module: str) -> str:
    found = files(module)
    queue = list(found.values())
    seen = set(queue)
    while queue:
        for name in _ours(queue.pop()):
            for path in _room(name):
                if path not in seen:
                    seen.add(path)
                    queue.append(path)
                    found[path.relative_to(ISOGON).as_posix()] = path
    return _of("", _contents(found))


def files(module: str) -> dict[str, Path]:
    """Full name -> file of a module and of what it imports from the same owner."""
    start = locate(module)
    if start is None:
        return {}
    top = module.split(".")[0]
    if ISOGON in start.parents:
        return {path.relative_to(ISOGON).as_posix(): path for path in _room(module)}
    if not _is_own(start):
        return _package(top, start)
    found: dict[str, Path] = {}
    queue, seen = [module], set()
    while queue:
        for full in _lineage(queue.pop()):
            if full in seen:
                continue
            seen.add(full)
            path = locate(full)
            if path is not None and _is_own(path):
                found[full] = path
                queue += _imports(full, path)
    return found


def locate(module: str) -> Path | None:
    """The file behind a module, found without importing it; None where there is none."""
    loaded = sys.modules.get(module)
    place = getattr(loaded, "__file__", None)
    if place is None and loaded is None:
        place = getattr(_spec(module), "origin", None)
    path = None if place is None else Path(os.path.realpath(place))
    return path if path is not None and path.is_file() else None


# --------------------------------------------------------------------------- code that changed

_loaded: dict[str, str] = {}  # user's module in memory -> digest of the file it was made from


def imported(module: str) -> types.ModuleType:
    """The module, as its files are now.

    A user's own modules whose source has changed since they were imported here, and those that
    import them, are imported again; objects that were made before keep the old code.

    Raises:
        ImportError: There is no such module.
    """
    held = _in_memory(module)
    changed = any(_loaded.get(name, now) != now for name, now in held.items())
    if changed or (module in _loaded and _elsewhere(module)):
        importlib.invalidate_caches()
        for name in held:
            _loaded.pop(name, None)
            cached = getattr(sys.modules.pop(name, None), "__cached__", None)
            if cached:  # Python trusts it where size and second of the source are the same
                with suppress(OSError):
                    Path(cached).unlink()
    found = importlib.import_module(module)
    _remember(module)
    return found


def _remember(module: str) -> None:
    """Keep in mind what the user's modules behind a name were made from."""
    for name, now in _in_memory(module).items():
        _loaded.setdefault(name, now)


def _in_memory(module: str) -> dict[str, str]:
    path = locate(module)
    if path is None or not _is_own(path):
        return {}
    found = {n: p for n, p in files(module).items() if n in sys.modules}
    return {
        n: file_digests.file(p) for n, p in found.items() if n not in ("__main__", "__mp_main__")
    }


def _elsewhere(module: str) -> bool:
    """Whether the name leads to another folder now, e.g. from another working directory."""
    top = module.split(".")[0]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    with suppress(ImportError, ValueError, AttributeError, OSError):
        now = getattr(PathFinder.find_spec(top, _path()), "origin", None)
        if now and loaded:
            return os.path.realpath(now) != os.path.realpath(loaded)
    return False


# --------------------------------------------------------------------------- internals


def _of(version: str, contents: list[tuple[str, str]]) -> str:
    """One digest of a version and of the digests of files under their names."""
    return hashlib.sha256(json.dumps([version, contents]).encode()).hexdigest()


def _contents(found: dict[str, Path]) -> list[tuple[str, str]]:
    return [(name, file_digests.file(path)) for name, path in sorted(found.items())]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return ""


def _path() -> list[str]:
    """Where imports are looked for; the working directory counts, last."""
    return [p or os.getcwd() for p in (*sys.path, os.getcwd())]


@cache
def _installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [sysconfig.get_paths()[n] for n in names]
    with suppress(AttributeError):  # some embedded Pythons have no site
        found += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({Path(os.path.realpath(p)) for p in found})


def _is_own(path: Path) -> bool:
    """Whether a file is the user's own: neither isogon's, nor Python's, nor installed."""
    if {"site-packages", "dist-packages"} & set(path.parts) or ISOGON in path.parents:
        return False
    return not any(p in path.parents for p in _installed())


def _spec(module: str) -> Any:
    """The import system's answer for a module, without running its parents."""
    where = _path()
    parts = module.split(".")
    found = None
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        known = sys.modules.get(name)
        try:
            found = getattr(known, "__spec__", None) or PathFinder.find_spec(name, where)
        except (ImportError, ValueError, AttributeError, OSError):
            return None
        if found is None:
            return None
        where = list(found.submodule_search_locations or [])
    return found


def _lineage(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


_asked: dict[tuple[str, Path, Stamp], tuple[str, ...]] = {}


def _imports(module: str, path: Path) -> tuple[str, ...]:
    """Full names that a source file may import; not all of them need exist."""
    key = (module, path, note_stamp(path))
    if key not in _asked:
        tree = _tree(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        _asked[key] = () if tree is None else tuple(dict.fromkeys(_named(tree, package)))
    return _asked[key]


def _named(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".") if package else []
                up = up[: len(up) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            if base:
                yield base
            yield from (f"{base}.{a.name}".strip(".") for a in node.names if a.name != "*")
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                text = str(first.value)
                yield f"{package}{text}" if text.startswith(".") else text


def _tree(path: Path) -> ast.Module | None:
    if path.suffix != ".py":
        return None
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # importing it says what is wrong


def _package(top: str, start: Path) -> dict[str, Path]:
    """All source files of an installed package; of a single module, that file."""
    root = next((p for p in start.parents if p.name == top), None)
    if root is None:
        return {top: start}
    found = sorted(root.rglob("*.py"))
    if len(found) > MOST:  # its version has to do
        return {top: start}
    return {p.relative_to(root.parent).as_posix(): p for p in found}


_FROM = re.compile(r"^[ \t]*from[ \t]+(isogon[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)", re.M)
_PLAIN = re.compile(r"^[ \t]*import[ \t]+(isogon[\w.]*)", re.M)
_texts: dict[tuple[Path, Stamp], tuple[str, ...]] = {}


def _ours(path: Path) -> tuple[str, ...]:
    """Modules of isogon that a source file imports: by pattern, parsing takes 100 times longer."""
    key = (path, note_stamp(path))
    if key not in _texts:
        text = path.read_text(encoding="utf-8", errors="replace")
        names = set(_PLAIN.findall(text))
        for base, rest in _FROM.findall(text):
            names |= {f"{base}.{name}" for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", rest)}
        _texts[key] = tuple(sorted(names))
    return _texts[key]


def _room(module: str) -> tuple[Path, ...]:
    """The files that count where a module of isogon is imported: of measures and ROOMS."""
    parts = module.split(".")[1:]
    if not parts or (parts[0] != "measures" and parts[0] not in ROOMS):
        path = ISOGON.joinpath(*parts).with_suffix(".py")
        return (path,) if parts[:1] == ["jit"] and path.is_file() else ()
    if parts[0] == "measures":
        if len(parts) == 1:
            return ()
        place = ISOGON / "measures" / parts[1]
        single = place.with_suffix(".py")
        return _sources(place) if place.is_dir() else (single,) if single.is_file() else ()
    return _sources(ISOGON / parts[0])


@cache
def _sources(folder: Path) -> tuple[Path, ...]:
    # architectures belong to the models that are made of them, not to what is measured
    arch = ISOGON / "nets" / "arch"
    return tuple(sorted(p for p in folder.rglob("*.py") if arch not in p.parents))
