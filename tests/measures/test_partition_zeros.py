"""What counts as zero: one huge, tiny or infinite part, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

import isogon as ig
from isogon.cpwl.rounding import EPS, errors
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice
from reference import exact_cells as exact
from reference.spoiled import Net

SQUARE = Slice.box2d([-1, -1], [1, 1])
CORNERS = [(Fraction(x), Fraction(y)) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def errors_of(program, x, cut, entries, **options):
    """Carried error of one entry, or of a group, of what a cut sees at points."""
    options = {"directions": torch.eye(x.shape[1]), "reach": 1.0} | options
    found = list(errors(program, x, **options))[cut]
    if found.ndim == 2:
        return found[:, entries].numpy()
    return 2 * found[:, entries].amax(-1).numpy()


def entry_errors(program, found, cut, i, j):
    """Of `errors`, those of an entry of what a cut sees, or of the difference of two, by point."""
    if found[cut].ndim == 2:
        return found[cut][:, i]
    index = program.cuts[cut].index
    both = [found[cut][:, index == k].amax(1) for k in (i, j)]
    return both[0] + both[1]


KINDS = st.sampled_from(["mlp", "conv", "max", "padded", "masked", "where", "skip"])
HOW = st.sampled_from(["bias", "row", "column", "constant"])
POWER = st.integers(-20, 20)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kind=KINDS, how=HOW, power=POWER)
@example(seed=1461, kind="where", how="column", power=14)
@example(seed=410053, kind="max", how="row", power=12)
@example(seed=10617, kind="max", how="row", power=20)
@example(seed=446212, kind="padded", how="row", power=17)
@example(seed=16500, kind="mlp", how="column", power=14)
@example(seed=9625, kind="max", how="column", power=14)
@example(seed=269478, kind="mlp", how="column", power=15)
def test_breakpoints_on_a_line(seed, kind, how, power):
    """Each that is farther from its neighbours than rounding, and no others.

    What is made must lie within rounding of a place, or be where its own unit is zero within
    rounding: behind a place where others vanish a unit may be flatter than at its own.
    """
    net = Net(seed, kind, 4).spoil(how, 10.0**power)
    a, b = net.rng.standard_normal((2, 4))
    layers, line = net.rational(), exact.rational([a.tolist(), b.tolist()])
    truth = exact.on_line(layers, *line)
    program = net.program()
    found = ig.segments(program, torch.from_numpy(a), torch.from_numpy(b))
    places = sorted(truth)
    at = np.array([0.0, *map(float, places), 1.0])
    middle = (at[1:] + at[:-1]) / 2

    known = {
        "given": torch.from_numpy(EPS * (np.abs(a) + np.abs(b))),
        "directions": torch.from_numpy(b - a)[None],
    }

    def errors_at(t, cut, unit):
        """The most of those at a place and in the cells beside it, of points told by places."""
        nearest = np.searchsorted(middle, t)
        around = middle[np.clip([nearest - 1, nearest], 0, len(middle) - 1)]
        x = torch.from_numpy(a + np.append(around, t)[:, None] * (b - a))
        return errors_of(program, x, cut, unit, **known).max()

    width, wide = np.zeros((2, len(at)))
    for k, place in enumerate(places, 1):
        cut, unit, slope = truth[place]
        x = torch.from_numpy(a + at[k : k + 1, None] * (b - a))
        own = errors_of(program, x, cut, unit)[0]
        # in a cell its unit is known as well as at the end where it is known least
        most = max(errors_at(t, cut, unit) for t in at[k - 1 : k + 2])
        for column, e in ((width, own), (wide, max(own, most))):
            column[k] = min(64 * e / max(float(slope), 1e-300) + 8 * EPS, 2.0)
    apart = np.diff(at) > wide[1:] + wide[:-1]
    for k in range(1, len(at) - 1):
        if apart[k - 1] and apart[k]:
            gap = np.abs(found.breakpoints - at[k]).min(initial=9)
            assert gap <= width[k], f"{places[k - 1]} is missing"
    made = found.table[found.table["unit"] >= 0]
    for t, site, unit in made[["end", "site", "unit"]].itertuples(index=False):
        if not (np.abs(at - t) <= width)[1:-1].any():
            cut = [stage.site for stage in program.cuts].index(site)
            z = exact.lead(layers, cut, unit, exact.between(*line, Fraction(t)))
            e = errors_at(t, cut, unit)
            assert abs(float(z)) <= 64 * e, f"{t} is none"
    if apart.all():
        assert len(made) == len(places)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), kind=KINDS, how=HOW, power=POWER,
    grain=st.sampled_from([4, 0]), at=st.sampled_from([0, 0, 10_000]),
)  # fmt: skip
@example(seed=656896, kind="max", how="column", power=12, grain=0, at=0)
def test_cells_of_a_square(seed, kind, how, power, grain, at):
    """Their number, wherever every unit that cuts is farther from zero than rounding.

    Also of inputs around 10,000 that the first layer centres: all that follows inherits its noise.
    """
    net = Net(seed, kind, 2, grain).spoil(how, 10.0**power).centre([float(at)] * 2)
    cells, record = exact.on_polygon(net.rational(), [(x + at, y + at) for x, y in CORNERS])
    program = net.program()
    reach, moved = 1.0 + at, 1e-9 + 1e-15 * at**2
    size = EPS * reach if at else 0.0
    options = {"given": size, "directions": torch.eye(2), "reach": reach}
    for cut, i, j, polygon, most in record:
        x = torch.tensor([[float(v) for v in c] for c in polygon], dtype=torch.float64)
        e = entry_errors(program, list(errors(program, x, **options)), cut, i, j)
        assume(float(most) > 64 * float(e.max()))
        moved = max(moved, 64 * float(e.max()) / float(most))
    corners, values = exact.leads(net.rational(), cells)
    x = torch.tensor([[float(v) for v in c] for c in corners], dtype=torch.float64)
    found = list(errors(program, x, **options))
    for cut, i, j, n, most in values:  # nor does one all but touch a cell that it does not cut
        assume(float(most) > 64 * float(entry_errors(program, found, cut, i, j)[n]))
    p = partition(program, Slice.box2d([at - 1, at - 1], [at + 1, at + 1]))
    assert len(p) == len(cells)
    areas = np.sort([float(exact.area(c)) for c in cells])
    assert np.sort(p.area) == pytest.approx(areas, abs=moved)
    certificate = p.certify(200)
    undecided = {"decided"} if abs(power) > 6 else set()
    failed = {check.name for check in certificate if not check.passed}
    assert failed <= undecided, str(certificate)


@pytest.mark.parametrize("value", [-torch.inf, -1e30, -1e16])
def test_padding_below_everything(value):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 4, 2), nn.ConstantPad2d(1, value), nn.MaxPool2d(3, 3), nn.Flatten(),
        nn.Linear(75, 4),
    )  # fmt: skip
    plain = nn.Sequential(net[0], nn.MaxPool2d(3, 3, padding=1), *net[3:])
    a, b = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    found = ig.segments(net, a, b)
    assert np.array_equal(found.breakpoints, ig.segments(plain, a, b).breakpoints)
    assert len(found.breakpoints) > 10
    t = np.linspace(0, 1, 501)
    x = a + torch.from_numpy(t).float()[:, None, None, None] * (b - a)
    with torch.no_grad():
        assert np.abs(found.at(t) - net(x).numpy()).max() < 1e-5
    plane = Slice.anchors(a, b, radius=0.5, generator=torch.Generator().manual_seed(2))
    p, q = partition(net, plane), partition(plain, plane)
    assert len(p) == len(q) > 20
    assert p.certify(500).passed
    assert ig.verify(net, a[None]).passed


@pytest.mark.parametrize("bias", [-1e16, -1e13, 1e13, 1e16, 1e20])
def test_a_unit_that_never_changes_hides_nothing(bias):
    def count(value):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        if value is not None:
            net[0].bias.data[3] = value
        p = partition(net, SQUARE)
        assert p.certify(500).passed
        a, b = torch.tensor([[-1.0, -1.0], [1.0, 0.7]], dtype=torch.float64)
        return len(p), len(ig.segments(net, a, b).table)

    assert count(bias) == count(None)
