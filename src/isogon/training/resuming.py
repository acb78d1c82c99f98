"""Where a run goes on from: its own last checkpoint, or another one that it is pointed to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from isogon import context
from isogon.actions import family
from isogon.errors import FileError, OptionError
from isogon.training.checkpoint import Checkpoint
from isogon.training.config import OVERRIDES, FitConfig, from_options

LAST = "last.safetensors"
_FACTS = ("spec", "normalize", "data", "shape", "classes", "samples", "data_digest", "code")


def pointed(config: FitConfig) -> tuple[FitConfig, Checkpoint | None]:
    """The checkpoint of ``resume_from``, and the options of a run that goes on from it.

    Options at their defaults become the checkpoint's; with ``override`` those of optimiser and
    schedule stay as they are. ``epochs`` counts from the beginning and may grow.

    Raises:
        OptionError: An option contradicts the checkpoint.
        FileError: The checkpoint can't be read.
    """
    if config.resume_from is None:
        return config, None
    found = Checkpoint.load(config.resume_from)
    mine, theirs = config.trajectory(), _recorded(found)
    default = FitConfig().trajectory()
    adopted: dict[str, Any] = {}
    for name, value in mine.items():
        if name not in theirs or theirs[name] == value:
            continue
        if name == "epochs":
            adopted[name] = max(value, theirs[name]) if value == default[name] else value
        elif name in OVERRIDES and config.override:
            continue
        elif value == default[name]:
            adopted[name] = theirs[name]
        else:
            hint = "or set override=true" if name in OVERRIDES else "or train from the beginning"
            raise OptionError(
                f"option {name} contradicts the checkpoint {config.resume_from!r}",
                got=value,
                expected=theirs[name],
                fix=f"Leave {name} out, {hint}.",
            )
    if isinstance(adopted.get("family"), str):
        with context.from_file(config.resume_from):
            family(adopted["family"])  # refuses what a file may not name
    return dataclasses.replace(config, **adopted), found


def _recorded(found: Checkpoint) -> dict[str, Any]:
    """The options in a checkpoint, each of its option's type.

    Raises:
        FileError: They are not.
    """
    known = FitConfig().as_dict()
    held = {k: v for k, v in found.meta["config"].items() if k in known}
    try:
        return from_options(held | {"resume_from": None}).trajectory()
    except OptionError as error:
        raise FileError(
            f"the options in this checkpoint are not valid ({error.problem})",
            got=str(found.path),
            expected="what a run of isogon writes",
            fix="It was damaged or made by hand: train again.",
        ) from error


def find_start(
    folder: Path | None, facts: dict[str, Any], config: FitConfig, found: Checkpoint | None
) -> Checkpoint | None:
    """The checkpoint that a run starts from; None for a run from the beginning.

    The run's own last checkpoint in ``folder`` comes before the one it was pointed to: a
    continuation that was killed goes on from where it was.

    Raises:
        OptionError: The folder holds another run, or the checkpoint belongs to another one.
    """
    if found is not None:
        for key in _FACTS:
            if found.meta.get(key) != facts[key]:
                raise OptionError(
                    f"the checkpoint {config.resume_from!r} belongs to a run with another {key}",
                    got=facts[key],
                    expected=found.meta.get(key),
                    fix="Name the same architecture and data, or train from the beginning.",
                )
    own = None if folder is None else folder / LAST
    if own is None or not config.resume or not own.exists():
        return found
    if found is not None and found.path is not None and found.path.resolve() == own.resolve():
        return found
    last = Checkpoint.load(own)
    options = config.trajectory()
    if _prefix(config):
        options.pop("epochs")
    pairs = [(k, facts[k], last.meta.get(k)) for k in (*_FACTS, "initial")]
    # an option that is younger than the file was at its default
    held = FitConfig().as_dict() | last.meta["config"]
    pairs += [(k, v, held[k]) for k, v in options.items()]
    for key, mine, theirs in pairs:
        if mine != theirs:
            raise OptionError(
                f"{str(folder)!r} holds a run with another {key}",
                got=mine,
                expected=theirs,
                fix="Choose another out, or set resume=false to start over.",
            )
    return last


def _prefix(config: FitConfig) -> bool:
    """Whether a longer run begins exactly as a shorter one (so that epochs may differ)."""
    return config.schedule in ("constant", "step", "exponential") and not config.snapshot_at
