"""What is counted in a ball: the first site exactly, chords and discs by their own measures."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures import ball
from isogon.measures.ball import CORNERS
from isogon.measures.partition.forecast import Forecast, count


def conv():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        model(torch.randn(64, 2, 4, 4, dtype=torch.float64))
        model[0].weight[2] = 0  # constant channel: its hyperplanes are everywhere or nowhere
    return model.eval()


def first_by_definition(model, x, radius):
    """Units of the first site whose zero set meets the ball, by the Jacobian."""
    front = model[:2]
    rows = torch.autograd.functional.jacobian(lambda v: front(v[None])[0], x)
    norm = rows.flatten(3).norm(dim=3)
    z = front(x[None])[0].detach()
    return int(((z.abs() <= radius * norm) & (norm > 0)).sum())


@pytest.mark.parametrize("radius", [0.05, 0.4, 2.0])
def test_the_first_site_is_counted_exactly(radius):
    model, x = conv(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    table = ig.local_complexity(model, x, radius=radius).table
    expected = [first_by_definition(model, p, radius) for p in x]
    assert table["in_ball"].tolist() == expected
    site = next(c for c in table if c.startswith("hyperplanes@"))
    assert (table[site] <= table["in_ball"]).all(), "the polytope lies in the ball"


def test_behind_two_mixing_maps_nothing_is_claimed():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    table = ig.local_complexity(model, torch.randn(2, 3), radius=0.5).table
    assert table["in_ball"].isna().all()
    scaled = ig.load("normalized(mlp(8, inputs=3, classes=2), mean=[0.5], std=[0.3])")
    table = ig.local_complexity(scaled, torch.randn(2, 3), radius=0.5).table
    assert table["in_ball"].notna().all()


def test_chords_and_discs_are_what_their_measures_say():
    model, x = conv(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    found = ig.local_complexity(
        model, x, radius=0.7, slices=2, chords=3, directions=4,
        generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    for n, center in enumerate(x):
        torch.randn(32, 4, generator=generator, dtype=torch.float64)
        pieces = []
        for _ in range(3):
            v = torch.randn(center.shape, generator=generator, dtype=torch.float64)
            v = 0.7 * v / v.norm()
            pieces.append(len(ig.segments(model, center - v, center + v)))
        counts = []
        for _ in range(2):
            draw = torch.randn(32, 2, generator=generator, dtype=torch.float64)
            basis = torch.linalg.qr(draw).Q
            angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
            corners = 0.7 * np.stack([np.cos(angle), np.sin(angle)], 1)
            plane = ig.Slice.polygon(center, basis.reshape(2, 4, 4, 2), corners)
            counts.append(len(ig.partition(model, plane)))
        row = found.table.iloc[n]
        assert row["pieces"] == np.mean(pieces)
        assert row["pieces_sd"] == pytest.approx(np.std(pieces, ddof=1))
        assert row["regions"] == np.mean(counts)
        assert row["regions_sd"] == pytest.approx(np.std(counts, ddof=1))
    assert (found.table["regions"] >= 1).all()
    assert found.meta["left_out"] == 0


def test_discs_that_hold_too_many_are_left_out():
    found = ig.local_complexity(
        conv(), torch.randn(2, 2, 4, 4), radius=3.0, slices=2, max_regions=2
    )
    assert found.meta["left_out"] == 4
    assert found.table["regions"].isna().all()


def wide():
    """A network with some 5e4 regions in a disc of radius 1."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 400), nn.ReLU(), nn.Linear(400, 3)).double()


def told(**options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = torch.zeros(2, 8, dtype=torch.float64)
        found = ig.local_complexity(wide(), x, slices=2, directions=2, **options)
    return found, [w for w in caught if issubclass(w.category, IncompleteWarning)]


def test_long_work_is_said_once_with_the_radius_that_fits(monkeypatch):
    _, said = told(radius=0.2)
    assert not said
    for small in (ball.SMALL, 1):  # by a disc itself, by a pilot
        monkeypatch.setattr(ball, "SMALL", small)
        monkeypatch.setattr(ball, "PATIENCE", 1e-3)
        found, said = told(radius=0.2)
        (said,) = said
        assert said.filename == __file__
        text = str(said.message)
        number = r"([\d.,e-]+)"
        about, fits, few = (
            float(re.search(p.replace("#", number), text)[1].strip(".,").replace(",", ""))
            for p in ("holds about # regions", "radius of # holds", "holds about #:")
        )
        assert about == pytest.approx(found.table["regions"].mean(), rel=0.5)
        assert few < about
        assert fits < 0.2
        monkeypatch.setattr(ball, "PATIENCE", 300.0)
        smaller, said = told(radius=fits)
        assert not said
        assert smaller.table["regions"].mean() <= max(3 * few, 12)


def test_a_disc_with_far_too_many_is_not_begun(monkeypatch):
    cut = []
    whole = ball.partitioned
    monkeypatch.setattr(ball, "partitioned", lambda *a: (cut.append(a), whole(*a))[1])
    found, said = told(radius=1.0, max_regions=50)
    assert not cut
    assert found.meta["left_out"] == 4
    assert found.table["regions"].isna().all()
    assert len(said) == 1
    assert "left out" in str(said[0].message)
    found, _ = told(radius=0.01, max_regions=50)
    assert len(cut) == 4
    assert found.meta["left_out"] == 0


class Lines:
    """Chords that say how many regions there are."""

    regions = 0.0

    def __init__(self, program, plane, generator):
        self.plane = plane

    def look(self, enough):
        pass

    def forecast(self):
        area = self.plane.area
        sides = np.linalg.norm(np.roll(self.plane.corners, -1, 0) - self.plane.corners, axis=1)
        density = np.sqrt((self.regions - 1) / area)  # as if the border did not count
        numbers = {
            "boundary_length": 0.0,
            "seconds": np.nan,
            "memory": 0.0,
            "spread": 0.0,
        }
        return Forecast(
            self.regions,
            **numbers,
            chords=4,
            density=density,
            area=area,
            perimeter=sides.sum(),
            most=10**9,
        )


def test_what_chords_say_decides(monkeypatch):
    begun = []
    monkeypatch.setattr(ball, "Chords", Lines)
    monkeypatch.setattr(
        ball, "partitioned", lambda *a: begun.append(a) or SimpleNamespace(complete=False)
    )
    monkeypatch.setattr(ball, "pilot", lambda *a: 100.0)
    for regions, discs in ((19_000, 4), (21_000, 0)):  # twice as many as are wanted: not begun
        begun.clear()
        monkeypatch.setattr(Lines, "regions", regions)
        found, said = told(radius=0.2, max_regions=10_000)
        assert (len(begun), found.meta["left_out"]) == (discs, 4)
        assert len(said) == 1
    monkeypatch.setattr(Lines, "regions", 12_000)  # 100 s for each of four: 9,000 take 300 s
    _, said = told(radius=0.2, max_regions=10_000)
    text = str(said[0].message)
    assert "1.7 minutes each, 6.7 minutes for all 4" in text
    assert "holds about 9,000: 5 minutes for all" in text
    disc = Lines(None, ball.disc(torch.zeros(8).double(), 0.2, torch.Generator()), None).forecast()
    fits = float(re.search(r"radius of ([\d.]+) holds", text)[1])
    share = fits / 0.2
    assert count(disc.density, share**2 * disc.area, share * disc.perimeter) == pytest.approx(
        9000, rel=0.06
    )


def test_counts_that_are_none_are_refused():
    with pytest.raises(OptionError, match="slices and chords don't fit"):
        ig.local_complexity(conv(), torch.randn(1, 2, 4, 4), radius=1.0, slices=-1)
    ig.draw(ig.local_complexity(conv(), torch.randn(3, 2, 4, 4), radius=1.0, slices=1, chords=1))
