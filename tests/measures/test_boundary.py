"""The traced boundary against that of the partition, which is found another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import isogon as ig
from isogon.cpwl.program import mlp
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.junctions import Junctions
from isogon.measures.boundary.measure import boundary, traced
from isogon.measures.partition.lowering import lowered
from reference.same_curves import compared

SQUARE = ig.Slice.box2d((-3, -3), (3, 3))


class Parts(nn.Module):
    """A small network of random parts: skips, maxima, pooling, shared weights, four kinks."""

    kinks = (F.relu, lambda z: F.leaky_relu(z, 0.1), F.hardtanh, torch.abs)

    def __init__(self, seed: int, outputs: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        width = int(rng.choice([6, 8, 10, 12]))
        torch.manual_seed(seed)
        self.chosen = rng.integers(4, size=(3, 2)).tolist()
        self.first, self.shared = nn.Linear(2, width), nn.Linear(width, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.conv, self.mix = nn.Conv1d(1, 3, 3, padding=1), nn.Linear(3 * (width // 2), width)
        self.last = nn.Linear(width, outputs)
        with torch.no_grad():  # so that there is a boundary
            self.last.bias -= self(6 * torch.rand(256, 2) - 3).mean(0)

    def forward(self, x):
        h = F.relu(2 * self.first(x))
        for (part, kink), own in zip(self.chosen, self.own, strict=True):
            bend = Parts.kinks[kink]
            if part == 0:
                h = h + bend(1.5 * own(h))
            elif part == 1:
                h = torch.maximum(own(h), self.shared(h))
            elif part == 2:
                h = self.mix(F.max_pool1d(bend(self.conv(h[:, None])), 2).flatten(1))
            else:
                h = bend(self.shared(bend(1.5 * self.shared(h))))
        return self.last(h)


def same(b, p):
    """Fails unless the boundaries agree; returns how many whole closed curves were missed."""
    found = compared(b, p)
    assert b.complete
    assert found["spurious"] == 0
    assert found["open"] == 0, "a curve that was traced in part"
    assert found["length"] < 1e-9
    assert found["distance"] < 1e-9
    return found["closed"]


@pytest.mark.parametrize(
    "seed", [*range(10), *(pytest.param(n, marks=pytest.mark.long) for n in range(10, 50))]
)
def test_random_networks_have_the_boundary_of_their_partition(seed):
    net = Parts(seed, 1 + seed % 4).eval()
    p = ig.partition(net, SQUARE)
    assert len(p.boundary)
    b = traced(net, SQUARE, 50)
    assert same(b, p) <= 1, "closed curves that a grid of 50 lines misses"


@pytest.mark.parametrize(
    ("seed", "power"), [(0, 20), (8, 9), (9, 16), (12, 14), (45, 16), (7, -18)]
)
def test_a_huge_class_hides_no_other(seed, power, monkeypatch):
    """What rounding leaves of it is more than what lies between the others."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4 + seed % 2)
    ).double()
    with torch.no_grad():
        net[-1].bias -= net(6 * torch.rand(256, 2).double() - 3).mean(0)
        net[-1].weight[0] *= 10.0**power
        net[-1].bias[0] *= 10.0**power
    p = ig.partition(net, SQUARE)
    assert set(np.unique(p.boundary_classes)) >= {0, 1, 2, 3}
    if power > 0:  # along the boundary of class 0 no third class is larger than the other one
        own = p.boundary_classes[:, 0] == 0
        value = net(torch.from_numpy(p.boundary[own].mean(1))).detach().numpy()[:, 1:]
        other = p.boundary_classes[own, 1:] - 1
        assert (value <= np.take_along_axis(value, other, 1) + 1e-9).all()
    b = traced(net, SQUARE, 100)
    assert same(b, p) == 0
    assert b.certify().passed
    monkeypatch.setattr("isogon.measures.boundary.trace.PATIENCE", 0)
    carried = traced(net, SQUARE, 100)
    assert same(carried, p) == 0
    assert carried.certify().passed
    b.certify(200).require()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("bias", [0, 1])
def test_networks_of_small_integers_have_it_too(seed, bias):
    """Many units vanish in one point, on one line, everywhere; without biases all in the origin."""
    rng = np.random.default_rng(seed)
    shapes = (6, 2), (5, 6), (1 + seed % 3, 5)
    low = -1 if bias else -3
    weights = [torch.from_numpy(rng.integers(low, 1 - low, s).astype(float)) for s in shapes]
    biases = [torch.from_numpy(bias * rng.integers(-1, 2, s[0]).astype(float)) for s in shapes]
    net = mlp(weights, biases)
    p = ig.partition(net, SQUARE)
    assert len(np.unique(p.boundary.mean(1).round(9), axis=0)) == len(p.boundary)
    b = traced(net, SQUARE, 30)
    assert same(b, p) == 0
    b.certify(100).require()


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(fan_in, fan_out, 3, stride, 1)
        self.two = nn.Conv2d(fan_out, fan_out, 3, 1, 1)
        self.skip = nn.Conv2d(fan_in, fan_out, 1, stride)

    def forward(self, x):
        return F.relu(self.skip(x) + self.two(F.relu(self.one(x))))


def residual(width=4):
    """A residual CNN of random weights for images of 32 x 32, and three images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), Block(width, width, 1),
        Block(width, 2 * width, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    ).eval()  # fmt: skip
    images = torch.rand(256, 3, 32, 32)
    with torch.no_grad():
        net[-1].weight /= net(images).std()
        net[-1].bias -= net(images).mean(0)
    return net, images


@pytest.mark.parametrize("radius", [0.1, pytest.param(0.8, marks=pytest.mark.long)])
def test_a_residual_network_has_the_boundary_of_its_partition(radius):
    """On a square around a place where two images' classes meet."""
    net, images = residual()
    with torch.no_grad():
        label = net(images).argmax(1)
        a, b = images[0].double(), images[label != label[0]][0].double()
        for _ in range(40):
            middle = (a + b) / 2
            same_class = net(middle[None].float()).argmax(1) == label[0]
            a, b = (middle, b) if same_class else (a, middle)
    plane = ig.Slice.anchors(a, radius=radius, generator=torch.Generator().manual_seed(0))
    p, found = ig.partition(net, plane), traced(net, plane, 16)
    assert len(p) > 500
    assert len(p.boundary) >= 10
    assert same(found, p) == 0
    found.certify(50).require()


def test_curves_hang_together():
    b = traced(Parts(3, 4).eval(), SQUARE, 50)
    assert list(b.to_frame().columns) == ["curve", "class_i", "class_j", "length", "closed"]
    for k in range(len(b)):
        corners = b.curve(k)
        length = np.linalg.norm(np.diff(corners, axis=0), axis=1).sum()
        assert length == pytest.approx(b.table["length"][k], rel=1e-12)
        # class_i on the left of the curve, class_j on the right
        m = int(np.linalg.norm(np.diff(corners, axis=0), axis=1).argmax())
        step = corners[m + 1] - corners[m]
        side = 1e-6 * np.array([-step[1], step[0]]) / np.linalg.norm(step)
        middle = corners[m : m + 2].mean(0)
        left, right = b.frozen.label(np.stack([middle + side, middle - side]))
        assert (left, right) == (b.table["class_i"][k], b.table["class_j"][k])
    assert b.summary()["length"].sum() == pytest.approx(b.length)
    assert b.summary()["pieces"].sum() == b.meta["pieces"]


def test_the_level_set_of_a_network_of_one_output():
    """max(|x|, |y|) = 1 is the square; its corners lie on a kink that both sides share."""

    class Box(nn.Module):
        def forward(self, x):
            return torch.maximum(x[:, :1].abs(), x[:, 1:].abs()) - 1

    b = traced(Box(), SQUARE, 20)
    assert b.length == pytest.approx(8, rel=1e-12)
    assert b.table["closed"].tolist() == [True]
    assert set(map(tuple, b.points.round(12).tolist())) >= {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert b.segment_classes.tolist() == [[0, 1]] * len(b.segments)
    assert b.certify().passed


def bump(at, size):
    """A network that is positive on a small diamond only: size - |x - a| - |y - b|."""
    a, b = at
    first = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).double()
    return mlp(
        [first, torch.tensor([[-1.0, -1, -1, -1]]).double()],
        [torch.tensor([-a, a, -b, b]).double(), torch.tensor([size]).double()],
    )


def test_a_small_closed_curve_between_the_lines_is_found_by_the_second_image():
    """One that both grids must miss is not found: the stated limit."""
    plane, grid = ig.Slice.box2d((0, 0), (1, 1)), 10
    first = traced(bump((0.9, 0.9), 0.01), plane, grid)
    x, y = first.arrays["image_x"], first.arrays["image_y"]
    later = traced(bump((x[4] + 0.05, y[4] + 0.05), 0.01), plane, grid)
    assert later.meta["missed"]["curves"] == 1
    assert later.meta["missed"]["length"] == pytest.approx(4 * 2**0.5 * 0.01)
    assert later.table["closed"].tolist() == [True]
    seen = traced(bump((x[4], y[4]), 0.01), plane, grid)
    assert seen.meta["missed"]["curves"] == 0
    assert len(seen) == 1
    between = traced(bump((x[4] + 0.025, y[4] + 0.025), 0.01), plane, grid)
    assert len(between) == 0
    assert len(traced(bump((x[4] + 0.025, y[4] + 0.025), 0.01), plane, 200)) == 1


def test_three_classes_meet_in_points_where_three_curves_end():
    net = mlp(
        [torch.eye(2).double(), torch.tensor([[1.0, 0.3], [-0.6, 1], [-0.5, -1]]).double()],
        [torch.zeros(2).double(), torch.tensor([0.1, 0, 0.2]).double()],
        slope=1.0 - 1e-3,
    )
    b = traced(net, SQUARE, 20)
    assert len(b) == 3
    assert sorted(b.ends.ravel().tolist()) == [1, 1, 1, 2, 2, 2]
    assert b.certify()["triple points"].passed


def test_only_given_classes_compete():
    net = Parts(3, 4).eval()

    class Two(nn.Module):
        def forward(self, x):
            return net(x)[:, [1, 3]]

    b, alone = traced(net, SQUARE, 50, (3, 1)), traced(Two(), SQUARE, 50)
    assert b.length == pytest.approx(alone.length, rel=1e-12)
    assert np.unique(b.segment_classes).tolist() == [1, 3]
    for wrong in ((1,), (1, 4), (-1, 2)):
        with pytest.raises(OptionError, match="no such classes"):
            boundary(net, SQUARE, classes=wrong)
    with pytest.raises(OptionError, match="no grid"):
        boundary(net, SQUARE, grid=1)


def test_classes_that_are_tied_on_an_area_are_told():
    """relu(x) - relu(x - 1) - relu(y): zero on a quarter; its border is the boundary there."""
    net = mlp(
        [torch.eye(2).double(), torch.tensor([[1.0, -1.0]]).double()],
        [torch.zeros(2).double(), torch.zeros(1).double()],
    )
    p, b = ig.partition(net, SQUARE), traced(net, SQUARE, 50)
    assert same(b, p) == 0
    assert b.meta["tied"]


def test_certificate_fails_where_a_boundary_is_wrong():
    net = Parts(3, 4).eval()

    def failed(change):
        b = traced(net, SQUARE, 50)
        change(b)
        return {c.name for c in b.certify(100) if not c.passed}

    def moved(b):
        b.arrays["points"] = b.points + 1e-7

    def shorter(b):  # a curve that is cut off
        b.ends[0, 0] = 0

    def gone(b):
        n = len(b) - 1
        b.table = b.table.iloc[1:].reset_index(drop=True)
        b.arrays["points"] = b.points[b.offsets[1] :]
        b.arrays["offsets"] = b.offsets[1:] - b.offsets[1]
        b.arrays["ends"] = b.ends[1:]
        assert len(b) == n

    def swapped(b):
        b.table[["class_i", "class_j"]] = b.table[["class_j", "class_i"]].to_numpy()

    assert failed(lambda b: None) == set()
    assert "ties" in failed(moved)
    assert "ends" in failed(shorter)
    assert "grid" in failed(gone)
    assert "grid" in failed(swapped)


def test_rounding_is_looked_at_where_the_least_of_it_explains_nothing(monkeypatch):
    b = traced(Parts(3, 4).eval(), SQUARE, 50)
    quick = b.certify(100)
    monkeypatch.setattr("isogon.measures.boundary.certificate.SAMPLE", 0)  # nothing is explained
    whole = b.certify(100)
    assert quick.passed
    assert whole.passed, str(whole)
    for name in ("ties", "largest"):  # beside the least rounding a difference is no smaller
        assert whole[name].value <= quick[name].value
    b.arrays["points"] = b.points + 1e-12
    assert not b.certify(100)["ties"].passed


def test_what_is_not_whole_says_so(monkeypatch):
    monkeypatch.setattr(Junctions, "meet", lambda *a: [])
    monkeypatch.setattr("isogon.measures.boundary.trace.ATTEMPTS", -1)
    monkeypatch.setattr("isogon.measures.boundary.trace.SHORT", 0.02)
    with pytest.warns(IncompleteWarning, match="not whole"):
        b = boundary(Parts(3, 4).eval(), SQUARE, grid=20)
    assert not b.complete
    assert not b.certify(10).passed


def test_derivatives_of_frozen_pieces_are_those_of_the_network():
    """On the network's own pieces value and slope are its own: by differences in the region."""
    program, plane = lowered(Parts(5, 3).eval(), SQUARE)
    frozen = Frozen(program, plane)
    at = np.random.default_rng(0).uniform(-3, 3, (20, 2))
    here, _ = frozen.held(at, frozen.natural(at))
    assert np.abs(here.value - frozen.values(at)).max() < 1e-12
    for axis in (0, 1):
        step = 1e-7 * np.eye(2)[axis]
        found = (frozen.values(at + step) - frozen.values(at - step)) / 2e-7
        assert np.abs(here.slope[axis] - found).max() < 1e-6


def test_models_and_global_random_state_are_left_alone():
    net = Parts(7, 3).train()
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    boundary(net, SQUARE, grid=10)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
