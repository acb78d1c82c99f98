"""Maps [h, w, C] inside a network (linear layers of ConvNeXt, Swin): turned in h and w, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig


class Block(nn.Module):
    """A pointwise layer and its activation, on maps with their channels last or first."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.stem = last, nn.Conv2d(3, 5, 3, padding=1)
        linear, self.act, self.out = nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 4)
        self.mix = linear if last else nn.Conv2d(5, 7, 1)
        if not last:
            state = linear.state_dict()
            self.mix.load_state_dict({**state, "weight": state["weight"][:, :, None, None]})

    def forward(self, x):
        z = self.stem(x)
        if self.last:
            return self.out(self.act(self.mix(z.permute(0, 2, 3, 1))).mean((1, 2)))
        return self.out(self.act(self.mix(z)).mean((2, 3)))


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(1)
    x = torch.rand(6, 3, 6, 6, dtype=torch.float64)
    return [Block(last).double().eval() for last in (True, False)], [(x, torch.arange(6) % 4)]


STATISTICS = ("variance", "simple", "floor", "lie")


@pytest.mark.parametrize("aggregate", ["unit", "channel", "site"])
@pytest.mark.parametrize("measure", ["equivariance", "invariance"])
def test_as_of_the_same_network_with_channels_first(both, measure, aggregate):
    (last, first), data = both
    chosen = STATISTICS if measure == "equivariance" else ("variance", "distance")
    # 30 degrees: what mixes up the axes shows
    a, b = (
        getattr(ig, measure)(
            m, data, ig.family("rotations(12)"), sites="act", measures=chosen, aggregate=aggregate
        ).to_frame()
        for m in (last, first)
    )
    if aggregate == "unit":
        size = (7, 6, 6)
        order = np.arange(7 * 36).reshape(size).transpose(1, 2, 0).ravel()
        b = b.iloc[order].reset_index(drop=True)
        assert a["unit"].tolist() == list(range(7 * 36)), "in the order of the site's own values"
        for name in ("channel", "row", "column"):
            assert a[name].tolist() == b[name].tolist()
        assert a.iloc[8][["channel", "row", "column"]].tolist() == [1, 0, 1]
    names = [c for c in b.columns if c not in ("site", "unit")]
    assert np.allclose(a[names].to_numpy(float), b[names].to_numpy(float), rtol=1e-9)


def test_maps_are_kept_by_channel(both):
    (last, first), data = both
    a, b = (
        ig.invariance(m, data, ig.family("rotations(4)"), sites="act", maps=2)
        for m in (last, first)
    )
    assert [f["channel"] for f in a.meta["maps_kept"]] == [
        f["channel"] for f in b.meta["maps_kept"]
    ]
    assert np.allclose(a.arrays["maps"], b.arrays["maps"])
