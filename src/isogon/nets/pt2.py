"""Exported programs (``.pt2``), read without executing what they may contain.

`torch.export.load` trusts its file: weights may be pickles, symbolic sizes are evaluated as Python
(`sympy.sympify`), guards are compiled, names end up in generated source, and an operator may be
any attribute of ``torch``. So the archive is read here first: everything in it must be of a known
kind and harmless, and only a fresh archive of the parts that were checked is handed to torch.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from isogon.errors import FileError, ModelError
from isogon.nets.outputs import output_tensor
from isogon.nets.weights import existing
from isogon.storage import kinds, memory_limit
from isogon.storage.saved import check_saved

_NAME = re.compile(r"[\w.+\-]*", re.ASCII)
_TARGET = re.compile(
    r"torch\.ops\.(aten|torchvision)\.\w+\.\w+|_operator\.\w+|math\.\w+"
    r"|torch\.(sym_\w+|_sym_sqrt|ops\.aten\.sym_\w+(\.\w+)?)",
    re.ASCII,
)
_FILE_OPS = ("from_file", "print", "save", "load")  # of the ATen operators, those with a side
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_EXPRESSION = re.compile(r"(?:[\w\s()+\-*/%,<>=!&|~]|'[a-z]+\d+')*", re.ASCII)
_FUNCTIONS = {
    "Symbol",
    "Integer",
    "Float",
    "Rational",
    "Add",
    "Mul",
    "Pow",
    "Max",
    "Min",
    "Abs",
    "Eq",
    "Ne",
    "Equality",
    "Unequality",
    "Lt",
    "Le",
    "Gt",
    "Ge",
    "LessThan",
    "GreaterThan",
    "StrictLessThan",
    "StrictGreaterThan",
    "And",
    "Or",
    "Not",
    "FloorDiv",
    "ModularIndexing",
    "Where",
    "PythonMod",
    "Mod",
    "CleanDiv",
    "CeilToInt",
    "FloorToInt",
    "CeilDiv",
    "LShift",
    "RShift",
    "PowByNatural",
    "FloatPow",
    "FloatTrueDiv",
    "IntTrueDiv",
    "ToFloat",
    "TruncToInt",
    "RoundToInt",
    "Identity",
    "positive",
    "integer",
    "nonnegative",
    "true",
    "false",
    "True",
    "False",
    "oo",
    "int_oo",
}
_POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
MAX_EXPRESSION = 1000  # characters of one symbolic size
_SYMBOL = re.compile(r"(s|u|zuf|zf|n)\d+", re.ASCII)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def load_pt2(path: str | Path) -> nn.Module:
    """The module in a file of `torch.export.save`, as a graph of ATen operations.

    Args:
        path: A ``.pt2`` file.

    Returns:
        A module with the program's parameters and buffers; its run-time guards are left out.

    Raises:
        FileError: Damaged, or it holds anything but tensors and known operations.
        ModelError: It has several inputs, or was exported for one number of samples.
    """
    path = existing(path)
    archive = _checked(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(archive).module()
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {error}".split("\n")[0][:160]) from error
    graph = fx.Graph()
    copied = graph.graph_copy(module.graph, val_map := {})
    graph.output(copied)
    graph._codegen = module.graph._codegen
    for node in val_map.values():
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
    program = fx.GraphModule(module, graph, type(module).__name__)
    for name, tensor in program.state_dict().items():  # an axis of stride 0 costs no bytes
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _damaged(path, f"tensor {name!r} larger than its bytes")
    _check_batch(program, path)
    return program


class _Sizes(fx.Interpreter):
    """Runs a program on stand-ins without memory, and adds up what it would make."""

    made = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.made += value.numel() * value.element_size()
        if self.made > memory_limit():
            raise MemoryError
        return result


def _sized(program: fx.GraphModule, shape: list[int], dtype: torch.dtype, path: Path) -> bool:
    """Whether a program runs on an input of a shape, by its stand-in.

    Raises:
        ModelError: It would make more than memory holds.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            _Sizes(program).run(torch.zeros(shape, dtype=dtype))
    except MemoryError:
        raise ModelError(
            "the exported program makes more than memory holds",
            got=f"an input of shape {shape} in {path}",
            expected=f"at most {memory_limit()} bytes",
            fix="Don't use this file, or use a machine with more memory.",
        ) from None
    except Exception:  # what it can't do on stand-ins, or on so many samples
        return False
    return True


def _check_batch(program: fx.GraphModule, path: Path) -> None:
    """Refuse a program of several inputs, or one that holds for one number of samples only."""
    given = [n for n in program.graph.nodes if n.op == "placeholder"]
    value = given[0].meta.get("val") if len(given) == 1 else None
    if len(given) != 1 or (value is not None and not value.dim()):
        raise ModelError(
            "the exported program is not a model of one batch",
            got=f"{len(given)} inputs in {path}",
            expected="one tensor [N, ...]",
            fix="Wrap the model in a module of one input before exporting it.",
        )
    if value is None or not isinstance(value.shape[0], int):
        if value is not None:
            shape = [n if isinstance(n, int) else 2 for n in value.shape]
            _sized(program, shape, value.dtype, path)
        return
    more = value.shape[0] + 1  # exported at one number of samples: does it hold for others?
    shape = [more, *value.shape[1:]]
    try:
        if not _sized(program, shape, value.dtype, path):
            raise ValueError
        with torch.no_grad():
            rows = len(output_tensor(program(torch.zeros(shape, dtype=value.dtype))))
    except ModelError:
        raise
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
        rows = -1
    if rows != more:
        raise ModelError(
            "the exported program holds for one number of samples only",
            got=f"a batch of {value.shape[0]} in {path}",
            expected="any number of samples",
            fix="Export it with dynamic_shapes=({0: torch.export.Dim('batch')},).",
        )


def _checked(path: Path) -> io.BytesIO:
    """A copy of the archive that holds only what was checked."""
    if path.stat().st_size > memory_limit():
        raise _damaged(path, "a file larger than memory", "one that fits")
    check_saved(path, kinds.PROGRAM_FILE)
    fresh = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(fresh, "w") as out:
            entries = archive.infolist()
            names = [e.filename for e in entries]
            if len(set(names)) != len(names) or len({n.partition("/")[0] for n in names}) != 1:
                raise _refused(path, "an archive with two entries of one name")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise _refused(path, f"compressed entry {entry.filename}")
                name = entry.filename.partition("/")[2]
                if name.startswith("extra/"):  # the user's own remarks: not read
                    continue
                out.writestr(entry.filename, _entry(path, name, archive.read(entry)))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        told = kinds.foreign(path, kinds.PROGRAM_FILE)
        raise told or _damaged(path, str(error).split("\n")[0][:120]) from error
    fresh.seek(0)
    return fresh


def _entry(path: Path, name: str, data: bytes) -> bytes:
    """The bytes of one entry, if they can't run anything."""
    if re.fullmatch(r"data/weights/weight_\d+|data/constants/tensor_\d+", name):
        return data  # raw numbers: that their index does not call them pickles is checked there
    if name in ("archive_format", "archive_version", "version", "byteorder") or (
        name.startswith(".data/") and len(data) < 1000
    ):
        return data
    if name.endswith(".pt") and (name.startswith("data/") or name.startswith("serialized_")):
        return _tensors_only(path, name, data)
    if name.endswith(".json") and (
        name.startswith(("data/weights/", "data/constants/", "models/", "serialized_"))
    ):
        try:
            found = json.loads(data)
            return json.dumps(_walk(path, found)).encode()
        except (ValueError, RecursionError) as error:
            if isinstance(error, FileError):
                raise
            raise _damaged(path, f"{name}: {error}"[:120]) from error
    raise _refused(path, f"entry {name!r}")


def _tensors_only(path: Path, name: str, data: bytes) -> bytes:
    if not data:
        return data
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refused(path, f"a pickle that does more than hold tensors ({name})") from error
    return data


def _walk(path: Path, value: Any, key: str = "") -> Any:
    """A JSON value with every text in it checked; guards and remarks are dropped."""
    if isinstance(value, dict):
        if value.get("use_pickle"):
            raise _refused(path, "pickled weights")
        kept = {}
        for k, v in value.items():
            if not _NAME.fullmatch(k):
                raise _refused(path, f"name {k!r}")
            kept[k] = {} if k == "metadata" else [] if k == "guards_code" else _walk(path, v, k)
        return kept
    if isinstance(value, list):
        return [_walk(path, v, key) for v in value]
    if isinstance(value, str) and not _harmless(key, value):
        raise _refused(path, f"{key} {value[:80]!r}")
    return value


def _harmless(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        side = text.startswith("torch.ops.") and text.split(".")[3].strip("_") in _FILE_OPS
        return bool(_TARGET.fullmatch(text)) and not side
    if key == "expr_str":
        words = set(_WORD.findall(text)) - _FUNCTIONS
        known = _EXPRESSION.fullmatch(text) and all(map(_SYMBOL.fullmatch, words))
        return bool(known) and _small(text)
    if key in ("in_spec", "out_spec"):
        return not text or _harmless_spec(json.loads(text))
    if key == "path_name":
        return bool(re.fullmatch(r"(weight|tensor)_\d+", text))
    return bool(_NAME.fullmatch(text))


def _small(text: str) -> bool:
    """Whether a symbolic size is quick to evaluate: short, shallow, of small numbers and powers."""
    if len(text) > MAX_EXPRESSION:
        return False
    try:
        tree = ast.parse(text.strip() or "0", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    grown = 1
    for node in ast.walk(tree):
        number = node.value if isinstance(node, ast.Constant) else 0
        if isinstance(number, int | float) and not abs(number) < 2**63:
            return False
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift | ast.RShift):
            powers: list[Any] = [node.right]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _POWERS:
            powers = node.args[1:]
        else:
            continue
        # an exponent is a small number that is written down; towers of them multiply
        for power in powers:
            if isinstance(power, ast.Call) and len(power.args) == 1 and not power.keywords:
                power = power.args[0]
            value = getattr(power, "value", None)
            if isinstance(power, ast.UnaryOp) and isinstance(power.operand, ast.Constant):
                value = power.operand.value
            if type(value) is not int or not -8 <= value <= 8:
                return False
            grown *= max(1, abs(value))
    return grown <= 64


def _harmless_spec(spec: Any) -> bool:
    """Whether the layout of inputs or outputs is of plain containers with plain keys."""
    if isinstance(spec, list):
        return all(map(_harmless_spec, spec))
    if not isinstance(spec, dict):
        return isinstance(spec, int)
    context = spec.get("context")
    keys = json.loads(context) if isinstance(context, str) else context
    plain = keys is None or (
        isinstance(keys, list) and all(isinstance(k, str) and _NAME.fullmatch(k) for k in keys)
    )
    children = spec.get("children_spec", [])
    return plain and spec.get("type") in _CONTAINERS and _harmless_spec(children)


def _refused(path: Path, got: str) -> FileError:
    return FileError(
        "the exported program holds something that could execute code",
        got=f"{got} in {path}",
        expected="tensors and ATen operations",
        fix="Export it again with torch.export.export and torch.export.save.",
    )


def _damaged(path: Path, got: str, expected: str = "a file of torch.export.save") -> FileError:
    return FileError(
        "the exported program can't be read",
        got=f"{got} in {path}",
        expected=expected,
        fix="Export it again with torch.export.save.",
    )
