"""The catalogue: what there is to run, answered without importing torch.

Names, summaries and declarations of everything built in are read from the sources
(`isogon.survey.declaring.sources`), those of other packages from their entry points. What is
registered in this process, by whatever way, goes first.
"""

from __future__ import annotations

import importlib
from typing import Any

from isogon import registry
from isogon.errors import DependencyError, unknown
from isogon.survey.declaring import sources
from isogon.survey.declaring.declare import Declaration, declare

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
    "concepts",
    "noun",
)


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
        raise unknown(
            "kind",
            text,
            sorted({f"{k}s" for k in LISTED} - {"familys", "conceptss"} | {"families", "concepts"}),
        )
    return plurals[word]


def names(kind: str) -> list[str]:
    """Names of a kind: built in, from entry points, and registered in this process."""
    if not sources.available():
        return registry.names(kind)
    return sorted({*sources.source_entries(kind), *registry.points(kind), *registry.known(kind)})


def holds(kind: str, name: str) -> bool:
    """Whether there is an entry of that name (hyphens and underscores are the same)."""
    name = name.replace("-", "_")
    if name in registry.known(kind) or name in registry.points(kind):
        return True
    return sources.entry(kind, name) is not None if sources.available() else name in names(kind)


def summaries(kind: str) -> dict[str, tuple[str, str]]:
    """Name -> (how it is called, summary); only entries of other packages are imported."""
    return {name: _summary(kind, name) for name in names(kind)}


def declaration(name: str, kind: str = "measure") -> Declaration:
    """The declaration of a measure or experiment (hyphens and underscores are the same).

    Raises:
        SpecError: No such name.
    """
    return declare(stand_in(kind, name), names("noun"))


def stand_in(kind: str, name: str) -> registry.Entry:
    """The entry of a measure or experiment, or what its source says of it: nothing is imported.

    Raises:
        SpecError: No such name.
    """
    name = name.replace("-", "_")
    found = registry.known(kind).get(name) or sources.entry(kind, name)
    if found is None and name not in names(kind):
        raise unknown(kind, name, names(kind))
    return found or registry.get(kind, name)


def noun(name: str) -> dict[str, Any]:
    """What a noun says of itself: ``kinds`` that its specs name, ``help``, ``typed``, ``example``.

    ``typed`` is a spec as the command line shows one, ``example`` a tiny one for tests,
    ``default`` what a survey supplies; what is ``light`` is built when a plan is checked.
    """
    found = registry.known("noun").get(name) or sources.entry("noun", name)
    return (found or registry.get("noun", name)).extra


def models(declaration: Declaration) -> list[str]:
    """The required inputs of a measure that are models, whatever their noun."""
    return [
        i.name
        for i in declaration.inputs
        if i.required and "model" in noun(i.noun).get("kinds", ())
    ]


def module(kind: str, name: str) -> str:
    """The module that registers a name; "" where that is not known without importing it."""
    found = registry.known(kind).get(name) or sources.source_entries(kind).get(name)
    return "" if found is None else found.build.__module__ or ""


def entry(kind: str, name: str) -> registry.Entry:
    """The registered entry; imports the one module that holds it, where the sources tell it."""
    found = sources.entry(kind, name)
    if found is not None and name not in registry.known(kind):
        try:
            importlib.import_module(found.build.__module__)
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("isogon"):
                raise
    return registry.get(kind, name)


def _summary(kind: str, name: str) -> tuple[str, str]:
    found = sources.source_entries(kind).get(name)
    try:
        found = found or registry.get(kind, name)
    except DependencyError as error:  # a broken package of someone else must not hide the rest
        return name, f"(can't be imported: {error})"
    return registry.signature(found), found.summary
