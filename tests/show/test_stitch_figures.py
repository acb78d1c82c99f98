"""Figures of stitching and rotations show what their tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from isogon.errors import OptionError
from isogon.readings import SiteTable
from isogon.show import draw
from isogon.show.together import Panel, draw_together, tables

SITES = ["relu1", "relu2", "relu3"]


def stitched(pairs, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {"site_a": a, "site_b": b, "site": a, "by": by, "in_block": a == b == "relu2",
         "accuracy": 0.5, "penalty": rng.random(), "penalty_frozen_bn": 0.0, "floor": 0.1,
         "ceiling": 0.9, "loss": 1.0, "agreement": 0.5, "seconds": 0.1}
        for a, b in pairs for by in ("linear", "G_relu")
    ]  # fmt: skip
    meta = {"accuracy": 0.9, "sites_a": SITES, "sites_b": SITES}
    return SiteTable("stitch", pd.DataFrame(rows), meta=meta)


def rotated(repeats, seed=0, group="orthogonal"):
    rng = np.random.default_rng(seed)
    rows = [
        {"site": s, "repeat": r, "in_block": s == "relu2", "accuracy": 0.5, "baseline": 0.9,
         "penalty": rng.random()}
        for s in SITES for r in range(repeats)
    ]  # fmt: skip
    return SiteTable("rotate", pd.DataFrame(rows), meta={"group": group, "epochs": 2})


def lines(fig):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in fig.axes[0].lines}


def note(fig):
    return fig.get_supxlabel()


def test_a_curve_per_method_along_the_diagonal():
    reading = stitched(zip(SITES, SITES))
    fig = draw(reading)
    table = reading.table
    for by in ("linear", "G_relu"):
        expected = table[table["by"] == by]["penalty"] * 100
        assert np.allclose(lines(fig)[by], expected)
    assert note(fig) == "open marks: within a residual block"
    assert "90.0 %" in fig.axes[0].get_title(loc="left")
    alone = draw(reading, by="linear", column="accuracy")
    assert "G_relu" not in lines(alone)
    assert np.allclose(lines(alone)["linear"], 50)
    with pytest.raises(OptionError, match="no such method"):
        draw(reading, by="lasso")
    with pytest.raises(OptionError, match="no such column"):
        draw(reading, column="seconds")


def test_a_map_per_method_of_all_pairs():
    pairs = [(a, b) for a in reversed(SITES) for b in SITES if "relu2" not in (a, b) or a == b]
    fig = draw(stitched(pairs))
    maps = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in maps] == ["linear", "G_relu"]
    image = np.ma.filled(maps[0].images[0].get_array(), np.nan)
    assert np.isnan(image[0, 1])
    assert np.isfinite(image[1, 1])
    assert [t.get_text() for t in maps[0].get_yticklabels()] == SITES
    assert sum(p.get_edgecolor()[:3] != (0, 0, 0) for p in maps[0].patches) == 1
    assert note(fig) == "framed: within a residual block"


def test_several_runs_with_their_spread():
    runs = tuple(stitched(zip(SITES, SITES), seed) for seed in range(3))
    panel = Panel("digits", runs, ("", "", ""))
    fig = draw_together([panel])
    mean = np.mean([r.table[r.table["by"] == "linear"]["penalty"] for r in runs], 0) * 100
    assert np.allclose(lines(fig)["linear"], mean)
    assert len(fig.axes[0].collections) == 2
    frame = tables([panel])["digits"]
    assert (frame["runs"] == 3).all()
    assert np.allclose(frame[frame["by"] == "linear"]["mean"] * 100, mean)


def test_rotations():
    reading = rotated(4)
    fig = draw(reading)
    mean = reading.table.groupby("site", sort=False)["penalty"].mean() * 100
    assert np.allclose(lines(fig)["mean"], mean)
    assert len(lines(fig)["one element"]) == 12
    assert "2 epochs" in fig.axes[0].get_title(loc="left")
    assert "one element" not in lines(draw(rotated(1)))
    panel = Panel("", (rotated(2), rotated(2, 1, "G_relu")), ("", ""))
    assert {"orthogonal", "G_relu"} <= set(lines(draw_together([panel])))
    assert (tables([panel])["rotate"]["elements"] == 4).all()


def trained(seed=0):
    """Closed forms, trained maps, and those of a strength that was chosen."""
    table = stitched(zip(SITES, SITES), seed).table
    lasso = table[table["by"] == "linear"].assign(by="lasso((0.01,0.1))", strength=0.01)
    lasso.loc[lasso.index[0], "strength"] = 0.1
    parts = [table.assign(refine=0), table.assign(refine=200, penalty=table["penalty"] / 2)]
    parts.append(lasso.assign(refine=200))
    table = pd.concat(parts, ignore_index=True)
    table["sparsity"] = np.linspace(0, 0.9, len(table))
    return SiteTable("stitch", table, meta={"accuracy": 0.9, "sites_a": SITES, "sites_b": SITES})


def test_trained_maps_are_curves_of_their_own():
    fig = draw(trained())
    both = lines(fig)
    assert np.allclose(both["linear, trained"] * 2, both["linear"])
    assert {"G_relu", "G_relu, trained", "lasso((0.01,0.1)), trained"} <= set(both)
    assert set(lines(draw(trained(), by="linear"))) >= {"linear", "linear, trained"}
    assert "G_relu" not in lines(draw(trained(), by="linear"))
    frame = tables([Panel("", (trained(0), trained(1)), ("", ""))])["stitch"]
    assert set(frame["refine"]) == {0, 200}
    assert (frame["runs"] == 2).all()
    assert np.allclose(frame["mean"] - frame["low"], frame["high"] - frame["mean"])
    # Student's t of two runs at 95 %
    assert np.allclose(frame["high"] - frame["mean"], 12.7062 * frame["sd"] / 2**0.5, rtol=1e-4)


def test_penalty_against_sparsity():
    reading = trained()
    fig = draw(reading, column="sparsity")
    curves = lines(fig)
    part = reading.table[reading.table["site"] == "relu2"].sort_values("sparsity")
    assert np.allclose(curves["relu2"], part["penalty"] * 100)
    with pytest.raises(OptionError, match="no map is a matrix"):
        draw(SiteTable("stitch", reading.table.assign(sparsity=np.nan), meta=reading.meta),
             column="sparsity")  # fmt: skip


def test_histogram_of_chosen_strengths():
    runs = (trained(0), trained(1))
    runs[1].meta["strengths"] = [{"strength": 1.0, "loss": 2.0, "chosen": False}]
    fig = draw_together([Panel("", runs, ("", ""), "strength")])
    bars = [p.get_height() for p in fig.axes[0].patches]
    assert bars == [4, 2, 0]
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["0.01", "0.1", "1"]
    empty = runs[0].table.assign(strength=np.nan)
    with pytest.raises(OptionError, match="nothing was chosen"):
        draw(SiteTable("stitch", empty, meta=runs[0].meta), column="strength")


def test_maps_of_several_runs_are_means():
    pairs = [(a, b) for a in SITES for b in SITES if "relu2" not in (a, b) or a == b]
    runs = tuple(stitched(pairs, seed) for seed in range(3))
    fig = draw_together([Panel("digits", runs, ("", "", ""))])
    maps = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in maps] == ["digits, linear", "digits, G_relu"]
    image = np.ma.filled(maps[0].images[0].get_array(), np.nan)
    where = "by == 'linear' and site_a == 'relu1' and site_b == 'relu3'"
    mean = np.mean([r.table.query(where)["penalty"].iloc[0] for r in runs])
    assert image[0, 2] == pytest.approx(100 * mean, abs=0.6)
