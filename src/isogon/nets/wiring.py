"""How the sites of a model feed each other: the traced graph with everything else left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from torch import Tensor, fx, nn

from isogon.errors import ModelError
from isogon.nets.graph import Place, place
from isogon.nets.trace import trace

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Wiring:
    """A directed acyclic graph of sites.

    Attributes:
        nodes: Name -> kind, in the order of computation: ``input``, ``site``, ``join`` (a sum or
            concatenation of several branches that more than one node reads), ``output``.
        edges: Pairs (from, to): the value at ``from`` reaches ``to`` through no other node.
        complete: Whether it comes from the traced graph; otherwise it is the chain of the sites
            in the order of computation.
        note: Why it is not complete, or which sites have no place in it.
    """

    nodes: dict[str, str]
    edges: tuple[tuple[str, str], ...]
    complete: bool = True
    note: str = ""

    def levels(self) -> dict[str, int]:
        """Length of the longest way from the input to each node."""
        found = dict.fromkeys(self.nodes, 0)
        for name in self.nodes:  # in topological order
            found[name] = max((found[a] + 1 for a, b in self.edges if b == name), default=0)
        return found


def wiring(model: nn.Module, example: Tensor, names: Sequence[str]) -> Wiring:
    """Which of the named sites feed which, directly or through what is not named.

    Args:
        model: Any module of one tensor.
        example: An input ``[N, ...]``.
        names: Names of sites (`isogon.sites`); a container stands for all that is in it.

    Returns:
        The wiring; the chain of the sites, with a note, for a model that can't be traced.
    """
    try:
        graph = trace(model, example)
    except ModelError as error:
        return _chain(names, f"a chain: {error.problem}")
    builder = _Builder(names)
    for node in graph.module.graph.nodes:
        if node.op != "output":
            builder.take(node)
    for node in graph.outputs:
        builder.link(builder.reach[node], OUTPUT)
    builder.nodes[OUTPUT] = OUTPUT
    lost = [n for n in names if n not in builder.nodes]
    if len(lost) == len(names):
        return _chain(names, "a chain: the traced graph does not show these sites")
    nodes, edges = _contracted(builder.nodes, builder.edges)
    note = f"not in the traced graph: {', '.join(lost[:4])}" if lost else ""
    return Wiring(nodes, tuple(edges), True, note)


class _Builder:
    """Walks the operations and keeps, for each value, which nodes it comes from."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)
        self.nodes: dict[str, str] = {}
        self.edges: dict[tuple[str, str], None] = {}
        self.reach: dict[fx.Node, tuple[str, ...]] = {}

    def take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.nodes.setdefault(INPUT, INPUT)
            self.reach[node] = (INPUT,)
            return
        if node.op == "get_attr" or _is_number(node):
            self.reach[node] = ()
            return
        sources = tuple(dict.fromkeys(s for a in node.all_input_nodes for s in self.reach[a]))
        if not sources:
            self.reach[node] = ()
            return
        name = self._site(place(node))
        if name is not None:
            self.nodes.setdefault(name, "site")
        elif len(sources) > 1:
            name = f"{place(node).name}"
            while name in self.nodes:
                name += "'"
            self.nodes[name] = "join"
        if name is None:
            self.reach[node] = sources
        else:
            self.link(sources, name)
            self.reach[node] = (name,)

    def link(self, sources: Iterable[str], name: str) -> None:
        self.edges.update(dict.fromkeys((s, name) for s in sources if s != name))

    def _site(self, where: Place) -> str | None:
        """The named site that an operation is, or is within."""
        if where.name in self.names:
            return where.name
        path = where.path
        while path:
            cut = max(path.rfind("."), path.rfind(":"))
            path = path[: max(cut, 0)]
            for name in (f"{path}:{where.call}" if where.call else path, path):
                if name in self.names:
                    return name
        return None


def _is_number(node: fx.Node) -> bool:
    """Whether a node is a size or computed from sizes: no data flows through it."""
    target = node.target
    if getattr(target, "__module__", "") in ("_operator", "operator", "math", "builtins"):
        return getattr(target, "__name__", "") != "getitem"
    return "sym_size" in str(target) or "sym_numel" in str(target)


def _contracted(nodes: dict[str, str], edges: Iterable[tuple[str, str]]) -> tuple[dict, list]:
    """Joins that one node alone reads are left out: that node has several sources instead."""
    kept = dict.fromkeys(edges)
    for name in [n for n, kind in nodes.items() if kind == "join"]:
        after = [b for a, b in kept if a == name]
        if len(after) <= 1:
            before = [a for a, b in kept if b == name]
            kept = {e: None for e in kept if name not in e}
            kept.update(dict.fromkeys((a, b) for a in before for b in after))
            nodes = {n: k for n, k in nodes.items() if n != name}
    return _sorted(nodes, list(kept)), list(kept)


def _sorted(nodes: dict[str, str], edges: list[tuple[str, str]]) -> dict[str, str]:
    """Nodes in topological order; as they are where modules call each other in a circle."""
    place = {n: i for i, n in enumerate(nodes)}
    if all(place[a] < place[b] for a, b in edges):
        return nodes
    sorter = TopologicalSorter({n: [] for n in nodes})
    for a, b in edges:
        sorter.add(b, a)
    try:
        return {n: nodes[n] for n in sorter.static_order()}
    except CycleError:  # a container met again, on what came out of it
        return nodes


def _chain(names: Sequence[str], note: str) -> Wiring:
    line = [INPUT, *names, OUTPUT]
    kinds = {INPUT: INPUT, **dict.fromkeys(names, "site"), OUTPUT: OUTPUT}
    return Wiring(kinds, tuple(pairwise(line)), False, note)
