from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import isogon as ig
from isogon.errors import OptionError
from isogon.readings import Curve, Grid, Path, Reading, SampleTable, SiteTable
from isogon.show import style

RNG = np.random.default_rng(0)
SITES = [f"layer{i}.0.relu" for i in range(12)]
READINGS = [
    SampleTable("unheard_of", pd.DataFrame({"sample": range(9), "size": RNG.normal(size=9)})),
    SampleTable("unheard_of", pd.DataFrame({"count": [1, 2, 2], "nothing": [np.nan] * 3})),
    SiteTable("unheard_of", pd.DataFrame({"site": np.repeat(SITES, 5), "unit": [*range(5)] * 12,
                                          "variance": RNG.gamma(2, size=60)})),
    SiteTable("unheard_of", pd.DataFrame({"site": SITES, "accuracy": RNG.uniform(size=12)})),
    Grid.of("unheard_of", RNG.uniform(size=(12, 3)), {"a": SITES, "b": ["x", "y", "z"]}),
    Grid.of("unheard_of", np.full((30, 30), np.nan), {"a": [*range(30)], "b": [*range(30)]}),
    Curve("unheard_of", pd.DataFrame({"x": [0.0, 1, 2], "y": [1.0, np.inf, 2], "who": [*"aab"]})),
    Path("unheard_of", pd.DataFrame({"walk": [0, 0], "step": [0, 1], "distance": [2.0, 1.0]})),
    Reading("unheard_of", pd.DataFrame({"value": [1.5]}), complete=False),
]  # fmt: skip


@pytest.mark.parametrize("reading", READINGS, ids=lambda r: type(r).__name__)
def test_every_kind_can_be_drawn(reading, tmp_path):
    before = dict(mpl.rcParams)
    fig = ig.draw(reading)
    fig.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert dict(mpl.rcParams) == before


def test_refusals():
    with pytest.raises(OptionError, match="no such column"):
        ig.draw(READINGS[0], column="weight")
    with pytest.raises(OptionError, match="nothing to draw"):
        ig.draw(Reading("unheard_of", pd.DataFrame({"name": ["a"]})))
    with pytest.raises(OptionError, match="only readings"):
        ig.draw(3)


def test_labels_and_colours():
    assert style.shorten("a" * 50, 10) == "…" + "a" * 9
    places, texts = style.thin(range(100), 30)
    assert len(places) == len(texts) <= 30
    assert len({tuple(c) for c in np.atleast_2d(style.classes(100)(range(100)))}) > 90
