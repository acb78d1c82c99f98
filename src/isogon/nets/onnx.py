"""ONNX files as modules: read without executing anything, rebuilt from PyTorch's own layers.

Layers with weights become `nn.Linear`, `nn.Conv2d`, ... under the names of their ONNX nodes, so
that sites, hooks and weights look as in any other model. Shape arithmetic (`Shape`, `Gather`,
`Concat` before a `Reshape`) is evaluated once, on a stand-in without memory; what remains acts on
any number of samples and can be traced. (Of the converters that exist, onnx2torch keeps shape
arithmetic as tensors, which `torch.export` can't follow, and onnx2pytorch takes a variable number
of arguments, which it can't either; both lose the samples' axis of files with a fixed batch.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from isogon.errors import FileError, IsogonError, ModelError, UnsupportedOp
from isogon.nets.onnx_operands import Operands
from isogon.nets.onnx_ops import OPS
from isogon.nets.onnx_samples import quiet, sample_shape
from isogon.storage import kinds, memory_limit

__all__ = ["OnnxModel", "load_onnx"]

TIMES = 4  # what the constants of a graph may unfold to, over what the file holds
FREE = 2**26  # bytes that they may have anyway
MAX_NODES = 50_000


def load_onnx(path: str | Path) -> OnnxModel:
    """The network in an ONNX file, in evaluation mode.

    Args:
        path: The file; tensors stored outside it must lie in its folder.

    Returns:
        A module from ``[N, ...]`` to the file's output (several: a dict of them by name), for any
        number of samples N, also where the file fixes it.

    Raises:
        FileError: Damaged, or it refers to data outside its folder.
        UnsupportedOp: An operator that isogon does not know.
        ModelError: Several inputs, no axis for samples, or sizes other than the number of samples
            left open.
    """
    path = Path(path)
    proto = _read(path)
    try:
        weights = {t.name: _tensor(t, path) for t in proto.graph.initializer}
        return _Builder(proto, weights, path).model()
    except IsogonError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


class OnnxModel(nn.Module):
    """A network read from an ONNX file: its nodes in order, as submodules.

    Attributes:
        shape: Shape of one input sample.
        dtype: Of its input, in the file.
        steps: Per node: name of the submodule, tensors it reads, tensors it makes.
    """

    def __init__(
        self, shape: tuple[int, ...], given: str, results: tuple[str, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.shape, self.given, self.results, self.dtype = shape, given, results, dtype
        self.steps: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """The output for inputs ``[N, *shape]``; several by their names in the file."""
        if x.is_floating_point() and not self.dtype.is_floating_point:
            raise _no_integers(self.given, self.dtype, x.dtype)
        values = {self.given: x}
        for name, reads, makes in self.steps:
            made = self._modules[name](*[values[key] for key in reads])  # type: ignore[misc]
            values.update(zip(makes, made if isinstance(made, tuple | list) else (made,)))
        found = {key: values[key] for key in self.results}
        return found[self.results[0]] if len(found) == 1 else found


def _no_integers(name: str, dtype: torch.dtype, given: torch.dtype) -> ModelError:
    wanted, got = (str(d).removeprefix("torch.") for d in (dtype, given))
    pixels = dtype == torch.uint8
    return ModelError(
        f"the ONNX network takes {'pixels of 0 to 255' if pixels else 'no real numbers'}",
        got=f"{got} for its input {name!r}",
        expected=wanted,
        fix="Export it with real inputs"
        + (" in [0, 1], which it multiplies by 255 itself" if pixels else "")
        + f", so that measures can move between them; or give batches of {wanted}.",
    )


# --------------------------------------------------------------------------- reading


def _read(path: Path) -> onnx.ModelProto:
    if path.stat().st_size > memory_limit():
        raise _damaged(path, "a file larger than memory")
    try:
        proto = onnx.load(str(path), load_external_data=False)
        if len(proto.graph.node) > MAX_NODES:
            raise _damaged(path, f"{len(proto.graph.node)} nodes, more than {MAX_NODES}")
        for output in proto.graph.output:  # the checker wants shapes that exporters may omit
            if not output.type.tensor_type.HasField("shape"):
                output.type.tensor_type.shape.SetInParent()
        apart = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        _check_external(apart, path)
        for tensor in apart:
            inside = numpy_helper.from_array(_external(tensor, path), tensor.name)
            tensor.CopyFrom(inside)
        onnx.checker.check_model(proto)
    except IsogonError:
        raise
    except Exception as error:
        told = kinds.foreign(path, "ONNX file")
        raise _damaged(path, error if told is None else told) from error
    return proto


def _damaged(path: Path, error: Exception | str) -> FileError:
    lines = str(error).strip().splitlines()
    text = lines[0][:160] if lines else type(error).__name__
    fix: str | None = "It is damaged or incomplete: export it again."
    if isinstance(error, FileError):  # of another kind
        text, fix = str(error.got), error.fix
    return FileError(
        f"not a usable ONNX file ({text})",
        got=path,
        expected="a model written by an ONNX exporter",
        fix=fix,
    )


def _tensor(proto: onnx.TensorProto, path: Path) -> Tensor:
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise _damaged(path, f"tensor {proto.name!r} is stored outside, where only weights may be")
    return torch.from_numpy(np.array(numpy_helper.to_array(proto)))  # a copy: writable, owned


def _place(proto: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, first byte and number of bytes of a tensor stored in another file."""
    facts = {entry.key: entry.value for entry in proto.external_data}
    kind = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
    length = math.prod(proto.dims) * kind.itemsize
    source = (path.resolve().parent / facts.get("location", "")).resolve()
    return source, int(facts.get("offset", 0)), length


def _check_external(tensors: Sequence[onnx.TensorProto], path: Path) -> None:
    """Refuse tensors that together are more than the files that hold them: one place, many times.

    A weight that is used twice may well stand there once.
    """
    places = [_place(t, path) for t in tensors]
    total = sum(max(length, 0) for *_, length in places)
    held = sum(source.stat().st_size for source in {p[0] for p in places} if source.is_file())
    if total > FREE + TIMES * held:
        raise _damaged(path, f"tensors of {total} bytes in files of {held}")


def _external(proto: onnx.TensorProto, path: Path) -> np.ndarray:
    """A tensor stored in another file, which must lie in the model's folder."""
    facts = {entry.key: entry.value for entry in proto.external_data}
    folder = path.resolve().parent
    source, offset, length = _place(proto, path)
    if not source.is_relative_to(folder) or not source.is_file():
        raise FileError(
            f"tensor {proto.name!r} is stored outside the model's folder or is missing",
            got=facts.get("location"),
            expected=f"a file in {folder}",
            fix="Put the data file beside the model, or export with the weights inside.",
        )
    wrong = min(offset, length) < 0 or offset + length > source.stat().st_size
    if wrong or int(facts.get("length", length)) != length:
        raise _damaged(path, f"tensor {proto.name!r}: data of another size than its shape")
    kind = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
    with source.open("rb") as file:
        file.seek(offset)
        return np.frombuffer(file.read(length), kind).reshape(tuple(proto.dims))


# --------------------------------------------------------------------------- building


class _Builder:
    """One pass over the nodes: constants are folded, the rest become submodules."""

    def __init__(self, proto: onnx.ModelProto, weights: dict[str, Tensor], path: Path) -> None:
        self.graph, self.path = proto.graph, path
        versions = {o.domain: o.version for o in proto.opset_import}
        self.version = versions.get("", versions.get("ai.onnx", 1))
        self.constants = dict(weights)
        # what may still be made: constants by what the file holds, the rest by what memory holds
        held = sum(t.numel() * t.element_size() for t in weights.values())
        self.most = (FREE + TIMES * (held + proto.ByteSize()), memory_limit())
        self.left = list(self.most)
        # constants that were made from the stand-in's number of samples
        self.tainted: set[str] = set()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.used: dict[str, int] = {}  # how often a name was wanted
        self.values: dict[str, Tensor] = {}  # stand-ins of what depends on the input
        self.given, self.sizes, self.open, self.dtype = self._input()
        self.count = self.sizes[0]
        with self.fake:
            self.values[self.given] = torch.zeros(self.sizes, dtype=self.dtype)
        results = tuple(o.name for o in self.graph.output)
        self.result = OnnxModel(tuple(self.sizes[1:]), self.given, results, self.dtype)

    def model(self) -> OnnxModel:
        for node in self.graph.node:
            self._node(node)
        for name in self.result.results:
            if name not in self.values:
                raise ModelError(
                    "an output of the ONNX model does not depend on its input", got=name
                )
        found = self.result.eval()
        found.shape = sample_shape(found, self.given, self.sizes, self.open, self.dtype)
        return found

    def _input(self) -> tuple[str, list[int], bool, torch.dtype]:
        """Name and sizes of the input, whether the number of samples is open, and its dtype."""
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise ModelError(
                "an ONNX model of several inputs",
                got=", ".join(i.name for i in inputs) or "none",
                expected="one input",
                fix="Export the model with its other inputs as constants.",
            )
        dims = inputs[0].type.tensor_type.shape.dim
        sizes = [d.dim_value for d in dims]
        if not sizes or any(n <= 0 for n in sizes[1:]):
            shown = [d.dim_param or d.dim_value for d in dims]
            raise ModelError(
                "the ONNX model leaves sizes of its input open",
                got=shown,
                expected="fixed sizes but for the samples'",
                fix="Export with only the first axis dynamic.",
            )
        if math.prod(sizes[1:]) * 4 > memory_limit():
            raise _damaged(self.path, "one input sample would not fit into memory")
        kind = onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)
        dtype = torch.from_numpy(np.zeros(0, kind)).dtype
        left_open = sizes[0] <= 0
        if left_open:  # a number that is no other size, so that it is recognised in shapes
            sizes[0] = next(p for p in (7, 11, 13, 17, 19, 23, 29, 31, 37) if p not in sizes)
        return inputs[0].name, sizes, left_open, dtype

    def _node(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        build = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if build is None:
            domain = f"{node.domain}." if node.domain else ""
            raise UnsupportedOp(
                f"no translation of the ONNX operator {domain}{node.op_type} at {node.name!r}",
                got=self.path,
                expected=f"one of {len(OPS)} known operators",
                fix="Load the network as a PyTorch model instead.",
            )
        inputs = [self._operand(name) for name in node.input]
        depends = [bool(name) and name in self.values for name in node.input]
        operands = Operands(inputs, depends, attributes, self.version, self.count, len(node.output))
        tainted = any(name in self.tainted for name in node.input)
        if node.op_type == "Shape" and any(depends):
            operands.depends, tainted = [False], True
        function = build(operands)
        whole = isinstance(function, nn.Module) and any(operands.depends)
        module = function if whole else _Call(function, operands)
        data = [x for x, d in zip(inputs, operands.depends) if d]
        with quiet(), self.fake, torch.no_grad():  # sizes first: nothing is allocated yet
            sized = _several(module.eval()(*data))
        self._spend(node, sized, constant=not data)
        if data:
            beside = node.op_type == "Concat" and attributes.get("axis", 0) != 0
            if (tainted or beside) and isinstance(module, _Call):
                module.follow_samples(self.count)
            name = self._module_name(node)
            self.result.add_module(name, module)
            reads = tuple(n for n, d in zip(node.input, operands.depends) if d)
            self.result.steps.append((name, reads, tuple(node.output[: len(sized)])))
            self.values.update(zip(node.output, sized))
            return
        with torch.no_grad():
            made = _several(module())
        for key, value in zip(node.output, made):
            self.constants[key] = value
            if tainted:
                self.tainted.add(key)

    def _spend(self, node: onnx.NodeProto, made: Sequence[Tensor], *, constant: bool) -> None:
        """Count what a node makes (of data: per sample), before it makes it."""
        size = sum(v.numel() * v.element_size() for v in made)
        kind = 0 if constant else 1
        self.left[kind] -= size if constant else -(-size // max(self.count, 1))
        if self.left[kind] < 0:
            what = "constants" if constant else "values for one sample"
            raise _damaged(
                self.path,
                f"{node.op_type} {node.name!r}: {what} of more than {self.most[kind]} bytes",
            )

    def _operand(self, name: str) -> Tensor | None:
        if not name:
            return None
        found = self.values.get(name, self.constants.get(name))
        if found is None:
            raise _damaged(self.path, f"no node makes the tensor {name!r}")
        return found

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        if attribute.type == onnx.AttributeProto.TENSOR:
            return _tensor(attribute.t, self.path)
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise UnsupportedOp(
                "ONNX control flow (If, Loop, Scan)",
                got=self.path,
                expected="a graph without branches",
            )
        value = onnx.helper.get_attribute_value(attribute)
        return value.decode() if isinstance(value, bytes) else value

    def _module_name(self, node: onnx.NodeProto) -> str:
        words = node.name.strip("/") or (node.output[0] if node.output else node.op_type)
        base = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_") or node.op_type
        name = base = f"{node.op_type}_{base}" if base[0].isdigit() else base
        while name in self.result._modules or hasattr(self.result, name):
            self.used[base] = self.used.get(base, 1) + 1
            name = f"{base}_{self.used[base]}"
        return name


def _several(made: Any) -> Sequence[Tensor]:
    return made if isinstance(made, tuple | list) else (made,)


class _Call(nn.Module):
    """A function of the tensors that depend on the input, with constants in their places."""

    def __init__(self, function: Callable[..., Any], operands: Operands) -> None:
        super().__init__()
        self.function = function
        self.slots: list[str | None] = []
        for i, (value, depends) in enumerate(zip(operands.inputs, operands.depends)):
            if depends or value is None or i in operands.static:
                self.slots.append("" if depends else None)
            else:
                self.register_buffer(f"constant{i}", value)
                self.slots.append(f"constant{i}")
        self.per_sample: set[str] = set()

    def follow_samples(self, count: int) -> None:
        """Let constants that hold one equal row per sample follow the number of samples."""
        for name, value in list(self._buffers.items()):
            if value is None or value.ndim < 2 or len(value) != count:
                continue
            if bool((value == value[:1]).all()):
                self._buffers[name] = value[:1].clone()
                self.per_sample.add(name)

    def forward(self, *data: Tensor) -> Any:
        rest, arguments = iter(data), []
        for slot in self.slots:
            if not slot:
                arguments.append(next(rest) if slot == "" else None)
            else:
                value = self._buffers[slot]
                if slot in self.per_sample and value is not None:
                    value = value.expand(data[0].shape[0], *value.shape[1:])
                arguments.append(value)
        return self.function(*arguments)
