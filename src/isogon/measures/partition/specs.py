"""Slices by name: `through(mnist(test)[3], mnist(test)[7], mnist(test)[12])`, `box2d(...)`."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from isogon import registry
from isogon.data import Batches, batches, points
from isogon.errors import DataError
from isogon.measures.partition.lowering import as_slice
from isogon.measures.partition.slices import Slice
from isogon.registry import register
from isogon.specs import DataSpec, ModelSpec, PointSpec, Spec


@register(
    "noun",
    "Slice",
    kinds=("slice",),
    help='a plane, e.g. "through(digits(test)[0], digits(test)[1], digits(test)[2])"',
    typed="through(digits(test)[0], digits(test)[1], digits(test)[2])",
    example="through(digits(test)[0], digits(test)[1], digits(test)[2])",
    default="@slice",
)
def parse_slice(spec: str | Spec | Slice, *, like: Batches | None = None) -> Slice:
    """A slice from its spec (a slice is returned as it is)."""
    return as_slice(spec)


@register("slice", "through")
def through(a: PointSpec, b: PointSpec, c: PointSpec, *, margin: float = 0.3) -> Slice:
    """The square around three inputs in the plane through them."""
    return Slice.through(*(_one(p) for p in (a, b, c)), margin=margin)


@register("slice", "anchors")
def anchors(
    x1: PointSpec,
    x2: PointSpec | None = None,
    x3: PointSpec | None = None,
    *,
    radius: float,
    seed: int = 0,
) -> Slice:
    """A square around one to three inputs; missing directions are random."""
    generator = torch.Generator().manual_seed(seed)
    given = [None if p is None else _one(p) for p in (x1, x2, x3)]
    return Slice.anchors(*given, radius=radius, generator=generator)  # type: ignore[arg-type]


@register("slice", "between")
def between(
    a: PointSpec,
    b: PointSpec,
    c: PointSpec | None = None,
    *,
    at: float = 0.5,
    radius: float = 1.0,
    seed: int = 0,
) -> Slice:
    """A square around a point of the way from one input to another, towards a third one."""
    generator = torch.Generator().manual_seed(seed)
    third = None if c is None else _one(c)
    return Slice.between(_one(a), _one(b), third, at=at, radius=radius, generator=generator)


@register("slice", "crossing")
def crossing(
    model: ModelSpec,
    a: PointSpec,
    b: PointSpec,
    c: PointSpec | None = None,
    *,
    radius: float | None = None,
    seed: int = 0,
) -> Slice:
    """A square at the decision boundary: where a model's class changes on the way from a to b."""
    generator = torch.Generator().manual_seed(seed)
    third = None if c is None else _one(c)
    network = registry.get("noun", "Module").build(model)
    return Slice.crossing(network, _one(a), _one(b), third, radius=radius, generator=generator)


@register("slice", "box2d")
def box2d(low: tuple[float, float] = (-1.0, -1.0), high: tuple[float, float] = (1.0, 1.0)) -> Slice:
    """A rectangle, for networks of two inputs."""
    return Slice.box2d(low, high)


@register("slice", "neighbours")
def neighbours(data: DataSpec, first: int, second: int, *, margin: float = 0.5) -> Slice:
    """The plane through the two nearest inputs of two classes and the next one of the first."""
    return _nearest(batches(data), first, second, margin=margin)


def _nearest(data: Batches, first: int, second: int, *, margin: float = 0.5) -> Slice:
    """The plane through the nearest pair of two classes and one more input of the first class.

    Args:
        data: Labelled inputs.
        first: Label of one class.
        second: Label of the other.
        margin: See `Slice.through`.

    Raises:
        DataError: Fewer than two inputs of the first class, or none of the second.
    """
    one, two = [], []
    for x, y in data:
        one.append(x[y == first])
        two.append(x[y == second])
    a, b = torch.cat(one), torch.cat(two)
    if len(a) < 2 or len(b) < 1:
        raise DataError(
            "not enough inputs of the two classes",
            got=f"{len(a)} of class {first}, {len(b)} of class {second}",
            expected="two of the first, one of the second",
        )
    flat, other = a.flatten(1).double(), b.flatten(1).double()
    rows = [torch.cdist(part, other) for part in flat.split(1024)]
    distance = torch.cat(rows)
    i, j = divmod(int(distance.argmin()), len(b))
    order = (flat - other[j]).norm(dim=1).argsort().tolist()
    third = next(k for k in itertools.chain(order) if k != i)
    return Slice.through(a[i], b[j], a[third], margin=margin)


def _one(spec: str | Spec | Tensor) -> Tensor:
    """One input without its sample axis."""
    found = points(spec) if not isinstance(spec, Tensor) else spec
    return found[0]
