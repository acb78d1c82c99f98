"""Where two models are cut: their sites in the traced graphs, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from isogon.errors import OptionError
from isogon.nets.anatomy import Anatomy
from isogon.nets.channel_axis import channel_axis
from isogon.nets.sites import ExampleInputs, Site, called

Pairs = Literal["all", "diagonal"]


@dataclass(frozen=True, eq=False)
class Cut:
    """A site of one model at which it is taken apart.

    Attributes:
        side: Name of the model.
        site: Where.
        axis: Channel axis of the activation ``[n, ...]``.
        nodes: The site's node, then those whose values flow around it: none at a cut of the graph.
        streams: Shapes of what flows around it, without the sample axis.
    """

    side: str
    site: Site
    axis: int
    nodes: tuple[fx.Node, ...]
    streams: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> tuple[str, Site]:
        """What a pass over both models calls it."""
        return self.side, self.site

    @property
    def in_block(self) -> bool:
        """Whether data also flow around it."""
        return len(self.nodes) > 1

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.site.shape[self.axis - 1]

    @property
    def space(self) -> tuple[int, ...]:
        """Numbers of positions, by axis."""
        shape = list(self.site.shape)
        del shape[self.axis - 1]
        return tuple(shape)


class Cuts:
    """The places at which a model can be taken apart.

    Args:
        model: A model that can be traced.
        select: Which sites, see `isogon.nets.sites.sites`.
        example: Inputs ``[N, ...]``.
        side: Name of the model.
        in_block: Whether places that data also flow around count.

    Attributes:
        anatomy: Its graph.
        found: The places, in the order of computation.
        skipped: Names of selected sites that are none.

    Raises:
        NotACut: A site that was asked for by its exact name is none; the nearest ones are named.
        OptionError: None of the selected sites is one.
        ModelError: The model can't be traced.
    """

    def __init__(
        self,
        model: nn.Module,
        select: str,
        example: ExampleInputs,
        side: str,
        *,
        in_block: bool = False,
    ) -> None:
        self.anatomy = Anatomy(model, example)
        self.found: list[Cut] = []
        self.skipped: list[str] = []
        exact = {part.strip() for part in select.split(",")}
        sites = called(self.anatomy.model, self.anatomy.example)
        for site, node in self.anatomy.places(select).items():
            cut = self._cut(site, node, channel_axis(site, sites), side) if site.shape else None
            if cut is not None and (in_block or not cut.in_block):
                self.found.append(cut)
            elif site.name in exact:
                raise self.anatomy.not_a_cut(site, node)
            else:
                self.skipped.append(site.name)
        if not self.found:
            raise OptionError(
                f"none of the selected sites cuts model {side} in two",
                got=", ".join(self.skipped[:6]),
                expected="sites through which all data flow",
                fix="Choose others, or in_block=True where data may flow around them.",
            )

    def _cut(self, site: Site, node: fx.Node | None, axis: int, side: str) -> Cut | None:
        """The place of a site; None where it can't be one."""
        anatomy = self.anatomy
        if node is None or node not in anatomy.alive:
            return None
        nodes = (node,) if node in anatomy.cuts else anatomy.alive[node]
        values = [anatomy.values[n] for n in nodes]
        real = isinstance(values[0], Tensor) and values[0].is_floating_point()
        if not real or not all(map(anatomy.whole, nodes)):
            return None
        return Cut(side, site, axis, nodes, tuple(tuple(v.shape[1:]) for v in values[1:]))


def paired(
    a: Sequence[Cut], b: Sequence[Cut], pairs: Pairs
) -> tuple[list[tuple[Cut, Cut]], list[str]]:
    """Which cuts of a go with which of b, and notes on those that don't.

    ``diagonal``: the k-th with the k-th, up to the shorter. Where data flow around a cut, only the
    k-th goes with the k-th, if the other paths carry tensors of the same shapes in both models.

    Raises:
        OptionError: No pair is left, or another word for ``pairs``.
    """
    if pairs not in ("all", "diagonal"):
        raise OptionError("no such choice of pairs", got=pairs, expected="diagonal or all")
    notes: list[str] = []
    shorter = min(len(a), len(b))
    if pairs == "diagonal" and len(a) != len(b):
        notes.append(f"the first {shorter} sites of {len(a)} and {len(b)}")
    every = [(i, j) for i in range(len(a)) for j in range(len(b)) if pairs == "all" or i == j]
    found, left = [], {"space": 0, "block": 0}
    for i, j in every:
        one, two = a[i], b[j]
        if len(one.space) != len(two.space):
            left["space"] += 1
        elif (one.in_block or two.in_block) and (i != j or one.streams != two.streams):
            left["block"] += i == j
        else:
            found.append((one, two))
    if left["space"]:
        notes.append(f"{left['space']} pairs of a map with a vector were left out")
    if left["block"]:
        notes.append(
            f"{left['block']} pairs within residual blocks were left out: their other paths differ"
        )
    if not found:
        raise OptionError(
            "no pair of sites can be stitched",
            got="; ".join(notes),
            expected="maps with maps, vectors with vectors, blocks with equal other paths",
            fix="Choose other sites.",
        )
    return found, notes
