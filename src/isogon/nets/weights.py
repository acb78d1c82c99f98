"""Weights in files: read without executing anything, and put into a model that fits them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogon import context, storage
from isogon.errors import FileError
from isogon.nets import layouts
from isogon.nets.fitting import check_fits, fitting
from isogon.nets.states import load_weights
from isogon.storage.files import memory_limit
from isogon.storage.stamps import note_stamp

__all__ = ["check_fits", "existing", "fitting", "put", "read_weights"]

# An isogon checkpoint holds more than weights: theirs are the tensors under this prefix, and the
# metadata entry of this name is JSON with the architecture's spec and the normalisation.
PREFIX, KEY = "model.", "isogon"


def existing(path: str | os.PathLike) -> Path:
    """The path, if it is a readable file and somebody typed it.

    Raises:
        SpecError: Another file brought the path.
        FileError: Missing, or a folder.
    """
    context.typed_only("open a file", path)
    path = Path(path).expanduser()
    if not path.exists():
        raise FileError("no such file", got=path, expected="a weights or model file")
    if not path.is_file():
        raise FileError("not a file", got=path, expected="a weights or model file")
    note_stamp(path)
    return path


def read_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a ``.safetensors`` or ``.pt`` file.

    Args:
        path: ``.safetensors`` (plain, or an isogon checkpoint); the ``.index.json`` of weights in
            several files beside it; or any other file, as ``torch.save`` writes, with a state
            dict, alone or among other things (see `isogon.nets.layouts.state_in`).

    Returns:
        The state dict, and the isogon metadata (empty for other files).

    Raises:
        FileError: Unreadable, truncated, or it would have to execute code.
    """
    path = existing(path)
    if path.name.lower().endswith(layouts.INDEX):
        parts = {part: _read_one(existing(part))[0] for part in _sized(layouts.shards(path))}
        layouts.check_index(path, parts)
        return {k: v for tensors in parts.values() for k, v in tensors.items()}, {}
    return _read_one(path)


def _read_one(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return layouts.state_in(layouts.read_saved(path), path), {}


def _sized(parts: list[Path]) -> list[Path]:
    """The files of one set of weights, refused where they are more than fits into memory."""
    total = sum(part.stat().st_size for part in parts if part.is_file())
    if total > memory_limit():
        raise FileError(
            "the weights are larger than the memory that may be used",
            got=f"{total} bytes in {len(parts)} files",
            expected=f"at most {memory_limit()} bytes",
        )
    return parts


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata = storage.read_metadata(path)
    if KEY not in metadata:
        return layouts.aliased(storage.read_tensors(path, framework="pt")[0], metadata), {}
    try:
        meta = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        meta = error
    if not isinstance(meta, dict):
        raise FileError("bad metadata", got=path, expected="an isogon checkpoint")
    state, _ = storage.read_tensors(path, framework="pt", keep=lambda n: n.startswith(PREFIX))
    return {n.removeprefix(PREFIX): t for n, t in state.items()}, meta


def put(model: nn.Module, state: dict[str, Tensor], *, source: object, what: str) -> nn.Module:
    """Load weights into a model that was built for them.

    The names may differ from the model's as `isogon.nets.fitting.fitting` allows; float64 weights
    make the model float64.

    Args:
        model: A fresh model, changed in place.
        state: Tensors by name.
        source: The file, for messages.
        what: The architecture, for messages.

    Raises:
        ModelError: Names or shapes differ; all are named on one line.
    """
    target, state = fitting(model, state, source=source, what=what)
    floating = [v.dtype for v in state.values() if v.is_floating_point()]
    if floating and all(d == torch.float64 for d in floating):
        model.double()
    load_weights(target, state, strict=False)
    return model
