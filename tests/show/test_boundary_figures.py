"""Figures of traced boundaries, and of partitions in print."""

from __future__ import annotations

import io
import re
import warnings
import zlib

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import ModelError, OptionError
from isogon.show import style

BOX = ig.Slice.box2d((-1, -1), (1, 1))
NAMES = ["cat", "dog", "ship", "frog"]


def net(outputs, seed=0, width=10):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                             nn.Linear(width, outputs))  # fmt: skip


@pytest.fixture(scope="module")
def traced():
    return ig.boundary(net(4), BOX, grid=40)


def texts(ax):
    return {t.get_text() for t in ax.texts}


def test_a_zoom_is_a_small_square_at_the_boundary(traced):
    part = traced.zoom(0.1)
    assert part.shape == (2,)
    near = np.linalg.norm(traced.points - part.origin, axis=1).min()
    assert near < 1e-12
    assert np.ptp(part.embed(part.corners).numpy(), axis=0) == pytest.approx([0.2, 0.2])
    p = ig.partition(net(4), traced.zoom(regions=20))
    assert 7 < len(p) < 60
    assert len(p.boundary)
    own = traced.zoom(0.05, at=np.array([0.25, -0.5]))
    assert own.origin == pytest.approx([0.25, -0.5])


def test_a_zoom_needs_a_boundary_and_a_network(traced, tmp_path):
    traced.save(tmp_path / "b")
    read = ig.read(tmp_path / "b")
    with pytest.raises(ModelError, match="no network to count regions"):
        read.zoom()
    assert read.zoom(0.1).shape == (2,)
    none = ig.boundary(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ig.Slice.box2d((9, 9), (10, 10)))
    if not len(none):
        with pytest.raises(OptionError, match="no boundary"):
            none.zoom(0.1)


def test_an_inset_shows_the_regions_of_a_part(traced):
    part = traced.zoom(0.1)
    p = ig.partition(net(4), part)
    fig = ig.draw(traced, inset=p, names=NAMES)
    left, right = fig.axes
    assert "10×" in right.get_title("left")
    assert right.get_xlabel() == "coordinate 1 of the part"  # 0 in its middle
    place = left.lines[-1].get_xydata()
    corners = part.embed(part.corners).numpy()
    mapped = (corners - traced.plane.origin) @ np.linalg.pinv(traced.plane.basis).T
    assert np.abs(place[:4] - mapped).max() < 1e-9
    assert {t.get_text() for t in left.get_legend().texts} <= {*NAMES, "boundary"}
    assert texts(left) & set(NAMES)


def test_an_inset_of_another_plane_is_refused():
    wide = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    b = ig.boundary(wide, ig.Slice.through(*x[:3]), grid=20)
    other = ig.partition(wide, ig.Slice.through(*x[3:]))
    with pytest.raises(OptionError, match="not in the boundary's plane"):
        ig.draw(b, inset=other)
    plane = ig.boundary(wide, ig.Slice.through(*torch.eye(3) * 100, margin=1), grid=20)
    at = plane.plane.embed(np.array([[9.0, 5.0]]))[0]
    # its corners are nearer to the plane than a millionth of the way from the origin of the slice
    tilted = ig.Slice.square(at, *torch.eye(3)[:2], radius=1e-6)
    with pytest.raises(OptionError, match="not in the boundary's plane"):
        ig.draw(plane, inset=ig.partition(wide, tilted))
    ig.draw(plane, inset=ig.partition(wide, plane.plane.zoom((9.0, 5.0), 1e-6)))
    with pytest.raises(OptionError, match=r"got inputs of shape \[2\], expected .* \[3\]"):
        ig.draw(b, inset=ig.partition(net(3), BOX))
    with pytest.raises(OptionError, match="the inset is no partition: got int"):
        ig.draw(b, inset=3)
    with pytest.raises(OptionError, match="each class needs a name"):
        ig.draw(b, names=["one"])
    for wrong in (False, "cat"):
        with pytest.raises(OptionError, match="labels=False"):
            ig.draw(b, names=wrong)


def test_an_inset_outside_of_the_slice_is_refused(traced):
    for low, high in (((3, 3), (4, 4)), ((1, -1), (2, 1))):
        with pytest.raises(OptionError, match="outside of the boundary's slice"):
            ig.draw(traced, inset=ig.partition(net(4), ig.Slice.box2d(low, high)))
    ig.draw(traced, inset=ig.partition(net(4), ig.Slice.box2d((0.5, 0.5), (2, 2))))
    across = ig.Slice.polygon(np.zeros(2), np.eye(2), [[-3, -0.1], [3, -0.1], [3, 0.1], [-3, 0.1]])
    ig.draw(traced, inset=ig.partition(net(4), across))  # without a corner in the other one


def test_an_inset_of_another_network_is_refused(traced, tmp_path):
    part = traced.zoom(0.2)
    own, other = ig.partition(net(4), part), ig.partition(net(4, seed=1), part)
    with pytest.raises(OptionError, match="of another network: got outputs that differ"):
        ig.draw(traced, inset=other)
    with pytest.raises(OptionError, match="of another network: got 3 outputs, expected 4"):
        ig.draw(traced, inset=ig.partition(net(3), part))
    traced.save(tmp_path / "b")
    own.save(tmp_path / "p")
    read = ig.read(tmp_path / "b")
    with pytest.warns(UserWarning, match=r"seems to be the partition of another network"):
        ig.draw(read, inset=other)
    two = ig.boundary(net(4), BOX, grid=40, classes=tuple(np.unique(traced.image)[:2].tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ig.draw(read, inset=own)
        ig.draw(read, inset=ig.read(tmp_path / "p"))
        ig.draw(two, inset=own)
    with pytest.raises(OptionError, match="of another network"):
        ig.draw(read.attach(net(4)), inset=other)


def test_patterns_tell_classes_apart_without_colour(traced):
    plain, hatched = (ig.draw(traced, hatch=h).axes[0] for h in (False, True))
    count = [len([c for c in ax.collections if getattr(c, "hatches", None)]) for ax in
             (plain, hatched)]  # fmt: skip
    assert count[0] == 0
    assert count[1] >= len(np.unique(traced.image)) - 1
    p = ig.partition(net(4), BOX)
    patterns = {c.get_hatch() for c in ig.draw(p, hatch=True).axes[0].collections} - {None}
    assert len(patterns) >= len(np.unique(p.label)) - 1
    inset = ig.draw(traced, hatch=True, inset=p).axes[1]
    assert {c.get_hatch() for c in inset.collections} - {None} == patterns


def test_signs_tell_the_sides_of_a_zero_set():
    b = ig.boundary(nn.Linear(2, 1, bias=False), BOX, grid=20)
    assert texts(ig.draw(b).axes[0]) >= {"−", "+"}
    assert texts(ig.draw(b, names=["in", "out"]).axes[0]) >= {"in", "out"}
    assert not texts(ig.draw(b, labels=False).axes[0]) & {"−", "+"}


def test_a_slice_in_one_class_says_so_and_shows_slopes():
    model = net(2)
    with torch.no_grad():
        model[-1].bias += torch.tensor([0.0, 50.0])
    p = ig.partition(model, BOX)
    title = ig.draw(p).axes[0].get_title("left")
    assert "All class 1: Regions by norm of their slope" in title
    assert "All dog" in ig.draw(p, names=["cat", "dog"]).axes[0].get_title("left")
    with torch.no_grad():
        model[-1].weight.zero_()
    assert "by area" in ig.draw(ig.partition(model, BOX)).axes[0].get_title("left")


def test_lines_are_thinner_where_there_are_many():
    assert style.thickness(1.0, 1.0, 3.0, 0.9) == 0.9
    dense = style.thickness(200.0, 1.0, 3.0, 0.9)
    side = 72 * 3.0
    assert dense * 200 * side == pytest.approx(style.INKED * side**2)
    assert style.thickness(1e9, 1.0, 3.0, 0.9) == style.THINNEST


def test_a_pdf_has_text_as_text_and_many_regions_as_an_image():
    p = ig.partition(net(4, width=90), BOX)
    assert len(p) > 4000  # from which regions are pixels
    file = io.BytesIO()
    ig.draw(p, names=NAMES).savefig(file, format="pdf")
    pdf = file.getvalue()
    assert len(pdf) < 3_000_000
    assert b"/Subtype /Image" in pdf
    assert b"/FontFile2" in pdf  # outlines of a TrueType font, not of every letter drawn
    assert b"/Type3" not in pdf
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    words = b"".join(_inflated(s) for s in streams)
    assert b" Tj" in words or b" TJ" in words
    assert words.count(b" l\n") < 50_000, "lines that are drawn one by one"


def _inflated(stream):
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_names_stay_within_the_slice(traced):
    """A name whose area is at the border moves inwards; a legend bears the patterns."""
    long = [f"a longer name {k}" for k in range(4)]
    fig = ig.draw(traced, names=long, hatch=True)
    ax = fig.axes[0]
    fig.canvas.draw()
    frame = ax.transData.transform(traced.plane.corners)
    for text in ax.texts:
        if text.get_text() in long:
            box = text.get_window_extent()
            assert frame[:, 0].min() <= box.x0
            assert box.x1 <= frame[:, 0].max()
    patterns = {p.get_hatch() for p in ax.get_legend().get_patches()}
    assert len(patterns) == len(np.unique(traced.image))
