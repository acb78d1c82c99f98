"""The catalogue: what there is to run, answered without importing torch.

Names, summaries and declarations of everything built in come from ``manifest.json``
(written by ``python -m isogon.survey.manifest``, checked by a test); those of other packages
from their entry points. An entry of the manifest whose source file has changed since is
ignored in favour of the live one, so that the catalogue is never wrong, at worst slow.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from isogon import registry
from isogon.errors import DependencyError, unknown
from isogon.survey.declare import Declaration, declare, source_hash

MANIFEST = Path(__file__).resolve().parents[1] / "manifest.json"
DECLARED = ("measure", "experiment")
LISTED = (
    "measure",
    "experiment",
    "arch",
    "model",
    "dataset",
    "family",
    "group",
    "slice",
    "metric",
    "stitch",
    "noun",
)


@cache
def manifest() -> dict[str, Any]:
    """The packaged manifest; empty where there is none (a source tree before its first one)."""
    try:
        return json.loads(MANIFEST.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def kind(text: str) -> str:
    """The kind behind a word as typed: singular or plural, any case.

    Raises:
        SpecError: There is no such kind.
    """
    word = text.lower().replace("-", "_")
    plurals = {
        "families": "family",
        "architectures": "arch",
        "data": "dataset",
        "data_sets": "dataset",
    }
    for k in LISTED:
        plurals |= {k: k, f"{k}s": k, f"{k}es": k}
    if word not in plurals:
        raise unknown("kind", text, sorted({f"{k}s" for k in LISTED} - {"familys"} | {"families"}))
    return plurals[word]


def names(kind: str) -> list[str]:
    """Names of a kind: built in, from entry points, and registered in this process."""
    if kind not in manifest():
        return registry.names(kind)
    return sorted({*manifest()[kind], *registry.points(kind), *registry.known(kind)})


def summaries(kind: str) -> dict[str, tuple[str, str]]:
    """Name -> (how it is called, summary); only entries of other packages are imported."""
    return {name: _summary(kind, name) for name in names(kind)}


def declaration(name: str, kind: str = "measure") -> Declaration:
    """The declaration of a measure or experiment (hyphens and underscores are the same).

    Raises:
        SpecError: No such name.
    """
    name = name.replace("-", "_")
    if name not in registry.known(kind):
        held = manifest().get(kind, {}).get(name)
        if held is not None and held["source"] == source_hash(held["module"]):
            return Declaration.from_json(held)
        if name not in names(kind) and name not in registry.names(kind):
            raise unknown(kind, name, names(kind))
    return declare(entry(kind, name))


def entry(kind: str, name: str) -> registry.Entry:
    """The registered entry; imports the one module that holds it, where the manifest knows it."""
    held = manifest().get(kind, {}).get(name)
    if held is not None and name not in registry.known(kind):
        try:
            importlib.import_module(held["module"])
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("isogon"):
                raise
    return registry.get(kind, name)


def _summary(kind: str, name: str) -> tuple[str, str]:
    held = manifest().get(kind, {}).get(name)
    if held is not None:
        return held.get("call", name), held["summary"]
    try:
        found = registry.get(kind, name)
    except DependencyError as error:  # a broken package of someone else must not hide the rest
        return name, f"(can't be imported: {error})"
    return registry.signature(found), found.summary
