"""Where weights stand in the files that others write.

A file of ``torch.save`` is read without running code: only tensors, numbers, text, lists and
dictionaries come out of it. A few classes that stand beside weights in many files (numbers of
NumPy, ``argparse.Namespace``, paths) are replaced by an object that holds nothing and does
nothing (`Inert`); any other class is refused by its name.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogon import storage
from isogon.errors import FileError
from isogon.storage import kinds
from isogon.storage.saved import check_saved

INDEX = ".index.json"  # of weights in several files
MAX_SHARDS = 1000
# Names under which one state dict stands among other things, most telling first.
NAMES = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network"),
    *("module", "params", "weights"),
)
# Averages of a model's weights that stand beside them.
AVERAGES = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "swa", "averaged")
# What stands among the tensors of a flat file and is no weight.
EXTRAS = (
    *("epoch", "epochs", "step", "global_step", "iteration", "iter", "n_averaged", "num_updates"),
    *("lr", "loss", "acc", "acc1", "accuracy", "best_acc", "best_acc1", "best_prec1", "best_loss"),
    *("arch", "version", "seed", "total_ops", "total_params"),
)
MAX_DEPTH = 4
_INERT = (
    *(f"numpy.{c}.multiarray.{n}" for c in ("core", "_core") for n in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace"),
    *(f"numpy.dtypes.{n}DType" for n in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    *(f"pathlib.{n}" for n in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"pathlib._local.{n}" for n in ("Path", "PosixPath", "WindowsPath")),
)


class Inert:
    """Stands for an object of a file that is not wanted: keeps nothing, does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> Inert:
        """Whatever the arguments."""
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def read_saved(path: Path) -> Any:
    """What ``torch.save`` put into a file: tensors and plain values.

    Raises:
        FileError: Unreadable, or it holds objects of classes whose code would have to be run;
            they are named.
    """
    check_saved(path, kinds.SAVED)
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(Inert, name) for name in _INERT]),
        ):
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            warnings.filterwarnings("ignore", "Validating sparse tensor invariants")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        classes = _classes(path, text)
        refused = bool(classes) or "weights_only" in text or "Unsupported" in text
        detail = text.strip().split("\n")[0]
        if not refused:
            raise kinds.foreign(path, kinds.SAVED) or FileError(
                f"the file can't be read ({detail[:120]})",
                got=path,
                expected="a state dict of tensors",
                fix="Save it again with torch.save(model.state_dict(), path) or as .safetensors.",
            ) from error
        raise FileError(
            "the file holds more than weights and would execute code",
            got=f"{path} with {', '.join(classes) or detail[:120]}",
            expected="tensors, numbers and text by name",
            fix="Where you trust it, and its code is installed, save the weights alone: load it "
            "with torch.load(path, weights_only=False), then torch.save(model.state_dict(), path)"
            " of the model, or torch.save(found['state_dict'], path), whichever it is.",
        ) from error


def _classes(path: Path, text: str) -> list[str]:
    """The classes that a file wants and that are not read."""
    found = re.findall(r"GLOBAL (\S+?)[,.]? (?:was|whose)", text)
    with suppress(Exception):  # a file of the old format: what the reader stumbled over is known
        found += torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [n for n in dict.fromkeys(found) if n not in _INERT][:6]


def state_in(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds, and a warning where there was a choice.

    It is the whole; or stands under one of `NAMES`; or is the only dictionary of tensors.

    Raises:
        FileError: None, or several; all are named.
    """
    where: list[str] = []
    for _ in range(MAX_DEPTH):
        if not isinstance(found, dict) or not found:
            break
        if any(isinstance(v, Tensor) for v in found.values()):
            return _tensors(found, path, where)
        inner = [str(k) for k, v in found.items() if _holds_weights(v)]
        known = [n for n in NAMES if n in inner]
        name = known[0] if known else inner[0] if len(inner) == 1 else None
        if name is None:
            if not inner:
                break
            raise FileError(
                "the file holds several models",
                got=f"{path}: weights under {', '.join(inner[:8])}",
                expected=f"one, or one under {', '.join(NAMES[:6])}",
                fix="Save the one that is wanted alone: torch.save(torch.load(path)[name], path).",
            )
        averages = [n for n in inner if n in AVERAGES and n != name]
        if averages:
            _say(path, f"{name!r} was read; {', '.join(averages)} stands beside it")
        elif name not in NAMES:
            _say(path, f"read from {name!r}, the only weights in it")
        where.append(name)
        found = found[name]
    raise FileError(
        "no weights in the file",
        got=f"{path} with {_described(found)}",
        expected="a state dict of tensors by name",
        fix="Save model.state_dict(); arrays of NumPy as tensors, by torch.from_numpy.",
    )


def _holds_weights(value: Any, depth: int = 0) -> bool:
    """Whether a value is a dictionary of tensors by name, or holds nothing but one."""
    if not isinstance(value, dict) or not value or not all(isinstance(k, str) for k in value):
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return True
    named = [v for k, v in value.items() if k in NAMES]
    return depth < MAX_DEPTH and any(_holds_weights(v, depth + 1) for v in named)


def _tensors(found: dict, path: Path, where: list[str]) -> dict[str, Tensor]:
    """A dictionary's tensors; what is none must be known."""
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    rest = {str(k): v for k, v in found.items() if not isinstance(v, Tensor)}
    dropped = [k for k, v in rest.items() if _is_extra(k, v)]
    left = [k for k in rest if k not in dropped]
    if left:
        raise FileError(
            "the file holds more than a state dict",
            got=f"{', '.join(f'{k} ({_kind(rest[k])})' for k in left[:5])} among the "
            f"tensors of {path}{''.join(f'[{w!r}]' for w in where)}",
            expected="tensors by name",
            fix="Save model.state_dict() alone.",
        )
    if dropped:
        _say(path, f"{', '.join(dropped[:5])} left out")
    return tensors


def _is_extra(name: str, value: Any) -> bool:
    """Whether a value among tensors is one of those that are known to be no weights."""
    last = name.rsplit(".", 1)[-1]
    if last == "_extra_state":
        return value is None
    plain = value is None or isinstance(value, bool | int | float | str | Inert)
    return plain and last in EXTRAS


def aliased(state: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Tensor]:
    """A state with the names that ``safetensors.torch.save_model`` left out.

    It writes tensors that share their memory once, and the other names into the metadata.
    """
    found = dict(state)
    for name, kept in metadata.items():
        if kept in state and name not in state:
            found[name] = state[kept]
    return found


def shards(path: Path) -> list[Path]:
    """The files that an index of weights in several files names.

    Raises:
        FileError: Not such an index, or files that are not beside it.
    """
    index = storage.read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise FileError(
            "not an index of weights",
            got=path,
            expected='a JSON object with "weight_map": {tensor: file}',
        )
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise FileError(
                "the index names a file in another folder",
                got=repr(name),
                expected="files beside it",
                fix="Don't use this file: it was damaged or made to do harm.",
            )
    if not 1 <= len(files) <= MAX_SHARDS:
        raise FileError(
            "not an index of weights", got=f"{len(files)} files", expected=f"1 to {MAX_SHARDS}"
        )
    return [path.parent / name for name in files]


def check_index(path: Path, parts: dict[Path, dict[str, Tensor]]) -> None:
    """Refuse shards that do not hold what their index says.

    Raises:
        FileError: A tensor is missing, in another file, or not in the index.
    """
    said = {k: path.parent / v for k, v in storage.read_json(path)["weight_map"].items()}
    held = {name: part for part, tensors in parts.items() for name in tensors}
    wrong = [k for k in {**said, **held} if said.get(k) != held.get(k)]
    if wrong:
        raise FileError(
            "the files of the weights do not hold what their index says",
            got=", ".join(wrong[:5]),
            expected=f"the tensors of {path.name}, each in its file",
            fix="Fetch all files again.",
        )


def _described(found: Any) -> str:
    if isinstance(found, dict):
        names = [f"{k} ({_kind(v)})" for k, v in list(found.items())[:6]]
        return ", ".join(names) or "nothing"
    return f"a {type(found).__name__}"


def _kind(value: Any) -> str:
    return "an object that is not read" if isinstance(value, Inert) else type(value).__name__


def _say(path: Path, text: str) -> None:
    warnings.warn(f"weights of {path}: {text}", UserWarning, stacklevel=3)
