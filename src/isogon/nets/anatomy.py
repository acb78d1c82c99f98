"""The anatomy of a model: its traced graph, where its sites are in it, where it can be cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from isogon.errors import NotACut, OptionError
from isogon.nets.hygiene import cast
from isogon.nets.sites import ExampleInputs, Site, inputs
from isogon.nets.sites import sites as select_sites
from isogon.nets.tap import tap
from isogon.nets.trace import Graph, place, trace
from isogon.nets.unwrap import unwrap


class Anatomy:
    """Where a model can be cut: its graph, the values of its nodes, and its sites."""

    def __init__(self, model: nn.Module, example: ExampleInputs) -> None:
        self.model = unwrap(model)
        x = cast(inputs(example), self.model)
        self.example = x[:1].repeat(2, *[1] * (x.dim() - 1)) if len(x) == 1 else x[:3]
        self.graph: Graph = trace(self.model, self.example)
        with torch.no_grad():
            recorder = _Recorder(self.graph.module)
            recorder.run(self.example)
        self.values = recorder.values
        self.order = {node: i for i, node in enumerate(self.graph.module.graph.nodes)}
        count = len(self.example)
        self.sizes = {n for n in self.graph.nodes if _is_size(n) and self.values[n] == count}
        self.data = self._data()
        self.alive = self._alive()
        self.cuts = {n for n, alive in self.alive.items() if alive == (n,) and self.whole(n)}

    def _data(self) -> set[fx.Node]:
        """Nodes that depend on the input's values, not only on the number of samples."""
        data = {self.graph.input}
        for node in self.graph.nodes:
            if node not in self.sizes and any(a in data for a in node.all_input_nodes):
                data.add(node)
        return data

    def _alive(self) -> dict[fx.Node, tuple[fx.Node, ...]]:
        """Of every node that depends on the data: what is needed later right after it is made.

        The node itself comes first, then the others in the order in which they were made.
        """
        last = {
            node: max((self.order[u] for u in node.users if u not in self.sizes), default=-1)
            for node in self.data
        }
        found: dict[fx.Node, tuple[fx.Node, ...]] = {}
        alive: dict[fx.Node, None] = {self.graph.input: None}
        for node in self.graph.nodes:
            if node in self.data:
                alive = {n: None for n in alive if last[n] > self.order[node]}
                found[node] = (node, *alive)
                alive[node] = None
        return found

    def whole(self, node: fx.Node) -> bool:
        """Whether a node's value is a tensor with a row per sample."""
        value = self.values.get(node)
        return isinstance(value, Tensor) and value.shape[:1] == self.example.shape[:1]

    def site(self, site: Site | str) -> Site:
        """The site that was asked for."""
        if isinstance(site, Site):
            return site
        found = select_sites(self.model, site, example=self.example)
        if len(found) != 1:
            raise OptionError(
                "a model is cut at one site",
                got=", ".join(map(str, found[:6])),
                expected="a selector that names one site",
            )
        return found[0]

    def places(self, select: str) -> dict[Site, fx.Node | None]:
        """The node of each selected site."""
        found = select_sites(self.model, select, example=self.example)
        with torch.no_grad(), tap(self.model, found) as read:
            _, values = read(self.example)
        return {s: self._holder(s, v) for s, v in values.items()}

    def node(self, site: Site) -> fx.Node | None:
        """The node whose value is the site's activation, bit by bit."""
        with torch.no_grad(), tap(self.model, [site]) as read:
            _, values = read(self.example)
        return self._holder(site, values[site])

    def _holder(self, site: Site, value: Tensor) -> fx.Node | None:
        """The node of that name that holds the value; else (containers, Identity) any that does."""
        named = [n for n in self.graph.nodes if place(n).name == site.name]
        prefix = site.path + "."
        inside = [
            n for n in self.graph.nodes if place(n).path.startswith((prefix, site.path + ":"))
        ]
        for candidates in (named, inside, self.graph.nodes):
            for node in reversed(candidates):
                held = self.values.get(node)
                if isinstance(held, Tensor) and node in self.data and _same(held, value):
                    return node
        return None

    def head(self, *nodes: fx.Node) -> fx.GraphModule:
        """From the input to a node, or to several as a tuple."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for n in _ancestors(nodes):
            copies[n] = graph.node_copy(n, copies.__getitem__)
        results = tuple(copies[n] for n in nodes)
        graph.output(results[0] if len(results) == 1 else results)
        return fx.GraphModule(self.graph.module, graph, "Head")

    def tail(self, *nodes: fx.Node) -> fx.GraphModule:
        """From a node to the outputs; sizes of the batch are read off the node's value.

        Of a node that is no cut, from all that is `alive` there: a tail of several inputs.
        """
        graph = fx.Graph()
        copies = {
            n: graph.placeholder(f"activation_{i}" if i else "activation")
            for i, n in enumerate(nodes)
        }
        behind = set(nodes)
        for n in self.graph.nodes:
            if any(a in behind for a in n.all_input_nodes) and n not in nodes:
                behind.add(n)

        def bring(n: fx.Node) -> fx.Node:
            if n in copies:
                return copies[n]
            source = n.args[0] if n in self.sizes else None
            if source in self.data and source not in copies:
                copies[n] = graph.call_function(n.target, (copies[nodes[0]], 0))  # type: ignore[arg-type]
            else:
                copies[n] = graph.node_copy(n, bring)
            return copies[n]

        for n in _ancestors(self.graph.outputs, stop={*nodes, *self.sizes}):
            if n in behind or n not in self.data:
                bring(n)
        results = tuple(bring(n) for n in self.graph.outputs)
        graph.output(results[0] if len(results) == 1 else results)
        return fx.GraphModule(self.graph.module, graph, "Tail")

    def visit(self, x: Tensor, visitors: Mapping[fx.Node, Callable[..., Any]]) -> None:
        """Run the graph once; at each of the nodes its visitor is called with what is alive there.

        Args:
            x: Inputs ``[n, ...]``.
            visitors: By node, called with the values of ``alive[node]`` as soon as they are there;
                no other value is kept.
        """
        _Visitor(self.graph.module, {n: (self.alive[n][1:], v) for n, v in visitors.items()}).run(x)

    def not_a_cut(self, site: Site, node: fx.Node | None) -> NotACut:
        """The error that names the nearest cuts before and behind."""
        where = self.order[node] if node is not None else 0
        found = {s: self.order[n] for s, n in self.places("all").items() if n in self.cuts}
        before = [s for s, i in found.items() if i < where][-1:]
        behind = [s for s, i in found.items() if i > where][:1]
        names = " and ".join(repr(str(s)) for s in before + behind) or "none"
        return NotACut(
            f"the model can't be cut at {str(site)!r}: data also flow around it",
            got=str(site),
            expected="a site that separates the input from the output",
            fix=f"The nearest cuts are {names}.",
        )


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


class _Visitor(fx.Interpreter):
    """Runs a graph and shows values on the way."""

    def __init__(
        self,
        module: fx.GraphModule,
        visitors: Mapping[fx.Node, tuple[Sequence[fx.Node], Callable[..., Any]]],
    ) -> None:
        super().__init__(module)
        self.visitors = visitors

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if n in self.visitors:
            others, visitor = self.visitors[n]
            visitor(found, *(self.env[o] for o in others))
        return found


def _is_size(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "").startswith("sym_size") or (
        node.target is getattr(torch.ops.aten.sym_size, "int", None)
    )


def _ancestors(outputs: Iterable[fx.Node], *, stop: Collection[fx.Node] = ()) -> list[fx.Node]:
    """All nodes that the outputs need, up to those to stop at, in order of computation."""
    found: set[fx.Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in found and node not in stop:
            found.add(node)
            stack.extend(node.all_input_nodes)
    if not found:
        return []
    return [n for n in next(iter(found)).graph.nodes if n in found]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
