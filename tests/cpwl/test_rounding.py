"""Carried rounding errors against exact rational arithmetic; coefficients of every linear stage."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from isogon.cpwl.bounds import Bounds
from isogon.cpwl.lower import lower
from isogon.cpwl.magnitudes import EPS, magnitude, squares
from isogon.cpwl.program import Program, mlp
from isogon.cpwl.rounding import ROUNDING, ErrorWalk, errors
from isogon.cpwl.stages import Affine, Max


def random_layers(widths, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    return weights, [torch.randn(s[0], generator=g, dtype=torch.float64) for s in shapes]


def exact_preactivations(weights, biases, x):
    """Of every layer, in rational numbers."""
    h, found = [Fraction(v) for v in x], []
    for w, b in zip(weights, biases, strict=True):
        rows = zip(w.tolist(), b.tolist(), strict=True)
        z = [
            sum((Fraction(a) * c for a, c in zip(row, h, strict=True)), Fraction(bias))
            for row, bias in rows
        ]
        found.append(z)
        h = [max(c, Fraction(0)) for c in z]
    return found


@pytest.mark.parametrize("huge", [1.0, 1e13, 1e-13])
def test_true_errors_stay_within_the_carried_ones(huge):
    weights, biases = random_layers([8, 16, 16, 3])
    weights[0][3] *= huge
    biases[1][5] *= huge
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    program = mlp(weights, biases)
    seen = [*program.preactivations(x).values(), program.evaluate(x)]
    share = []
    for z, e in zip(seen, errors(program, x), strict=True):
        assert e.shape == z.shape
    for n in range(len(x)):
        exact = exact_preactivations(weights, biases, x[n].tolist())
        for z, e, truth in zip(seen, errors(program, x), exact, strict=True):
            off = [abs(float(Fraction(a) - b)) for a, b in zip(z[n].tolist(), truth, strict=True)]
            share.append(np.array(off) / e[n].numpy())
    share = np.concatenate(share)
    assert share.max() < 2
    assert share.max() > 0.02  # and no idle bound: most are used to some hundredths


def test_inherited_noise_counts_and_stops_at_a_unit_that_is_off():
    one = torch.ones(1, 1, dtype=torch.float64)
    x = torch.full((1, 1), 1e4, dtype=torch.float64)
    program = mlp([one, one, one], [torch.tensor([-1e4 + 1.0]), torch.tensor([0.0]), None])
    first, second, _ = errors(program, x)
    assert second > 0.9 * first  # z = 1 there, but as wrong as the sum that made it
    off = mlp([one, one, one], [torch.tensor([-1e4 - 1.0]), torch.tensor([1.0]), None])
    assert list(errors(off, x))[1] < 1e-15


def test_rounding_of_coordinates_moves_along_the_slope():
    w = torch.tensor([[1e-3], [1e3]], dtype=torch.float64)
    program = mlp([w, torch.ones(1, 2, dtype=torch.float64)], [torch.zeros(2), None])
    x, along = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    (small, large), _ = (e[0] for e in errors(program, x, directions=along, reach=2.0))
    assert float(large / small) == pytest.approx(1e6)
    assert float(large) == pytest.approx(2e3 * np.finfo(float).eps)


def test_infinite_constants_carry_no_error():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConstantPad2d(1, -torch.inf), nn.MaxPool2d(2))
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    program = lower(net.double(), x)
    pooled, output = errors(program, x)
    assert bool(pooled.isfinite().all())
    assert bool(output.isfinite().all())
    assert float(pooled.amax()) < 1e-14
    assert float(pooled.amin()) == 0.0
    assert float(output.amin()) > 0


def test_bounds_hold_at_every_point():
    weights, biases = random_layers([5, 20, 20, 20, 2])
    program = mlp(weights, biases)
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bounds, found = Bounds(program, x), list(errors(program, x))
    z = program.preactivations(x)
    for k, stage in enumerate(program.cuts):
        i = program.stages.index(stage)
        bound = bounds.at(i)
        assert bool((bound >= found[k].amax(0)).all())
        assert bool((bound <= 20 * found[k].amax(0)).all())
        walk = ErrorWalk(program, x, meant=True)
        walk.to(i)
        assert torch.allclose(walk.entries()[1], found[k])
        bounds.cut(i, z[stage.site].amin(0).numpy(), z[stage.site].amax(0).numpy())


class Odd(nn.Module):
    """Many linear operations."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.norm = nn.BatchNorm2d(2)
        self.last = nn.Linear(6, 4)
        self.mix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        h = self.norm(self.up(self.conv(x)) - 2 * x) / 3
        h = torch.cat([h, -x.flip(-1)], 1)
        h = torch.nn.functional.avg_pool2d(nn.functional.pad(h, (1, 1, 1, 1), value=3.0), 2)
        h = torch.nn.functional.interpolate(h, scale_factor=2, mode="bilinear")
        h = self.last(h.mean(1)) @ self.mix
        h = torch.lerp(h, h.roll(1, -1), 0.25) + torch.einsum("nij,jk->nik", h, self.mix)
        return (torch.where(h.new_ones(4).bool(), h, -torch.inf)).sum(-1).relu()


def test_coefficients_of_all_stages_are_told_right():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    program = lower(Odd().double().eval(), x)
    known = 0
    for stage in program.stages:
        if not isinstance(stage, Affine):
            continue
        shapes = [program.shapes[name] for name in stage.inputs]
        for k, shape in enumerate(shapes):
            size = torch.Size(shape).numel()
            eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
            rows = [
                eye if j == k else torch.zeros(size, *s, dtype=torch.float64)
                for j, s in enumerate(shapes)
            ]
            w = stage.linear(*rows)
            none = [torch.zeros(1, *s, dtype=torch.float64) for s in shapes]
            size_of = magnitude(stage, *rows) - magnitude(stage, *none)
            assert torch.allclose(size_of, w.abs(), atol=1e-12), stage.op
            handed = squares(stage, *rows)
            assert bool((handed >= w.square() - 1e-12).all()), stage.op
            assert bool((handed <= w.abs().clamp(min=1) * w.abs() + 1e-12).all()), stage.op
            if stage.copies:
                assert bool((w.abs().flatten(1).sum(0) <= 1).all()), stage.op
        known += stage.weights is not None or stage.copies
    assert known == sum(isinstance(s, Affine) for s in program.stages) > 10


def test_an_unknown_linear_map_is_probed():
    w = torch.randn(6, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    stage = Affine(output="y", inputs=("x",), linear=lambda v: v @ w.T)
    e2 = torch.rand(3, 40, dtype=torch.float64)
    share = squares(stage, e2) / (e2 @ w.square().T)
    assert float(share.min()) > 0.2
    assert float(share.max()) < 5
    assert bool((magnitude(stage, e2) > 0.3 * (e2 @ w.abs().T)).all())


def test_a_maximum_hands_on_the_error_of_its_largest_entry():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)), nn.MaxPool1d(2)).double()
    net.get_parameter("0.bias").data[1] = -1e9
    x = torch.randn(5, 3, dtype=torch.float64)
    program = lower(net, x)
    (stage,) = program.cuts
    assert isinstance(stage, Max)
    entries, output = errors(program, x)
    assert float(entries[:, 0, 1].min()) > 1e-8 > float(output.max())


def one(value):
    return torch.tensor([[value]], dtype=torch.float64)


def test_within_rounding_of_a_knot_the_steeper_side_counts():
    """A unit that is off as computed and may be on in truth hands its error on; in bounds, too."""
    program = mlp([one(1.0), one(1.0)], [one(0.0)[0], one(0.0)[0]])
    noise = 1e-3
    for z, handed in ((0.0, noise), (-noise, noise), (noise, noise), (-2 * ROUNDING * noise, 0.0)):
        *_, output = errors(program, one(z), given=noise)
        assert float(output) == pytest.approx(handed, abs=1e-12)
    cut = next(i for i, s in enumerate(program.stages) if s is program.cuts[0])
    for high, on in ((-1e-15, True), (-1.0, False)):
        bounds = Bounds(program, one(1.0))
        bounds.at(cut)
        bounds.cut(cut, np.array([-2.0]), np.array([high]))
        _, square = bounds.held[program.stages[cut].output]
        assert bool(square > 0) is on


def test_bounds_begin_with_the_rounding_of_the_points():
    program = mlp([one(1.0), one(1.0)], [one(0.0)[0], one(0.0)[0]])
    first, _ = errors(program, one(1.0), given=EPS, directions=one(1.0), reach=1.0)
    cut = next(i for i, s in enumerate(program.stages) if s is program.cuts[0])
    assert float(Bounds(program, one(1.0)).at(cut)) >= float(first) > EPS


def test_a_maximum_of_equal_entries_hands_on_the_largest_error():
    index = torch.tensor([[0, 1]])
    stage = Max(output="m", inputs=("input",), site="m", index=index, shape=(1,))
    program = Program([stage], (2,))
    x = torch.ones(1, 2, dtype=torch.float64)
    given = torch.tensor([0.0, 1e-3], dtype=torch.float64)
    for order in ([0, 1], [1, 0]):
        *_, output = errors(program, x, given=given[order])
        assert float(output) == pytest.approx(1e-3)
    bounds = Bounds(program, x)
    bounds.held["input"] = bounds.held["input"][0], given.square()[None]
    bounds.cut(0, np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert float(bounds.held["m"][1]) == pytest.approx(1e-6), "one that reaches the largest counts"


def test_the_place_of_a_point_counts_at_cuts_alone():
    """The outputs are those at the coordinates that a mesh holds."""
    program = mlp([torch.randn(3, 2, dtype=torch.float64) for _ in range(1)], [None])
    x, ways = torch.randn(4, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    (here,), (there,) = errors(program, x), errors(program, x, directions=ways, reach=1e9)
    assert torch.equal(here, there)
    program = mlp([torch.eye(2, dtype=torch.float64)] * 2, [None, None])
    (cut, _), (moved, _) = errors(program, x), errors(program, x, directions=ways, reach=1e9)
    assert (moved > 1e6 * cut).all()


def test_a_huge_entry_does_not_hide_which_of_the_others_is_the_largest():
    """At the place meant it has the value of the best known of those that none clearly beats."""
    value = torch.tensor([[5e3, 1.0, 2.0]], dtype=torch.float64)
    given = torch.tensor([1e3, 1e-15, 1e-14], dtype=torch.float64)
    stage = Max(
        output="out", inputs=("input",), site="max", index=torch.tensor([[0, 1, 2]]), shape=(1,)
    )
    program = Program([stage], (3,))
    found = ErrorWalk(program, value, given, meant=True)
    found.to(1)
    assert [t.item() for t in found.entries()] == [2.0, pytest.approx(1e-14)]
