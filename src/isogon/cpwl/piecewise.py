"""`piecewise`: smooth scalar activations replaced by interpolants, with the error at each site."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, fx, nn

from isogon.cpwl.constants import in_double, mapped
from isogon.cpwl.lower import logits_node, lower_graph
from isogon.cpwl.refusals import op_name
from isogon.cpwl.scalars import ScalarSite, sites
from isogon.errors import ModelError, OptionError
from isogon.nets import piecewise as _op  # registers the operation
from isogon.nets.graph import Graph, place
from isogon.nets.trace import trace

__all__ = ["Interpolant", "interpolate", "piecewise"]

_GRID = 8192  # points on which the curvature is looked at
_DENSE = 256  # points per piece on which the error is measured


@dataclass(frozen=True)
class Interpolant:
    """A continuous piecewise-linear function that agrees with another one at its knots.

    Args:
        knots: `[K]`.
        slopes: `[K + 1]`; beyond the first and the last knot, the tangents there.
        value: Value at the first knot.
        error: Largest distance between the two functions over the range of the knots.
    """

    knots: Tensor
    slopes: Tensor
    value: float
    error: float

    def __call__(self, x: Tensor) -> Tensor:
        """The function of every element."""
        return _op.piecewise_linear(x, self.knots, self.slopes, self.value)


def piecewise(
    model: nn.Module, *, knots: int | Sequence[float] | Mapping[str, Any], example: Tensor
) -> nn.Module:
    r"""A copy of a model with its smooth scalar activations replaced by interpolants.

    Each smooth function of one number (GELU, SiLU, tanh, sigmoid, softplus, sin, ..., also one
    composed of several operations) becomes a continuous piecewise-linear function that agrees
    with it at its knots and continues along its tangents outside them. The knots cover the range
    that the site's input reaches on ``example`` (through the interpolants before it), and are
    dense where the function bends: at density proportional to :math:`\sqrt{|f''|}`, which for K
    knots on a range of length L gives a sup-error of about
    :math:`\left(\int\sqrt{|f''|}\right)^2 / 8K^2`.

    Args:
        model: Any module of one tensor; left as it was, and shares nothing with the copy.
        knots: Number of knots per site, at least 2; or their positions, ascending; or either per
            site name (``{"0.act": 128, "": 32}``, the empty name for all others).
        example: Inputs ``[N, ...]`` that reach the range of interest: points on the slice, or
            data.

    Returns:
        A module in evaluation mode that `isogon.verify` and `isogon.partition` accept. Its
        attribute ``report`` is a table with one row per site: site, op, low, high (the range),
        knots, sup_error (over that range); ``report.attrs["output_error"]`` is the largest
        difference of the outputs on ``example``.

    Raises:
        UnsupportedOp: What remains is not piecewise linear: layer normalisation, attention and
            gates couple many numbers, which no interpolant of one number replaces.
        OptionError: Fewer than two knots, or knots that don't ascend.
        ModelError: A function is not finite on the range it reaches.
    """
    graph = trace(model, example)
    walk = _Replace(graph, knots)
    result = walk.run(example.detach().to("cpu"))
    made = trace(result, example)
    lower_graph(made)
    result.report = walk.table()  # type: ignore[assignment]
    return result


def interpolate(
    function: Callable[[Tensor], Tensor], knots: int | Sequence[float], low: float, high: float
) -> Interpolant:
    """The interpolant of a scalar function on a range.

    Args:
        function: Element by element, on float64 tensors, differentiable.
        knots: Their number (at least 2), or their positions.
        low: Lower end of the range.
        high: Upper end of the range, above ``low``.

    Raises:
        OptionError: Fewer than two knots, or positions that don't ascend.
        ModelError: The function is not finite on the range.

    Example:
        >>> interpolate(torch.square, [0.0, 1.0], 0.0, 1.0).error
        0.25
    """
    at = _positions(function, knots, low, high)
    ends = at[[0, -1]].clone().requires_grad_()
    with torch.enable_grad():
        (tangents,) = torch.autograd.grad(function(ends).sum(), ends)
    values = function(at)
    if not bool(values.isfinite().all()) or not bool(tangents.isfinite().all()):
        raise ModelError(
            "a function is not finite on the range that its input reaches",
            got=f"[{low:.4g}, {high:.4g}]",
            expected="a range inside the function's domain",
            fix="Use an example that stays inside it.",
        )
    slopes = torch.cat([tangents[:1], values.diff() / at.diff(), tangents[1:]])
    # knots at which nothing bends would only cut regions in two
    bends = slopes.diff().abs() > 1e-13 * slopes.abs().max()
    bends[0] |= ~bends.any()
    first = int(bends.nonzero()[0])
    kept = torch.cat([slopes[:1], slopes[1:][bends]])
    found = Interpolant(at[bends].contiguous(), kept.contiguous(), float(values[first]), 0.0)
    dense = torch.cat(
        [at[:-1, None] + at.diff()[:, None] * torch.linspace(0, 1, _DENSE + 1)]
    ).flatten()
    error = float((function(dense) - found(dense)).abs().max())
    return Interpolant(found.knots, found.slopes, found.value, error)


def _positions(
    function: Callable[[Tensor], Tensor], knots: int | Sequence[float], low: float, high: float
) -> Tensor:
    if isinstance(knots, int):
        if knots < 2:
            raise OptionError("too few knots", got=knots, expected="at least 2 per site")
        grid = torch.linspace(low, high, _GRID + 1, dtype=torch.float64)
        bend = function(grid).diff(n=2).abs().sqrt()
        bend = torch.nn.functional.pad(bend.nan_to_num(0, 0, 0), (1, 1))
        middle = (bend[1:] + bend[:-1]) / 2
        density = middle + middle.mean() * 0.05 + 1e-300  # and a few where it is straight
        share = np.concatenate([[0.0], np.cumsum(density.numpy())])
        wanted = np.linspace(0, share[-1], knots)
        at = torch.from_numpy(np.interp(wanted, share, grid.numpy()))
        at[0], at[-1] = low, high
        return at
    at = torch.as_tensor(knots, dtype=torch.float64).flatten()
    if len(at) < 2 or not bool((at.diff() > 0).all()):
        raise OptionError(
            "knots must ascend", got=list(knots)[:6], expected="at least two numbers, ascending"
        )
    return at


class _Replace:
    """One pass over a graph that computes in float64 and replaces each site as it is reached."""

    def __init__(self, graph: Graph, knots: int | Sequence[float] | Mapping[str, Any]) -> None:
        self.graph, self.knots = graph, knots
        self.rows: list[tuple] = []
        self.output_error = 0.0

    @torch.no_grad()
    def run(self, example: Tensor) -> fx.GraphModule:
        graph, nodes = self.graph, list(self.graph.module.graph.nodes)
        depends = {graph.input}
        for node in nodes:
            if any(n in depends for n in node.all_input_nodes):
                depends.add(node)
        needed, stack = set(), [logits_node(graph)]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        given = in_double(example)
        plain = self._evaluate(nodes, given, {}, needed)
        constants = {n: v for n, v in plain.items() if n not in depends}
        found = {site.node: site for site in sites(graph, constants, needed)}
        moved = self._evaluate(nodes, given, found, needed)
        self.output_error = float(
            (moved[logits_node(graph)] - plain[logits_node(graph)]).abs().max()
        )
        return self._rebuilt(found)

    def _evaluate(
        self,
        nodes: list[fx.Node],
        given: Tensor,
        found: dict[fx.Node, ScalarSite],
        needed: set[fx.Node],
    ) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {}
        for node in nodes:
            if node not in needed:
                continue
            if node.op == "placeholder":
                values[node] = given
            elif node.op == "get_attr":
                values[node] = in_double(self.graph.tensor(node).detach().cpu())
            elif node in found:
                values[node] = self._interpolated(found[node], values)
            else:
                arguments: Any = mapped(fx.map_arg(node.args, values.__getitem__), in_double)
                options: Any = mapped(fx.map_arg(node.kwargs, values.__getitem__), in_double)
                values[node] = mapped(node.target(*arguments, **options), in_double)  # type: ignore[operator]
        return values

    def _interpolated(self, site: ScalarSite, values: dict[fx.Node, Any]) -> Tensor:
        name, z = place(site.node).name, values[site.base]
        low, high = float(z.min()), float(z.max())
        if not high > low:
            low, high = low - 1.0, low + 1.0
        wanted = self.knots
        if isinstance(wanted, Mapping):
            if name not in wanted and "" not in wanted:
                raise OptionError(
                    "no number of knots for a site",
                    got=f"knots for {', '.join(map(repr, wanted))}",
                    expected=f"one for {name!r}, or for '' (all others)",
                )
            wanted = wanted.get(name, wanted.get(""))
        try:
            found = interpolate(site.function, wanted, low, high)
        except ModelError as error:
            raise ModelError(
                f"{op_name(site.node)} at {name!r}: {error.problem}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from None
        self.rows.append((site, found, name, low, high))
        return found(z)

    def _rebuilt(self, found: dict[fx.Node, ScalarSite]) -> fx.GraphModule:
        interpolants = {site.node: (found, k) for k, (site, found, *_) in enumerate(self.rows)}
        graph, copies = fx.Graph(), {}
        root = copy.deepcopy(self.graph.module)  # nothing is shared with the user's model
        for node in self.graph.module.graph.nodes:
            if node in interpolants:
                made, k = interpolants[node]
                root.register_buffer(f"isogon_knots_{k}", made.knots)
                root.register_buffer(f"isogon_slopes_{k}", made.slopes)
                attributes = [graph.get_attr(f"isogon_{kind}_{k}") for kind in ("knots", "slopes")]
                for attribute in attributes:
                    attribute.meta = {"place": place(node), "shape": ()}
                copies[node] = graph.call_function(
                    torch.ops.isogon.piecewise_linear.default,
                    (copies[found[node].base], *attributes, made.value),
                )
                copies[node].meta = dict(node.meta)
            else:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.eliminate_dead_code()
        return fx.GraphModule(root, graph).eval()

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(
            [
                (name, op_name(site.node), low, high, len(found.knots), found.error)
                for site, found, name, low, high in self.rows
            ],
            columns=["site", "op", "low", "high", "knots", "sup_error"],
        )
        table.attrs["output_error"] = self.output_error
        return table
