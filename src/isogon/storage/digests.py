"""What a thing holds, in one word: digests of bytes, files, arrays, models and objects.

A name that stands for content (a cached model, a record, a resumed run, a decoded data set) is
a digest of *all* of it, and every one of them is made here. Equal digests mean equal content;
equal content that is kept in another form (pixels as uint8 or as floats) may have another one.

Files are read once: what was hashed is remembered by path, size, times of change and inode, for
this process and, where it took a while, in a small file of its own under the cache root.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from typing import Any

from isogon.storage import modules

PLAIN = (type(None), bool, int, float, complex, str, bytes)
# What a module's ``__dict__`` holds beside what it computes with.
_RUNNING = re.compile(
    r"training|_.*hooks.*|_compiled_call_impl|_is_full_backward_hook|call_super_init"
)


class Digest:
    """SHA-256 of a sequence of parts; where one ends and the next begins counts too.

    Args:
        *parts: Plain values, bytes, arrays, tensors, models, functions, containers of these,
            and objects: by their own ``digest()``, else by class and attributes.
    """

    def __init__(self, *parts: Any) -> None:
        self._hash = hashlib.sha256()
        self._open: list[int] = []  # objects that are being taken apart: they may hold themselves
        self.add(*parts)

    def add(self, *parts: Any) -> Digest:
        """Take in further parts."""
        for part in parts:
            self._part(part)
        return self

    def stream(self, array: Any) -> Digest:
        """Take in the bytes of an array alone: its rows may come in any number of pieces."""
        self._bytes(array)
        return self

    def hex(self) -> str:
        """The digest so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------------ one part

    def _mark(self, kind: str, *facts: Any) -> None:
        self._hash.update(f"\0{kind}\0{facts!r}\0".encode("utf-8", "surrogatepass"))

    def _part(self, x: Any) -> None:
        if isinstance(x, bytes | bytearray | memoryview):
            self._mark("bytes", len(x))
            self._hash.update(x)
        elif type(x) in PLAIN:
            self._mark(type(x).__name__, x)
        elif _is_tensor(x) or _is_array(x):
            self._mark("array", str(x.dtype), tuple(map(int, x.shape)))
            self._bytes(x)
        elif id(x) in self._open:
            self._mark("again", self._open.index(id(x)))
        else:
            self._open.append(id(x))
            self._compound(x)
            self._open.pop()

    def _compound(self, x: Any) -> None:
        if _is_module(x):
            self._module(x)
        elif hasattr(type(x), "digest") and _is_ours(type(x)):
            self._mark("own", x.digest())
        elif isinstance(x, Mapping):
            self._mark("mapping", len(x))
            for key in sorted(x, key=lambda k: (type(k).__name__, repr(k))):
                self.add(key, x[key])
        elif isinstance(x, Set):
            self._mark("set", sorted(Digest(v).hex() for v in x))
        elif isinstance(x, Sequence) and not isinstance(x, str):
            self._mark("sequence", type(x).__name__, len(x))
            self.add(*x)
        elif isinstance(x, type | types.ModuleType):
            self._mark("name", getattr(x, "__module__", ""), getattr(x, "__qualname__", str(x)))
        elif isinstance(x, partial):
            self.add("partial", x.func, x.args, x.keywords)
        elif isinstance(x, types.MethodType):
            self.add("method", x.__func__, x.__self__)
        elif callable(x) and hasattr(x, "__qualname__"):
            self._function(x)
        else:
            self._object(x)

    def _module(self, model: Any) -> None:
        """A network: what it is made of, how it is set, its weights, the source of its code."""
        self._mark("network")
        code: dict[str, str] = {}
        for name, part in model.named_modules():
            kind = type(part)
            if kind.__module__ not in code:
                code[kind.__module__] = modules.code(kind.__module__)
            self.add(name, kind, code[kind.__module__])
            if isinstance(text := getattr(part, "code", None), str):  # of a traced graph
                self.add(text)
            for key, value in sorted(vars(part).items()):
                if key in ("_parameters", "_buffers"):
                    self.add(key, {k: v for k, v in value.items() if v is not None})
                elif key != "_modules" and not _RUNNING.fullmatch(key) and _describable(value):
                    self.add(key, value)

    def _function(self, f: Any) -> None:
        """A function: its name, source, defaults and what it closes over."""
        f = getattr(f, "py_func", f)  # compiled by numba
        module = getattr(f, "__module__", None) or ""
        self.add("function", module, f.__qualname__, modules.code(module))
        code = getattr(f, "__code__", None)
        if code is not None and "<" in f.__qualname__:  # a lambda, a function within another
            self.add(code.co_code, [c for c in code.co_consts if type(c) in PLAIN], code.co_names)
        cells = []
        for cell in getattr(f, "__closure__", None) or ():
            with suppress(ValueError):  # not bound yet
                cells.append(cell.cell_contents)
        self.add(getattr(f, "__defaults__", None), getattr(f, "__kwdefaults__", None), cells)

    def _object(self, x: Any) -> None:
        kind = type(x)
        self._mark("object", kind.__module__, kind.__qualname__)
        if isinstance(x, os.PathLike):
            self.add(os.fspath(x))
            return
        if kind.__module__.split(".")[0] in (*sys.stdlib_module_names, "torch", "numpy"):
            text = repr(x)
            self.add("" if " at 0x" in text or " object" in text else text)
            return
        self.add(modules.code(kind.__module__))
        held = dict(getattr(x, "__dict__", {}))
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(x, name):
                    held[name] = getattr(x, name)
        if not held:
            with suppress(Exception):  # pickling runs the object's own code
                self.add(pickle.dumps(x, protocol=4))
        self.add(held)

    def _bytes(self, x: Any) -> None:
        """The values in row-major order, without a copy where they lie so."""
        import numpy as np

        if _is_tensor(x):
            import torch

            x = x.detach()
            x = x.to_dense() if x.layout != torch.strided else x
            x = (x.dequantize() if x.is_quantized else x).cpu().contiguous().resolve_conj()
            x = x.reshape(-1).view(torch.uint8).numpy() if x.numel() else np.empty(0, np.uint8)
        array: Any = np.ascontiguousarray(x)
        if array.dtype.hasobject:
            self.add(array.tolist())
        elif array.size:
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            self._hash.update(memoryview(array.reshape(-1).view(np.uint8)))


def of(*parts: Any) -> str:
    """Digest of parts, see `Digest`."""
    return Digest(*parts).hex()


def batches(found: Iterable[tuple[Any, Any]], *facts: Any) -> str:
    """Digest of labelled data that is read batch by batch, wherever the batches are cut.

    Args:
        found: Batches ``(x [n, ...], y [n, ...])``.
        *facts: What else belongs to the data, e.g. the names of its classes.
    """
    inputs, labels = Digest(), Digest()
    count, kinds = 0, None
    for x, y in found:
        here = (str(x.dtype), tuple(x.shape[1:]), str(y.dtype), tuple(y.shape[1:]))
        if here != kinds:
            kinds = here
            inputs.add(count, kinds)
        inputs.stream(x)
        labels.stream(y)
        count += len(x)
    return Digest("batches", count, inputs.hex(), labels.hex(), *facts).hex()


def _is_ours(kind: type) -> bool:
    return any(base.__module__.startswith("isogon.") for base in kind.__mro__)


def _is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _is_array(x: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, numpy.ndarray | numpy.generic)


def _is_module(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.nn.Module)


def _describable(value: Any, depth: int = 0) -> bool:
    """Whether an attribute of a network says how it computes: values, functions, networks.

    Other objects (locks, loggers, graphs) may differ from process to process.
    """
    if type(value) in PLAIN or _is_tensor(value) or _is_array(value) or _is_module(value):
        return True
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, Sequence | Set):
        return depth < 4 and all(_describable(v, depth + 1) for v in value)
    return isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | partial) or (
        type(value).__module__ == "torch" and not callable(value)
    )
