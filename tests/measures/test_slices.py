"""Slices as users think of them: around images, between them, at the decision boundary."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon import registry
from isogon.errors import DataError, OptionError
from isogon.measures.partition.crossings import first_crossing


def net(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, outputs))


def pair(model, seed=0):
    """Two inputs of different classes."""
    x = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(seed))
    z = model(x).detach()
    label = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
    return x[0], x[int((label != label[0]).nonzero()[0])]


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_crossing_is_where_the_top_two_tie(outputs, seed):
    model = net(outputs, seed)
    a, b = pair(model)
    at, before, behind = first_crossing(model, a, b)
    exact = model.double().requires_grad_(False)
    z = exact(a.double() + at * (b.double() - a.double()))
    gap = abs(float(z[0])) if outputs == 1 else float(z[before] - z[behind])
    assert abs(gap) < 1e-12
    for t, label in ((at - 1e-9, before), (at + 1e-9, behind)):
        z = exact(a.double() + t * (b.double() - a.double()))
        assert int(z[0] > 0 if outputs == 1 else z.argmax()) == label
    line = ig.segments(exact, a.double(), b.double())
    before_it = torch.linspace(0, at - 1e-6, 50, dtype=torch.float64)
    z = exact(a.double() + before_it[:, None] * (b.double() - a.double()))
    found = (z[:, 0] > 0) if outputs == 1 else z.argmax(1)
    assert bool((found == before).all()), "the first one"
    assert len(line) > 1


def test_a_square_at_the_boundary_holds_both_classes():
    model = net()
    a, b = pair(model)
    plane = ig.Slice.crossing(model, a, b, radius=0.2)
    p = ig.partition(model, plane)
    assert len(np.unique(p.boundary_classes)) >= 2
    start, step = p.boundary[:, 0], p.boundary[:, 1] - p.boundary[:, 0]
    t = np.clip(-(start * step).sum(1) / (step**2).sum(1), 0, 1)
    assert np.linalg.norm(start + t[:, None] * step, axis=1).min() < 1e-6, "through the middle"
    assert plane.marks.shape == (2, 2)
    assert plane.marks[:, 1] == pytest.approx(0, abs=1e-6)
    whole = float((b - a).norm())
    assert ig.Slice.crossing(model, a, b).area == pytest.approx((whole / 5) ** 2)
    c = torch.ones(5)
    third = ig.Slice.crossing(model, a, b, c, radius=0.2)
    on = third.embed(third.project(c[None]))[0]
    torch.testing.assert_close(on, c.double(), rtol=0, atol=1e-9)


def test_no_change_of_class_is_refused():
    model = net()
    a, _ = pair(model)
    with pytest.raises(DataError, match="the class does not change between the two inputs"):
        ig.Slice.crossing(model, a, a * 1.0001, radius=1.0)


def test_specs_of_the_same():
    model = "trained(mlp(8, inputs=64), digits(train, 200), epochs=1)"
    a, b = "digits(test)[0]", "digits(test)[1]"
    build = registry.get("noun", "Slice").build
    plane = build(f"crossing({model}, {a}, {b}, radius=0.5)")
    x, y = (ig.batches("digits(test)").samples[i][0] for i in (0, 1))
    at, _, _ = first_crossing(ig.load(model), x, y)
    same = build(f"between({a}, {b}, at={at!r}, radius=0.5)")
    for name in ("origin", "basis", "corners", "marks"):
        np.testing.assert_array_equal(getattr(plane, name), getattr(same, name))


def test_anchors_outside_of_their_square_are_told():
    a, b = torch.zeros(5), torch.ones(5)
    with pytest.warns(UserWarning, match=r"2 of 2 anchors lie outside .* radius=1.12 holds them"):
        plane = ig.Slice.anchors(a, b, radius=0.5)
    assert "0 of 2 anchors inside" in repr(plane)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plane = ig.Slice.anchors(a, b, radius=1.2)
    assert repr(plane) == (
        "Slice: square, 2.4 x 2.4 around (0, 0) in inputs of shape [5], 2 of 2 anchors inside, at "
        "(-1.118, 0), (1.118, 0); the middle at t = 0.5 from the first to the second"
    )


def test_zoom_has_the_axes_of_the_slice():
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plane = ig.Slice.through(*images)
    small = plane.zoom((0.3, -0.2), 0.1)
    assert small.shape == plane.shape
    np.testing.assert_allclose(small.corners.mean(0), (0.3, -0.2), atol=1e-12)
    np.testing.assert_allclose(small.area, 0.04, rtol=1e-12)
    same = np.array([[0.25, -0.15]])
    assert torch.equal(small.embed(same), plane.embed(same))
    with pytest.raises(OptionError, match="no inside"):
        plane.zoom((0, 0), 0.0)


def float32_images(count, seed=1):
    return torch.rand(count, 784, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.5, 0.3, 7.0])
def test_a_plane_of_rounding_noise_is_refused(dtype, t):
    """How near to a line counts as on it follows from the type that the inputs were given in."""
    a, b = float32_images(2).to(dtype)
    on = a + t * (b - a)
    if dtype != torch.float64:
        assert (a.double() + t * (b.double() - a.double()) - on.double()).norm() > 1e-9, "rounded"
    flat = nn.Linear(784, 2)
    with torch.no_grad():
        flat.weight.copy_((b - a).float().expand(2, -1) * torch.tensor([[1.0], [-1.0]]))
        flat.bias.copy_(-flat.weight @ ((a + b) / 2).float())
    for made in (
        lambda: ig.Slice.through(a, b, on),
        lambda: ig.Slice.anchors(a, b, on, radius=1.0),
        lambda: ig.Slice.between(a, b, on, at=0.5, radius=1.0),
        lambda: ig.Slice.crossing(flat, a, b, on, radius=1.0),
    ):
        with pytest.raises(DataError, match="lie on one line"):
            made()
    with pytest.raises(DataError, match="lie on one line"):
        ig.Slice.polygon_of(torch.stack([a, b, on]))
    with pytest.raises(DataError, match="directions u and v are parallel"):
        ig.Slice.square(a, b, t * b, radius=1.0)
    with pytest.raises(DataError, match="parallel or zero"):
        ig.Slice.polygon(a, torch.stack([b, t * b], 1), [[0, 0], [1, 0], [0, 1]])


def test_numpy_arrays_have_their_precision_too():
    a, b = float32_images(2).numpy()
    with pytest.raises(DataError, match="lie on one line"):
        ig.Slice.through(a, b, (a + b) / 2)
    a, b = a.astype(np.float64), b.astype(np.float64)
    ig.Slice.through(a, b, (a + b) / 2 + 1e-7 * float32_images(1, 2).numpy()[0])


def test_what_is_no_rounding_passes():
    a, b = float32_images(2)
    beside = float32_images(1, 2)[0] - 0.5
    extent = float((b - a).norm())
    c = (a + b) / 2 + 1e-4 * extent * beside / beside.norm()
    plane = ig.Slice.through(a, b, c)
    assert plane.marks[2, 1] == pytest.approx(1e-4 * extent, rel=0.2)
    near = a + 0.01 * (b - a)  # an image that differs little, and a third one beside the two
    c = (a + near) / 2 + 1e-3 * (near - a).norm() * beside / beside.norm()
    ig.Slice.through(a, near, c)
    # tiny slices with corners in float64, far from 0
    middle = 10 * a.double()
    u, v = (x.double() / x.norm() for x in (b, beside))
    small = ig.Slice.through(middle, middle + 1e-9 * u, middle + 1e-9 * v)
    assert small.marks[1] == pytest.approx([1e-9, 0], abs=1e-12)
    corners = torch.stack([middle - 1e-9 * u, middle + 1e-9 * v, middle + 1e-9 * u])
    ig.Slice.polygon_of(corners)
    ig.Slice.anchors(a, torch.nextafter(a, b), radius=1e-3)  # the other direction is drawn: any is
    ig.Slice.polygon(a, torch.stack([1e-10 * b, beside], 1), [[0, 0], [1, 0], [0, 1]])


def test_float32_corners_of_a_small_polygon_lie_in_a_plane():
    """Their rounding is more than 1e-6 of an extent that is small beside the inputs."""
    a, u, v = float32_images(3)
    corners = torch.stack([a, a + 1e-3 * u, a + 1e-3 * (u + v), a + 1e-3 * v])
    assert ig.Slice.polygon_of(corners).marks.shape == (4, 2)
    bent = corners.double()
    bent[2] += 1e-5 * float32_images(1, 5)[0]
    with pytest.raises(DataError, match="don't lie in one plane"):
        ig.Slice.polygon_of(bent)


def test_three_inputs_two_of_which_are_one_within_rounding():
    a, c = float32_images(2)
    with pytest.raises(DataError, match="a and b are the same within their rounding"):
        ig.Slice.through(a, torch.nextafter(a, c), c)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda a, b: ig.Slice.anchors(a, a, radius=1), "x1 and x2 are the same"),
        (lambda a, b: ig.Slice.anchors(a, b, a, radius=1), "x1 and x3 are the same"),
        (lambda a, b: ig.Slice.between(a, a, at=0.5, radius=1), "a and b are the same"),
        (lambda a, b: ig.Slice.square(a, b, b, radius=1), "directions u and v are parallel"),
        (lambda a, b: ig.Slice.square(a, 0 * b, b, radius=1), "the direction u is zero"),
        (lambda a, b: ig.Slice.anchors(a[:1], radius=1), "one number lie in no plane"),
        (lambda a, b: ig.Slice.anchors(a[0], radius=1), "one number lie in no plane"),
        (lambda a, b: ig.Slice(a[:1], b[None, :2], np.eye(3, 2), (1,)), "lie in no plane"),
    ],
)
def test_the_message_names_what_was_given(made, message):
    with pytest.raises(DataError, match=message) as caught:
        made(torch.zeros(5), torch.ones(5))
    assert "three inputs" not in str(caught.value), "nobody gave three that lie on a line"


@pytest.mark.parametrize("radius", [1e300, 1e-300])
def test_sizes_that_float64_does_not_hold(radius):
    a, u, v = torch.eye(5)[:3]
    with pytest.raises(OptionError, match="the square has no"):
        ig.Slice.square(a, u, v, radius=radius)
    with pytest.raises(DataError, match=r"too (small|large) for float64"):
        ig.Slice.box2d([0, 0], [radius, radius])
    with pytest.raises(OptionError, match="one point in float64"):
        ig.Slice.box2d([0, 0], [1, 1]).zoom((0.5, 0.5), 1e-100)


def test_options_of_slices():
    a, b, c = torch.eye(5)[:3]
    plain = ig.Slice.anchors(a, radius=1.0)
    for one in (torch.tensor(1.0), np.float32(1), np.array([1]), 1):
        assert ig.Slice.anchors(a, radius=one).area == plain.area
    model = net()
    start, end = pair(model)
    for made in (
        lambda r: ig.Slice.anchors(a, radius=r),
        lambda r: ig.Slice.between(a, b, at=0.5, radius=r),
        lambda r: ig.Slice.between(a, b, at=r, radius=1.0),
        lambda r: ig.Slice.square(a, b, c, radius=r),
        lambda r: ig.Slice.crossing(model, start, end, radius=r),
        lambda r: ig.Slice.through(a, b, c, margin=r),
        lambda r: ig.Slice.box2d([0, 0], [1, 1]).zoom((0.5, 0.5), r),
    ):
        for wrong in ("x", True, torch.ones(2), [1.0]):
            with pytest.raises(OptionError, match="is no number: got"):
                made(wrong)
    for made in (
        lambda g: ig.Slice.anchors(a, radius=1, generator=g),
        lambda g: ig.Slice.between(a, b, at=0.5, radius=1, generator=g),
        lambda g: ig.Slice.crossing(model, start, end, generator=g),
    ):
        with pytest.raises(OptionError, match=r"torch.Generator\(\).manual_seed\(3\)"):
            made(3)


def test_arguments_of_a_crossing_in_the_wrong_order():
    model = net()
    a, b = pair(model)
    with pytest.raises(OptionError, match="The network comes first"):
        ig.Slice.crossing(a, b, model)
    with pytest.raises(DataError, match="input b is not made of real numbers: got Sequential"):
        ig.Slice.crossing(model, a, model)
    with pytest.raises(DataError, match=r"got Tensor of torch\.complex64"):
        ig.Slice.through(a, b, a * 1j)
    same = ig.Slice.crossing(model, a.numpy(), b.numpy(), radius=0.2)
    np.testing.assert_array_equal(same.origin, ig.Slice.crossing(model, a, b, radius=0.2).origin)


def test_a_slice_says_where_it_is():
    assert repr(ig.Slice.box2d([1, -1], [3, 2])) == (
        "Slice: square, 2 x 3 around (2, 0.5) in inputs of shape [2]"
    )
    a, b = torch.zeros(5), torch.ones(5)
    text = repr(ig.Slice.between(a, b, at=0.25, radius=0.1))
    assert "around (0, 0)" in text
    assert "at (-0.559, 0), (1.677, 0); the middle at t = 0.25 from the first" in text
    x, y = torch.tensor([[1.0, 2.0], [1.0, 4.0]])
    text = repr(ig.Slice.anchors(x, y, radius=2.0))
    assert "around (1, 3)" in text
    assert "at (1, 2), (1, 4)" in text, "inputs of two numbers are places themselves"
    assert "t =" not in repr(ig.Slice.through(*torch.eye(5)[:3]))
    assert "around (0.3, -0.2)" in repr(ig.Slice.through(*torch.eye(5)[:3]).zoom((0.3, -0.2), 0.1))
    angle = torch.arange(8) * np.pi / 4
    many = repr(ig.Slice.polygon_of(torch.stack([angle.cos(), angle.sin(), angle.cos()], 1)))
    assert "8 of 8 anchors inside" in many
    assert many.count("(") == 5, "four of them and the middle"
