"""Weights in files: read without executing anything, and put into a model that fits them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogon import context, storage
from isogon.errors import FileError, ModelError
from isogon.storage.stamps import note

# An isogon checkpoint holds more than weights: theirs are the tensors under this prefix, and the
# metadata entry of this name is JSON with the architecture's spec and the normalisation.
PREFIX, KEY = "model.", "isogon"


def existing(path: str | Path) -> Path:
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
    note(path)
    return path


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a ``.safetensors`` or ``.pt`` file.

    Args:
        path: ``.safetensors`` (plain, or an isogon checkpoint), or ``.pt``/``.pth`` holding a
            state dict, alone or under ``state_dict``, ``model_state_dict``, ``model`` or ``net``.

    Returns:
        The state dict, and the isogon metadata (empty for other files).

    Raises:
        FileError: Unreadable, truncated, or it would have to execute code.
    """
    path = existing(path)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        detail = str(error).strip().split("\n")[0]
        refused = "weights_only" in str(error) or "Unsupported" in str(error)
        raise FileError(
            "the file holds more than weights and would execute code"
            if refused
            else f"the file can't be read ({detail[:120]})",
            got=path,
            expected="a state dict of tensors",
            fix="Save it again with torch.save(model.state_dict(), path) or as .safetensors.",
        ) from error
    return _state_dict(found, path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata = storage.read_metadata(path)
    if KEY not in metadata:
        return storage.read_tensors(path, framework="pt")[0], {}
    try:
        meta = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        meta = error
    if not isinstance(meta, dict):
        raise FileError("bad metadata", got=path, expected="an isogon checkpoint")
    state, _ = storage.read_tensors(path, framework="pt", keep=lambda n: n.startswith(PREFIX))
    return {n.removeprefix(PREFIX): t for n, t in state.items()}, meta


def _state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not found:
        raise FileError(
            "no weights in the file", got=path, expected="a state dict of tensors by name"
        )
    extra = [str(k) for k, v in found.items() if not isinstance(v, Tensor)]
    if extra:
        raise FileError(
            "the file holds more than a state dict",
            got=", ".join(extra[:5]),
            expected="tensors by name",
            fix="Save model.state_dict() alone.",
        )
    return dict(found)


def put(model: nn.Module, state: dict[str, Tensor], *, source: object, what: str) -> nn.Module:
    """Load weights into a model that was built for them.

    Prefixes that DataParallel and ``torch.compile`` leave are taken off; weights of a model
    trained on normalised inputs fit the part behind `Normalize`; float64 weights make the model
    float64.

    Args:
        model: A fresh model, changed in place.
        state: Tensors by name.
        source: The file, for messages.
        what: The architecture, for messages.

    Raises:
        ModelError: Names or shapes differ; all are named on one line.
    """
    for prefix in ("module.", "_orig_mod."):
        if state and all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    target = model
    inner = getattr(model, "model", None)
    if isinstance(inner, nn.Module) and set(state) == set(inner.state_dict()):
        target = inner
    check_fits(target, state, source=source, what=what)
    floating = [v.dtype for v in state.values() if v.is_floating_point()]
    if floating and all(d == torch.float64 for d in floating):
        model.double()
    target.load_state_dict(state, strict=False)
    return model


def check_fits(model: nn.Module, state: dict[str, Tensor], *, source: object, what: str) -> None:
    """Refuse weights whose names or shapes are not the model's.

    Raises:
        ModelError: All that is missing, unexpected or of another shape, on one line.
    """
    own = model.state_dict()
    # counters of batch-norm are absent from old files and play no part in evaluation
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{label} {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
            for label, keys in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("other shape", shapes),
            )
            if keys
        ]
        raise ModelError(
            f"weights don't fit {what}",
            got=f"{source}: {'; '.join(parts)}",
            expected="the same names and shapes",
            fix="Give the architecture with the arguments it was trained with.",
        )
