"""Tests between models say what SciPy says, and see what is there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from isogon.errors import OptionError
from isogon.measures.orbits.compare import compare
from isogon.readings import Curve, Grid, Path, Reading, SampleTable, SiteTable


def reading(shift=0.0, seed=0, sites=("a", "b")):
    rng = np.random.default_rng(seed)
    values = rng.normal(1, 0.2, (len(sites), 50))
    values[-1] += shift
    values[0, 0] = np.inf
    table = pd.DataFrame(
        {
            "site": np.repeat(sites, 50),
            "unit": np.tile(np.arange(50), len(sites)),
            "normalized_variance": values.ravel(),
        }
    )
    return SiteTable("invariance", table)


def test_differences_are_found_where_they_are():
    models = [reading(seed=1), reading(0.5, seed=2), reading(seed=3)]
    table = compare(models, ["x", "y", "z"]).table
    assert len(table) == 6
    wide = table.set_index(["site", "model_a", "model_b"])
    assert wide.loc[("b", "x", "y"), "tukey_p"] < 1e-6
    assert wide.loc[("b", "x", "z"), "tukey_p"] > 0.01
    assert (wide.loc["a", "tukey_p"] > 0.01).all()
    assert wide.loc[("b", "x", "y"), "difference"] == pytest.approx(0.5, abs=0.1)
    groups = [m.table[m.table["site"] == "b"]["normalized_variance"] for m in models]
    assert wide.loc["b", "anova_f"].iloc[0] == pytest.approx(
        scipy.stats.f_oneway(*groups).statistic
    )
    assert wide.loc["b", "anova_p"].iloc[0] < 1e-6
    assert wide.loc["b", "anderson_p"].iloc[0] <= 0.001
    assert wide.loc["a", "anderson_p"].iloc[0] > 0.01


def test_seeds_of_one_model_are_pooled():
    seeds = [reading(seed=1), reading(seed=2), reading(0.3, seed=3), reading(0.3, seed=4)]
    table = compare(seeds, ["x", "x", "y", "y"]).table
    assert len(table) == 2
    pooled = [
        pd.concat([s.table[s.table["site"] == "b"] for s in seeds[k : k + 2]]) for k in (0, 2)
    ]
    expected = scipy.stats.f_oneway(*(p["normalized_variance"] for p in pooled)).statistic
    assert table["anova_f"].iloc[1] == pytest.approx(expected)


def test_mistakes_are_answered():
    with pytest.raises(OptionError, match="two or more"):
        compare([reading()])
    with pytest.raises(OptionError, match="different depth"):
        compare([reading(), reading(sites=("a",))])
    with pytest.raises(OptionError, match="no such column"):
        compare([reading(), reading()], column="x")
    flat = reading()
    flat.table["normalized_variance"] = 1.0
    assert compare([flat, flat]).table["tukey_p"].isna().all()


def kinds(shift, seed):
    """A reading of every kind; the second place is shifted."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, (2, 30)) + np.array([[0.0], [shift]])
    long = pd.DataFrame({"walk": np.tile(np.arange(30), 2), "step": np.repeat([0, 1], 30)})
    lines = pd.DataFrame({"epoch": [1.0, 2.0], "loss": noise.mean(1)})
    facts = {"statistic": ["count", "area"], "all": noise.mean(1).tolist()}
    cells = {"site": ["a", "b"], "snapshot": ["x"]}
    return {
        "samples": SampleTable("s", pd.DataFrame({"sample": np.arange(60), "v": noise.ravel()})),
        "walks": Path("w", long.assign(probability=noise.ravel())),
        "curve": Curve("c", lines),
        "grid": Grid.of("g", noise.mean(1)[:, None], cells, name="drop"),
        "none": Reading("p", meta={"summary": facts}),
    }


@pytest.mark.parametrize("kind", ["samples", "walks", "curve", "grid", "none"])
def test_every_kind_of_reading_is_compared(kind):
    held = [kinds(shift, seed)[kind] for seed, shift in enumerate((0, 0, 0, 5, 5, 5))]
    names = ["x"] * 3 + ["y"] * 3
    column = {"curve": "loss", "none": None}.get(kind)
    table = compare(held, names, column, over="models").table
    assert (table["model_a"] + table["model_b"] == "xy").all()
    assert table["difference"].iloc[-1] == pytest.approx(2.5 if kind == "samples" else 5, abs=0.2)
    assert table["tukey_p"].iloc[-1] < 1e-3
    if kind != "samples":
        assert len(table) == 2
        assert table["tukey_p"].iloc[0] > 1e-3
    if kind in ("samples", "walks"):
        assert compare(held[2:4]).table["tukey_p"].iloc[-1] < 1e-6
    else:
        with pytest.raises(OptionError, match=r'expected .*over="models"') as error:
            compare(held[2:4], column=column)
        assert "\n" not in str(error.value)


def test_kinds_are_not_mixed():
    a = kinds(0, 0)
    with pytest.raises(OptionError, match="of one kind"):
        compare([a["samples"], a["walks"]])
    with pytest.raises(OptionError, match="of one kind"):
        compare([1, 2])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="without numbers"):
        compare([Reading("p"), Reading("p")])
