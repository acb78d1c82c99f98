"""Many states of single layers in one pass over data: what comes before a layer runs once.

A network with another state in one layer computes the same as before up to that layer. So the
graph runs once per batch; where it comes to a layer, the rest of it is run from there with each of
the layer's other states, on the values that are alive at that place, and then it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from isogon.nets.labels import classes_of
from isogon.nets.outputs import correct, outputs
from isogon.nets.trace import Graph
from isogon.nets.watchers import INPUT, Once

UNUSED = "num_batches_tracked"  # a counter that no operation reads
Values = dict[fx.Node, Any]


class Suffix:
    """What follows a layer: a place in the graph, and the attributes that the layer holds.

    Attributes:
        layer: The layer's path.
        start: Number of the first operation that reads one of its tensors.
        held: Nodes of its tensors by their names in the model's state.
    """

    def __init__(self, layer: str, start: int, held: Mapping[str, fx.Node]) -> None:
        self.layer, self.start, self.held = layer, start, dict(held)


class Program:
    """A graph as a list of operations that can be begun at any place.

    Args:
        graph: The traced model.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = [n for n in graph.module.graph.nodes if n.op != "output"]
        order = {node: i for i, node in enumerate(self.nodes)}
        self.order = order
        self.whole = all(n.op in ("placeholder", "get_attr", "call_function") for n in self.nodes)
        self.ending: list[list[fx.Node]] = [[] for _ in self.nodes]  # what nobody needs any more
        for node in self.nodes:
            if node not in graph.outputs:
                self.ending[max([order[node], *(order.get(u, 0) for u in node.users)])].append(node)

    def suffix(self, layer: str, tensors: Mapping[str, Tensor]) -> Suffix | None:
        """What follows a layer; None where the graph does not show all of its tensors.

        Args:
            layer: Its path.
            tensors: Its tensors, the model's own, by name.
        """
        attributes = [n for n in self.nodes if n.op == "get_attr"]
        held: dict[str, fx.Node] = {}
        for name, tensor in tensors.items():
            nodes = [n for n in attributes if self.graph.tensor(n) is tensor]
            if len(nodes) == 1:
                held[name] = nodes[0]
            elif nodes or not name.endswith(UNUSED):
                return None
        readers = [self.order[u] for node in held.values() for u in node.users if u in self.order]
        return Suffix(layer, min(readers), held) if readers else None

    def run(
        self,
        values: Values,
        first: int,
        x: Tensor,
        at: Mapping[int, Callable[[Values], None]] | None = None,
    ) -> Tensor:
        """Run the operations from one on to the end.

        Args:
            values: What is alive there, by node; changed.
            first: Number of the operation.
            x: The model's inputs.
            at: Called with what is alive in front of an operation, by its number.

        Returns:
            The model's output.
        """
        at = at or {}
        for i in range(first, len(self.nodes)):
            if i in at:
                at[i](values)
            node = self.nodes[i]
            if node not in values:
                values[node] = self._value(node, values, x)
            for dead in self.ending[i]:
                values.pop(dead, None)
        return values[self.graph.outputs[0]]

    def _value(self, node: fx.Node, values: Values, x: Tensor) -> Any:
        if node.op == "placeholder":
            return x
        if node.op == "get_attr":
            return self.graph.tensor(node)
        args = map_arg(node.args, values.__getitem__)
        kwargs = map_arg(node.kwargs, values.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]


class Suffixes(Once):
    """Which samples a model classifies right, with each of the other states of each layer.

    Args:
        program: The model's graph.
        cells: A suffix and a state of its layer's tensors each.

    Attributes:
        right: Of each cell, whether each sample was classified right, in chunks.
        own: The same of the model as it is.
    """

    sites = (INPUT,)

    def __init__(
        self, program: Program, cells: Sequence[tuple[Suffix, Mapping[str, Tensor]]]
    ) -> None:
        self.program, self.cells = program, list(cells)
        self.right: list[list[tuple[int, Tensor]]] = [[] for _ in self.cells]
        self.own: list[tuple[int, Tensor]] = []
        self.by_start: dict[int, list[int]] = {}
        for i, (suffix, _) in enumerate(self.cells):
            self.by_start.setdefault(suffix.start, []).append(i)

    def logits(self, x: Tensor, each: Callable[[int, Tensor], None]) -> Tensor:
        """The model's logits ``[n, C]``; ``each`` is called with those of every cell on the way."""
        program = self.program

        def visit(indices: list[int]) -> Callable[[Values], None]:
            def begin(values: Values) -> None:
                for i in indices:
                    suffix, state = self.cells[i]
                    own = {node: self._put(node, state[k]) for k, node in suffix.held.items()}
                    inside = {**values, **own}
                    run = lambda x, v=inside, s=suffix.start: program.run(v, s, x)  # noqa: E731
                    each(i, outputs(run, x)[1].flatten(1))

            return begin

        at = {start: visit(indices) for start, indices in self.by_start.items()}
        return outputs(lambda x: program.run({}, 0, x, at), x)[1].flatten(1)

    def _put(self, node: fx.Node, value: Tensor) -> Tensor:
        old = self.program.graph.tensor(node)
        return value.to(device=old.device, dtype=old.dtype)

    def update(self, values: Mapping[Any, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a batch."""
        first, known = int(rows[0]), {}

        def hits(z: Tensor) -> Tensor:
            if z.shape[1] not in known:
                known[z.shape[1]] = classes_of(labels, z.shape[1], count=len(z))
            return correct(z, known[z.shape[1]]).cpu()

        def count(i: int, z: Tensor) -> None:
            self.right[i].append((first, hits(z)))

        with torch.no_grad():
            self.own.append((first, hits(self.logits(values[INPUT], count))))

    def share(self) -> Suffixes:
        """The same, nothing counted."""
        return Suffixes(self.program, self.cells)

    def merge(self, other: Suffixes) -> Suffixes:
        """Take in what another one has counted."""
        self.own += other.own
        for mine, theirs in zip(self.right, other.right, strict=True):
            mine += theirs
        return self

    def result(self) -> tuple[Tensor, Tensor]:
        """Whether each sample was right, of the model ``[N]`` and of the cells ``[cells, N]``."""
        return in_order(self.own), torch.stack([in_order(chunks) for chunks in self.right])


def in_order(chunks: list[tuple[int, Tensor]]) -> Tensor:
    """Chunks by the number of their first sample, one behind the other."""
    return torch.cat([values for _, values in sorted(chunks, key=lambda c: c[0])])
