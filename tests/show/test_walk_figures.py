from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import isogon as ig
from isogon.errors import OptionError
from isogon.readings import Path
from isogon.show.runs import run_curve
from isogon.show.walk import animate, strip


@pytest.fixture
def images(generator):
    return torch.rand(3, 1, 6, 6, generator=generator)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))


def test_strip_figure_and_animation(model, images, tmp_path):
    path = ig.walk(model, images, toward=images.flip(-1), steps=12, frames=8, clamp=(0, 1))
    strip(path, 1).savefig(tmp_path / "strip.png")
    ig.draw(path, walk=2, frames=5).savefig(tmp_path / "figure.png")
    gif = Image.open(animate(path, tmp_path / "walk.gif", walk=1))
    assert gif.n_frames == int((path.arrays["frame_walk"] == 1).sum())
    assert gif.size[0] >= 280
    with pytest.raises(OptionError, match="no such walk"):
        strip(path, 3)


def test_colour_single_and_two_dimensional_walks(tmp_path, generator):
    torch.manual_seed(0)
    colour = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    path = ig.walk(colour, torch.rand(1, 3, 4, 4, generator=generator), steps=0)
    ig.draw(path).savefig(tmp_path / "a.png")
    animate(path, tmp_path / "a.gif")
    plane = ig.walk(nn.Linear(2, 2), torch.rand(4, 2, generator=generator), steps=5)
    ig.draw(plane).savefig(tmp_path / "b.png")
    with pytest.raises(OptionError, match="images"):
        animate(plane, tmp_path / "b.gif")
    assert not (tmp_path / "b.gif").exists()
    vector = ig.walk(nn.Linear(7, 2), torch.rand(1, 7, generator=generator), steps=5)
    ig.draw(vector).savefig(tmp_path / "c.png")


@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU])
def test_integrability_figure(act, generator, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), act(), nn.Linear(9, 3))
    x = torch.rand(8, 6, generator=generator)
    ig.draw(ig.integrability(model, [(x, torch.zeros(8).long())])).savefig(tmp_path / "a.png")


def test_walks_that_have_ended_stay_in_the_mean():
    """Of two walks one ends at 1.0: without it the mean of the distances would jump up."""
    ways = [[3.0, 2.0, 1.0], [3.0, 2.5, 2.2, 2.0]]
    rows = [(walk, step, far) for walk, way in enumerate(ways) for step, far in enumerate(way)]
    table = pd.DataFrame(rows, columns=["walk", "step", "distance"])
    curve = run_curve(Path(measure="walk", table=table), "distance")
    assert curve is not None
    assert curve.x == [0, 1, 2, 3]
    assert np.allclose(curve.y, [3.0, 2.25, 1.6, 1.5])
