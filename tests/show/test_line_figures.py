"""Figures of `segments` and `local_complexity`."""

from __future__ import annotations

import io
import itertools

import matplotlib.colors as mc
import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.show import style


def net(outputs: int, layers: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        widths = [3, *[12] * layers, outputs]
        parts: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            parts += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*parts[:-1])


ENDS = torch.tensor([-3.0, 1, 2]), torch.tensor([3.0, -1, 0.5])


def test_the_band_is_the_prediction_everywhere():
    model = net(4)
    with torch.no_grad():  # so that the prediction changes on the way
        model[-1].bias -= model(torch.stack(ENDS)).mean(0)
    found = ig.segments(model, *ENDS)
    length = found.meta["length"]
    bars = ig.draw(found).axes[1].patches
    runs = [
        (b.get_x() / length, (b.get_x() + b.get_width()) / length, b.get_facecolor()) for b in bars
    ]
    colors = {mc.to_rgba(style.CYCLE[k], 0.85): k for k in range(4)}
    runs = [(start, end, colors[color]) for start, end, color in runs]
    assert (runs[0][0], runs[-1][1]) == pytest.approx((0, 1))
    for (_, end, k), (start, _, j) in itertools.pairwise(runs):
        assert end == pytest.approx(start)
        assert k != j
    t = np.linspace(0, 1, 400)
    x = ENDS[0] + torch.from_numpy(t)[:, None] * (ENDS[1] - ENDS[0]).double()
    z = model.double()(x).detach().numpy()
    top = np.sort(z, 1)
    clear = top[:, -1] - top[:, -2] > 1e-6
    shown = np.array([next(k for a, b, k in runs if a <= s <= b) for s in t])
    assert np.array_equal(shown[clear], z.argmax(1)[clear])
    assert len({k for *_, k in runs}) > 1


@pytest.mark.parametrize(("outputs", "layers"), [(4, 2), (1, 1), (12, 26)])
def test_segments_are_drawn(outputs, layers):
    found = ig.segments(net(outputs, layers), *ENDS)
    fig = ig.draw(found)
    assert len(fig.axes) == 4
    assert f"{len(found.table):,} linear pieces" in fig.axes[0].get_title(loc="left")
    counts = sum(c.get_paths() != [] and len(c.get_paths()) for c in fig.axes[2].collections)
    assert counts == len(found.breakpoints)
    top, rest = fig.axes[3].get_ylim(), fig.axes[3].patches
    assert top[1] > 0
    assert rest
    fig.savefig(io.BytesIO(), dpi=50)


def test_local_complexity_is_drawn():
    few = ig.local_complexity(net(3), torch.randn(5, 3), radius=0.5, directions=3)
    fig = ig.draw(few)
    bars = fig.axes[0].patches
    total = sum(b.get_height() for b in bars)
    assert total == few.table["hyperplanes"].sum()
    many = ig.local_complexity(net(3), torch.randn(60, 3), radius=0.5, directions=3)
    counted = sum(b.get_height() for b in ig.draw(many).axes[0].patches)
    assert counted == 60
