"""What statistics and watchers have seen, as plain data and arrays: nothing that could run.

The state of an object is written as it stands (numbers, tuples, tensors, tables, and objects that
can be merged) and is taken up by a fresh object of the same make. What is not state (functions,
models, sites, options) is not written: the fresh object has its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from isogon.errors import FileError
from isogon.stats.wrappers import ByClass

_WORDS = {"bool": np.bool_, "int": np.integer, "float": np.floating}


def write_state(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON, its numbers in bulk put into ``arrays``.

    Raises:
        TypeError: Text in an array of another kind, or keys that are no numbers or text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    for name, kind in _WORDS.items():
        if isinstance(value, kind):
            return write_state({"bool": bool, "int": int, "float": float}[name](value), arrays)
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, torch.Tensor):
        t = value.detach()
        facts = {"tensor": _put(t, arrays), "device": str(t.device)}
        return facts | ({"bfloat16": True} if t.dtype == torch.bfloat16 else {})
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return {"objects": [write_state(v, arrays) for v in value.tolist()]}
        return {"array": _put(value, arrays)}
    if isinstance(value, pd.DataFrame):
        columns = [(str(c), value[c].to_numpy()) for c in value]
        return {"frame": [[name, write_state(column, arrays)] for name, column in columns]}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [write_state(v, arrays) for v in value]}
    if isinstance(value, dict):
        pairs = [[write_state(k, arrays), write_state(v, arrays)] for k, v in value.items()]
        return {"dict": pairs}
    if not (hasattr(value, "merge") or hasattr(value, "merged")) or isinstance(value, type):
        return {"same": True}  # no state: a function, a model, a site
    own = hasattr(value, "state_dict")
    held = value.state_dict() if own else vars(value)
    cls = f"{type(value).__module__}:{type(value).__qualname__}"
    return {"object": cls, "own": own, "state": write_state(dict(held), arrays)["dict"]}


def read_state(tree: Any, arrays: dict[str, np.ndarray], fresh: Any = None) -> Any:
    """The value that `write_state` wrote; objects continue from ``fresh``, one of the same make.

    Raises:
        FileError: What was written is of another make.
    """
    if tree is None or isinstance(tree, bool | str):
        return tree
    try:
        (kind, *_), held = tree, next(iter(tree.values()))
        return _TAKEN[kind](tree, held, arrays, fresh)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise _other(error) from error


# --------------------------------------------------------------------------- internals


def _put(value: Any, arrays: dict[str, np.ndarray]) -> str:
    name = f"{len(arrays)}"
    if isinstance(value, torch.Tensor):
        value = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
        value = value.cpu().numpy()
    arrays[name] = np.array(value, order="C", copy=True)
    return name


def _tensor(tree: dict, held: str, arrays: dict, fresh: Any) -> torch.Tensor:
    t = torch.from_numpy(np.array(arrays[held], copy=True))
    t = t.view(torch.bfloat16) if tree.get("bfloat16") else t
    device = torch.device(str(tree["device"]))
    return t.to(device) if device.type == "cuda" and torch.cuda.is_available() else t


def _objects(tree: dict, held: list, arrays: dict, fresh: Any) -> np.ndarray:
    found = np.empty(len(held), dtype=object)
    found[:] = [read_state(v, arrays) for v in held]
    return found


def _sequence(tree: dict, held: list, arrays: dict, fresh: Any) -> Any:
    like = fresh if isinstance(fresh, tuple | list) and len(fresh) == len(held) else None
    found = [read_state(v, arrays, like[i] if like else None) for i, v in enumerate(held)]
    return tuple(found) if "tuple" in tree else found


def _dict(tree: dict, held: list, arrays: dict, fresh: Any) -> dict:
    like = fresh if isinstance(fresh, dict) else {}
    keys = [(read_state(k, arrays), v) for k, v in held]
    return {k: read_state(v, arrays, like.get(k)) for k, v in keys}


def _same(tree: dict, held: Any, arrays: dict, fresh: Any) -> Any:
    return fresh


def _object(tree: dict, held: str, arrays: dict, fresh: Any) -> Any:
    if f"{type(fresh).__module__}:{type(fresh).__qualname__}" != held:
        fresh = _class(held)
    if tree["own"]:
        state = {read_state(k, arrays): read_state(v, arrays) for k, v in tree["state"]}
        fresh.load_state_dict(state)
        return fresh
    make = fresh.make if isinstance(fresh, ByClass) else None
    for k, v in tree["state"]:
        name = str(read_state(k, arrays))
        before = getattr(fresh, name, None)
        if make is not None and name == "parts":
            made = {read_state(label, arrays): part for label, part in v["dict"]}
            value: Any = {
                label: read_state(part, arrays, (before or {}).get(label) or make())
                for label, part in made.items()
            }
        else:
            value = read_state(v, arrays, before)
        object.__setattr__(fresh, name, value)
    return fresh


def _class(name: str) -> Any:
    """An object of a class of isogon's own statistics, nothing run to make it."""
    module, _, qualname = name.partition(":")
    cls: Any = getattr(sys.modules.get(module), qualname, None)
    plain = module.startswith("isogon.") and isinstance(cls, type) and cls.__module__ == module
    if not plain or not (hasattr(cls, "merge") or hasattr(cls, "merged")):
        raise _other(name)
    return object.__new__(cls)


def _other(got: object) -> FileError:
    return FileError(
        "a share's state does not fit the measure",
        got=str(got)[:120],
        expected="what the same version of the measure wrote",
        fix="Delete the share's record and run it again.",
    )


_TAKEN: dict[str, Callable[..., Any]] = {
    "int": lambda tree, held, arrays, fresh: int(held),
    "float": lambda tree, held, arrays, fresh: float.fromhex(held),
    "tensor": _tensor,
    "array": lambda tree, held, arrays, fresh: np.array(arrays[held], copy=True),
    "objects": _objects,
    "frame": lambda tree, held, arrays, fresh: pd.DataFrame(
        {name: read_state(column, arrays) for name, column in held}
    ),
    "tuple": _sequence,
    "list": _sequence,
    "dict": _dict,
    "same": _same,
    "object": _object,
}
