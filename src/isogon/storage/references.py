"""What the text of a spec refers to, besides names of isogon's own: users' code and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from isogon import context
from isogon.errors import SpecError
from isogon.specs import MAX_DEPTH, Spec, parse
from isogon.storage import digests, file_digests, modules

BUILDERS = ("arch", "model", "dataset", "family", "group", "slice")


def digest(spec: Any) -> str:
    """Digest of what the text of a spec refers to: users' modules, files, builders of others.

    Specs within specs count, also in strings (``'my.mod:build()'``, ``'cnn@w.pt'``), and so do
    strings that name a file, here or under the data root. What a *data set's* folder holds is
    not looked at: that is for the digest of the data.
    """
    return digests.of(list(_references(spec, 0)))


def _references(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    from isogon import registry

    if depth > MAX_DEPTH or context.brought_by() is not None:  # a file's words open nothing
        return
    if isinstance(value, tuple | list):
        for item in value:
            yield from _references(item, depth + 1)
    elif isinstance(value, str):
        for path in (Path(value).expanduser(), context.data_root() / value):
            if ("." in value or os.sep in value) and _is_file(path):
                yield "file", file_digests.file(path)
                return
        if any(c in value for c in ":@("):
            with suppress(SpecError):
                yield from _references(parse(value), depth + 1)
    elif isinstance(value, Spec):
        if value.path is not None:
            path = Path(value.path).expanduser()
            kept = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
            yield from (("file", file_digests.file(p)) for p in kept if _is_file(p))
        if value.module is not None:
            yield "module", modules.digest(value.module)
        elif value.name is not None:
            for kind in BUILDERS:
                if value.name in registry.points(kind):
                    registry.get(kind, value.name)  # of another package: it is imported
                held = registry.known(kind).get(value.name)
                home = getattr(held and held.build, "__module__", None) or "isogon"
                if not home.startswith("isogon."):
                    yield home, modules.digest(home)
        for item in (*value.args, *(v for _, v in sorted(value.kwargs.items()))):
            yield from _references(item, depth + 1)


def runs_code(spec: Any) -> bool:
    """Whether a spec, or one within it, names a user's function."""
    return within(spec, lambda s: s.module is not None)


def within(value: Any, test: Callable[[Any], bool]) -> bool:
    """Whether a spec, or one within it (also in a string), is of a kind."""
    if isinstance(value, str) and any(c in value for c in ":@("):
        try:
            value = parse(value)
        except SpecError:
            return False
    if isinstance(value, Spec):
        inner = (*value.args, *value.kwargs.values())
        return test(value) or any(within(v, test) for v in inner)
    return isinstance(value, tuple | list) and any(within(v, test) for v in value)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, a NUL in it
        return False
