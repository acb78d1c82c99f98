"""Homogeneity: how far an activation function is from commuting with positive scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, fx
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.nets.anatomy import Anatomy
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import cast
from isogon.nets.passes import INPUT, one_pass
from isogon.nets.sites import Site
from isogon.nets.trace import place
from isogon.nets.unwrap import unwrap
from isogon.nets.watchers import Key, Once
from isogon.readings import SiteTable
from isogon.registry import measure

SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


@measure(cite="godfrey2022", cost=2.0, survey=False, example={"batches": "digits(test, 12)"})
def homogeneity(
    model: Module,
    batches: Batches,
    *,
    sites: str = "activations",
    scales: tuple[float, ...] = SCALES,
) -> SiteTable:
    """How far each activation function is from being homogeneous on the inputs that it gets.

    With s the activation function of a site, z its pre-activations (all units and samples) and a
    scale t > 0: ``deviation(t) = E |s(t z) - t s(z)| / E |t s(z)|``. It is 0 at every t where
    positive scales of channels can be moved through s, as G_ReLU takes for granted: exactly for
    ReLU and its leaky kin, not for GELU, whatever z, and always 0 at t = 1.

    Args:
        model: A model that can be traced.
        batches: Samples; labels are not needed.
        sites: Which activation functions, see `isogon.sites`; any site whose value is a function
            of one tensor of the same shape.
        scales: The scales t.

    Returns:
        One row per site and scale: site, op, scale, deviation (0 where s(z) and s(t z) are 0
        throughout).

    Raises:
        OptionError: No site that is a function of one tensor, or scales that are not positive.
        ModelError: A model that can't be traced, is random, or depends on the batch.
        DataError: No samples, or NaN.
    """
    if not scales or not all(0 < t < float("inf") for t in scales):
        raise OptionError("scales have to be positive", got=scales, expected="e.g. 0.25,0.5,2,4")
    data = as_batches(batches)
    few = data.first(FEW)[0]
    check_finite(model)
    examine(model, few)
    anatomy = Anatomy(unwrap(model), few)
    functions: list[Function] = []
    skipped = []
    for site, node in anatomy.places(sites).items():
        function = Function.of(anatomy, site, node)
        if function is None:
            skipped.append(site.name)
        else:
            functions.append(function)
    if not functions:
        raise OptionError(
            "none of the selected sites is a function of one tensor",
            got=", ".join(skipped[:6]),
            expected="activation functions, e.g. sites=gelu",
        )
    watcher = Deviations(anatomy, functions, tuple(dict.fromkeys(map(float, scales))))
    one_pass(anatomy.model, data, [watcher], what="homogeneity")
    rows = [
        {
            "site": f.site.name,
            "op": f.site.op,
            "scale": t,
            "deviation": float(apart / size) if size > 0 else (float("inf") if apart > 0 else 0.0),
        }
        for f in functions
        for t, (apart, size) in zip(watcher.scales, watcher.sums[f.site].tolist())
    ]
    table = pd.DataFrame(rows)
    groups = table.groupby(["site", "op"], sort=False)["deviation"]
    meta: dict[str, Any] = {
        "samples": int(data.count),
        "summary": groups.max().rename("largest deviation").reset_index().to_dict("list"),
    }
    if skipped:
        meta["notes"] = [f"no functions of one tensor, left out: {', '.join(skipped[:8])}"]
    return SiteTable("homogeneity", table, units={"deviation": "1", "scale": "1"}, meta=meta)


class Function:
    """The function between a site's pre-activations and its value.

    Args:
        site: The site.
        before: The node whose value it is applied to.
        apply: From that value to the site's.
    """

    def __init__(self, site: Site, before: fx.Node, apply: Callable[[Tensor], Tensor]) -> None:
        self.site, self.before, self.apply = site, before, apply

    @classmethod
    def of(cls, anatomy: Anatomy, site: Site, node: fx.Node | None) -> Function | None:
        """That of a site; None where it is not a function of one tensor of its shape."""
        if node is None or node not in anatomy.data:
            return None
        within = (f"{site.path}.", f"{site.path}:") if ":" not in site.path else ()
        inner, outer, stack = {node}, set(), [node]
        while stack:  # the site's own operations, back to what enters its module
            for n in stack.pop().all_input_nodes:
                own = within and place(n).path.startswith(within)
                if n not in anatomy.data or own:
                    if n not in inner:
                        inner.add(n)
                        stack.append(n)
                else:
                    outer.add(n)
        if len(outer) != 1:
            return None
        (before,) = outer
        value, found = anatomy.values[before], anatomy.values[node]
        if not isinstance(value, Tensor) or value.shape != found.shape:
            return None
        graph = fx.Graph()
        copies = {before: graph.placeholder("z")}
        for n in anatomy.graph.module.graph.nodes:
            if n in inner:
                copies[n] = graph.node_copy(n, copies.__getitem__)
        graph.output(copies[node])
        return cls(site, before, fx.GraphModule(anatomy.graph.module, graph, "Activation"))


class Deviations(Once):
    """Sums of ``|s(t z) - t s(z)|`` and ``|t s(z)|`` per site and scale.

    Args:
        anatomy: Of the model.
        functions: Of its sites.
        scales: The scales.
    """

    def __init__(
        self, anatomy: Anatomy, functions: list[Function], scales: tuple[float, ...]
    ) -> None:
        self.anatomy, self.functions, self.scales = anatomy, functions, scales
        self.sites = (INPUT,)
        self.sums = {f.site: torch.zeros(len(scales), 2, dtype=torch.float64) for f in functions}

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""

        def visitor(functions: list[Function]) -> Callable[..., None]:
            def visit(z: Tensor, *_: Tensor) -> None:
                for f in functions:
                    whole = f.apply(z)
                    for k, t in enumerate(self.scales):
                        wanted = t * whole
                        apart = (f.apply(t * z) - wanted).abs().sum(dtype=torch.float64)
                        sums = torch.stack([apart, wanted.abs().sum(dtype=torch.float64)])
                        self.sums[f.site][k] += sums.cpu()

            return visit

        places: dict[fx.Node, list[Function]] = {}
        for f in self.functions:
            places.setdefault(f.before, []).append(f)
        x = cast(values[INPUT], self.anatomy.model)
        first = places.pop(self.anatomy.graph.input, [])
        visitor(first)(x)
        self.anatomy.visit(x, {n: visitor(f) for n, f in places.items()})
