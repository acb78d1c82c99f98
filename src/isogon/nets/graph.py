"""A model as a graph of ATen operations, and how an exported program becomes one.

`isogon.nets.trace` makes the graphs; here in-place operations are rewritten, parameters become
attributes, and nodes get the names of the modules that made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from isogon.errors import ModelError

UNKNOWN = -2  # a size that depends on the values of a tensor


@dataclass(frozen=True)
class Place:
    """Which call made a node: ``layer1.0.relu``, ``layer1.0.relu:1``, ``layer1.0:add#0``.

    Args:
        path: The module's path; for an operation that a module's own ``forward`` calls (and not
            one of PyTorch's layers), ``<owner>:<operation>#<k>``, its k-th in one call.
        call: Index of the call of that module (0 is the first).
        op: The layer's type (``ReLU``) or the operation (``relu``).
        functional: Whether it is an operation rather than one of PyTorch's layers.
    """

    path: str
    call: int
    op: str
    functional: bool = False

    @property
    def name(self) -> str:
        """The path, with ``:call`` from the second call on."""
        return self.path if not self.call else f"{self.path}:{self.call}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Graph:
    """A model as ATen operations.

    Args:
        module: From the input to the output(s); its parameters and buffers are the model's own
            tensors. Nodes carry ``place(node)`` and ``shape(node)``.
        input: The placeholder of the input.
        outputs: The nodes that are returned, flattened.
    """

    module: fx.GraphModule
    input: fx.Node = field(repr=False)
    outputs: tuple[fx.Node, ...] = field(repr=False)

    @property
    def nodes(self) -> list[fx.Node]:
        """The operations in the order in which they run."""
        return [n for n in self.module.graph.nodes if n.op == "call_function"]

    def tensor(self, node: fx.Node) -> Tensor:
        """The parameter, buffer or constant that a ``get_attr`` node stands for."""
        found: Any = self.module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found


def place(node: fx.Node) -> Place:
    """Which call of which module made ``node``."""
    return node.meta["place"]


def shape(node: fx.Node) -> tuple[int | None, ...]:
    """Shape of a node's value: None for the number of samples, -1 where it enters otherwise.

    `UNKNOWN` stands for a size that depends on values (what a mask keeps). Nodes that are no
    tensors (a size, a tuple of tensors) have the shape ``()``.
    """
    return node.meta["shape"]


def traced(model: nn.Module, sizes: tuple[int, ...]) -> Graph | None:
    """The graph of a module that was made from a graph for samples of these sizes, or None."""
    if not isinstance(model, fx.GraphModule):
        return None
    nodes = list(model.graph.nodes)
    inputs = [n for n in nodes if n.op == "placeholder"]
    if len(inputs) != 1 or any("place" not in n.meta for n in nodes if n.op != "output"):
        return None
    returned = nodes[-1].args[0]
    outputs = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    if shape(inputs[0])[1:] != sizes or not all(isinstance(n, fx.Node) for n in outputs):
        return None
    return Graph(model, inputs[0], outputs)


# --------------------------------------------------------------------------- making one

# operations that may return their input itself without saying so in their schema
_MAY_ALIAS = {"dropout", "feature_dropout", "alpha_dropout", "to", "type_as"}


class _Entangled(Exception):
    """A tensor is changed in place while another view of it is still to be read."""


def functional(program: torch.export.ExportedProgram, model: nn.Module) -> Graph:
    """The graph of an exported program of ``model``."""
    try:
        return _graph(program, _Places(model))
    except _Entangled:  # rare, and a second of work: views written into, such as x[:, 0] = 0
        return _graph(program.run_decompositions({}), _Places(model))


def _graph(program: torch.export.ExportedProgram, places: _Places) -> Graph:
    """The program with parameters as attributes and no operation in place."""
    signature = program.graph_signature
    tensors: dict[str, str] = {
        spec.arg.name: str(spec.target)
        for spec in signature.input_specs
        if spec.kind is not torch.export.graph_signature.InputKind.USER_INPUT
    }
    held: dict[str, Any] = {**program.constants, **program.state_dict}
    graph, root = fx.Graph(), nn.Module()
    children = dict(program.graph_module.named_children())
    copies: dict[fx.Node, fx.Node] = {}
    latest: dict[fx.Node, fx.Node] = {}  # a tensor changed in place -> the node of its new value
    given = None
    aliases = _Aliases(program.graph)

    def current(node: fx.Node) -> fx.Node:
        while node in latest:
            node = latest[node]
        return copies[node]

    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in tensors:
            path = tensors[node.name]
            if not isinstance(held.get(path), Tensor):
                raise ModelError(
                    "the model's forward uses an object that is no tensor",
                    got=f"{type(held.get(path)).__name__} at {path!r}",
                    expected="tensors only",
                    fix="Draw random numbers or look things up outside forward.",
                )
            _bind(root, path, held[path])
            copies[node] = graph.get_attr(path)
        elif node.op == "output":
            results = [n for n in node.args[0] if n.name in signature.user_outputs]
            break
        elif node.op == "get_attr" and isinstance(children.get(str(node.target)), nn.Module):
            raise ModelError(
                "the model can't be traced into one flat graph",
                got=f"a sub-graph at {places.of(node)}",
                expected="no autocast, enable_grad, cond or checkpoint inside forward",
                fix="Move it out of forward: around the call of the model.",
            )
        elif _is_check(node):
            continue
        else:
            copies[node] = graph.node_copy(node, current)
            if node.op == "placeholder":
                given = copies[node]
            twin = _out_of_place(node)
            if twin is not None:
                copies[node].target = twin
                aliases.written(node)
                latest[_target(node)] = node
        copies[node].meta = {"place": places.of(node), "shape": _shape(node)}
    outputs = tuple(current(n) for n in results)
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    graph.eliminate_dead_code()
    assert given is not None
    return Graph(fx.GraphModule(root, graph), given, outputs)


class _Aliases:
    """Which nodes share memory, and which of them are read after a given one."""

    def __init__(self, graph: fx.Graph) -> None:
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.groups: dict[fx.Node, set[fx.Node]] = {}
        for node in graph.nodes:
            self.groups[node] = {node}
            source = next((a for a in node.args if isinstance(a, fx.Node)), None)
            if source is not None and _shares_memory(node):
                self.groups[source].add(node)
                self.groups[node] = self.groups[source]

    def written(self, node: fx.Node) -> None:
        """Check that after ``node`` its target is read under the target's own name only."""
        target, now = _target(node), self.order[node]
        known = {node, target}
        while _out_of_place(target) is not None:  # earlier names of the very same tensor
            target = _target(target)
            known.add(target)
        for other in self.groups[target] - known:
            if self.order[other] < now and any(self.order[user] > now for user in other.users):
                raise _Entangled


def _target(node: fx.Node) -> fx.Node:
    """What an in-place operation changes."""
    (target,) = (a for a in node.args[:1] if isinstance(a, fx.Node))
    return target


def _schema(node: fx.Node):
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _shares_memory(node: fx.Node) -> bool:
    schema = _schema(node)
    if schema is None:
        return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    return schema.name.split("::")[-1] in _MAY_ALIAS or any(
        r.alias_info is not None for r in schema.returns
    )


def _out_of_place(node: fx.Node):
    """The twin of an in-place operation that makes a new tensor; None for other nodes."""
    schema = _schema(node)
    if schema is None or not schema.is_mutable:
        return None
    space, name = schema.name.split("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or schema.overload_name not in _overloads(packet):
        raise _Entangled
    return getattr(packet, schema.overload_name or "default")


def _overloads(packet) -> set[str]:
    return {"" if name == "default" else name for name in packet.overloads()}


def _bind(root: nn.Module, path: str, tensor: Tensor) -> None:
    *parents, name = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(name, tensor)
    else:
        root.register_buffer(name, tensor)


def _shape(node: fx.Node) -> tuple[int | None, ...]:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    return tuple(_size(d) for d in value.shape)


def _size(size: Any) -> int | None:
    if isinstance(size, int):
        return size
    if size.node.expr.is_number:  # what follows it needs it to be that (after a constant mask)
        return int(size.node.expr)
    if free_unbacked_symbols(size):
        return UNKNOWN
    return None if size.node.expr.is_symbol else -1


def _is_check(node: fx.Node) -> bool:
    """Run-time assertions that export adds: true by construction for what follows."""
    schema = _schema(node)
    name = schema.name.split("::")[-1] if schema else ""
    return not node.users and name.startswith(("_assert", "sym_constrain"))


class _Places:
    """Names nodes after the modules that made them, as hooks would count their calls."""

    def __init__(self, model: nn.Module) -> None:
        # a module that is registered twice has the name that `named_modules` gives it
        first: dict[int, str] = {id(m): path for path, m in reversed(list(_all_modules(model)))}
        self.names = {path: first[id(m)] for path, m in _all_modules(model)}
        self.shared = {first[id(m)] for path, m in _all_modules(model) if first[id(m)] != path}
        self.calls: dict[str, list[str]] = {}
        self.counts: Counter = Counter()

    def of(self, node: fx.Node) -> Place:
        stack = {k: v for k, v in (node.meta.get("nn_module_stack") or {}).items() if k[0] != "_"}
        key, (path, kind) = next(reversed(stack.items())) if stack else ("", ("", ""))
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        path = self.names.get(path, path)
        if path in self.shared:
            calls = self.calls.setdefault(path, [])
            if key not in calls:
                calls.append(key)
            call = calls.index(key)
        else:
            call = int(key.rpartition("@")[2]) if "@" in key else 0
        schema = _schema(node)
        op = schema.name.split("::")[-1] if schema else getattr(node.target, "__name__", node.op)
        layer = layer_of(kind)
        if layer:
            return Place(path, call, layer)
        op = op.removesuffix("_")
        k = self.counts[path, call, op]
        self.counts[path, call, op] += 1
        return Place(f"{path}:{op}#{k}", call, op, functional=True)


def _all_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return model.named_modules(remove_duplicate=False)


def layer_of(kind: str) -> str | None:
    """Type of one of PyTorch's own layers that hooks see as one call; None for other modules."""
    module, _, name = kind.rpartition(".")
    if module.startswith("torch.nn.utils.parametri"):  # a class made for one instance
        return name.removeprefix("Parametrized")
    if kind == "isogon.nets.piecewise.PiecewiseLinear":
        return name
    whole = not module.endswith((".container", ".transformer"))
    return name if module.startswith("torch.nn.modules.") and whole else None
