"""Similarity and its samples: values that were held out, spread over random subsets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import DataError, OptionError
from reference.slow_similarity import TWINS, cka

HELD = "linear_regression(held_out=2)"


def rng(seed=0):
    return np.random.default_rng(seed)


def value(x, y, spec, **options):
    return float(ig.similarity(x, y, metric=spec, **options).table["similarity"].iloc[0])


# --------------------------------------------------------------------------- held out


def test_what_was_fitted_to_noise_explains_nothing_that_was_held_out():
    x, y = rng(0).standard_normal((60, 4)), rng(1).standard_normal((60, 29))
    assert value(x, y, "linear_regression") > 0.4
    assert value(x, y, HELD) < -0.5
    assert value(x, y, "linear_regression(held_out=60)") == pytest.approx(
        leave_one_out(x, y), abs=1e-9
    )


def leave_one_out(x, y):
    """By the hat matrix, which needs one fit."""
    design = np.c_[y, np.ones(len(y))]
    hat = design @ np.linalg.pinv(design)
    errors = (x - hat @ x) / (1 - hat.diagonal())[:, None]
    mean = (x - x.mean(0)) * len(x) / (len(x) - 1)
    return 1 - (errors**2).sum() / (mean**2).sum()


def test_what_is_there_is_explained_either_way():
    y = rng(0).standard_normal((200, 5)) + 3
    x = y @ rng(1).standard_normal((5, 7)) - 20
    for spec in (HELD, "linear_regression(held_out=4, reverse=True)"):
        assert value(x, y, spec) == pytest.approx(1, abs=1e-9)
    x = x + rng(2).standard_normal(x.shape)
    assert value(x, y, HELD) == pytest.approx(value(x, y, "linear_regression"), abs=0.05)
    assert value(x, y, HELD) < value(x, y, "linear_regression") < 1


def test_positions_of_an_image_are_held_out_together():
    """Rows of the same sample never stand on both sides, and batches do not matter."""
    x, y = rng(0).standard_normal((12, 3, 2, 2)), rng(1).standard_normal((12, 5, 2, 2))

    def rows(v):
        return np.moveaxis(v, 1, -1).reshape(12, 4, -1)

    left = total = 0.0
    for fold in range(2):
        test = np.arange(12) % 2 == fold
        (a, b), (c, d) = (
            (rows(x)[t].reshape(-1, 3), rows(y)[t].reshape(-1, 5)) for t in (~test, test)
        )
        weights = np.linalg.lstsq(np.c_[b, np.ones(len(b))], a, rcond=None)[0]
        left += ((c - np.c_[d, np.ones(len(d))] @ weights) ** 2).sum()
        total += ((c - a.mean(0)) ** 2).sum()
    assert value(x, y, HELD) == pytest.approx(1 - left / total, abs=1e-10)

    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Tanh()).double()
    images = torch.from_numpy(rng(2).standard_normal((15, 1, 5, 5)))
    found = [
        ig.similarity(net, net, [(p, torch.zeros(len(p))) for p in images.split(size)],
                      metric=(HELD, "cka")).arrays["similarity"]
        for size in (1, 4, 15)
    ]  # fmt: skip
    assert np.allclose(found[0], found[2], atol=1e-9)
    assert np.allclose(found[1], found[2], atol=1e-9)


def test_what_can_not_be_held_out():
    x, flat = rng(0).standard_normal((20, 3)), np.full((20, 3), 2.0)
    assert math.isnan(value(x, flat, HELD))
    with pytest.raises(DataError, match="20 samples, 21 folds"):
        value(x, x, "linear_regression(held_out=21)")
    with pytest.raises(OptionError, match="held_out out of range"):
        value(x, x, "linear_regression(held_out=1)")
    found = ig.similarity(x, {"flat": flat, "x": x}, metric=HELD, null=3)
    assert found.table["p_value"].isna().tolist() == [True, False]
    assert HELD in TWINS


# --------------------------------------------------------------------------- subsets


def drawn(n, size, repeats):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randperm(n, generator=generator)[:size].sort().values.numpy() for _ in range(repeats)
    ]


def test_mean_and_sd_are_those_of_the_subsets():
    x = {f"l{k}": rng(k).standard_normal((40, 3 + k)) for k in range(2)}
    y = {"m": rng(5).standard_normal((40, 4)) + x["l1"]}
    found = ig.similarity(
        x,
        y,
        metric=("cka", "rsa"),
        repeats=4,
        subset=15,
        generator=torch.Generator().manual_seed(3),
    )
    for spec in ("cka", "rsa"):
        for k in range(2):
            each = [TWINS[spec](x[f"l{k}"][r], y["m"][r]) for r in drawn(40, 15, 4)]
            row = found.table.query("metric == @spec and site_a == @name", local_dict={
                "spec": spec, "name": f"l{k}"}).iloc[0]  # fmt: skip
            assert row["mean"] == pytest.approx(np.mean(each), abs=1e-9)
            assert row["sd"] == pytest.approx(np.std(each, ddof=1), abs=1e-9)
            assert row["similarity"] == pytest.approx(TWINS[spec](x[f"l{k}"], y["m"]), abs=1e-9)
    assert found.arrays["values"].shape == (4, 2, 2, 1)
    assert found.axes["values"] == ("repeat", "metric", "site_a", "site_b")
    single = ig.similarity(x, y, repeats=2)
    assert single.axes["values"] == ("repeat", "site_a", "site_b")
    assert single.meta["subset"] == 20


def test_the_spread_falls_with_the_size_of_the_subsets(tmp_path):
    x = rng(0).standard_normal((600, 4))
    y = x + rng(1).standard_normal((600, 4))
    few, many = (ig.similarity(x, y, repeats=12, subset=n) for n in (30, 270))
    assert float(few.table["sd"].iloc[0]) > 1.5 * float(many.table["sd"].iloc[0]) > 0
    assert abs(float(few.table["mean"].iloc[0]) - cka(x, y)) < 3 * float(few.table["sd"].iloc[0])
    few.save(tmp_path / "s")
    assert ig.read(tmp_path / "s").equals(few)


def test_models_on_subsets_and_the_band_in_the_figure():
    torch.manual_seed(0)
    a, b = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
        for _ in range(2)
    )
    x = torch.rand(50, 1, 4, 4)
    data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(20)]
    options = {"repeats": 3, "subset": 20, "pairs": "diagonal"}
    found = ig.similarity(a, b, data, metric=("cka", "disagreement", HELD), **options)
    inner = found.table[found.table["metric"] != "disagreement"]
    assert (inner["sd"] > 0).all()
    again = ig.similarity(a, b, [(x, torch.zeros(50, dtype=torch.long))], **options)
    mine = found.table[found.table["metric"] == "cka"]
    assert np.allclose(again.table["mean"], mine["mean"], atol=1e-6)
    axes = ig.draw(again).axes[0]
    label = "sd over 3 subsets of 20"
    band = next(c for c in axes.collections if c.get_label() == label)
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(float((again.table["mean"] + again.table["sd"]).max()), abs=1e-6)
    ig.draw(ig.similarity(a, b, data, repeats=2))  # maps


@pytest.mark.parametrize("options", [{"repeats": 1}, {"subset": 5}, {"repeats": 2, "subset": 40}])
def test_subsets_that_say_nothing_are_refused(options):
    with pytest.raises(OptionError, match="subset"):
        ig.similarity(rng(0).standard_normal((40, 3)), rng(1).standard_normal((40, 3)), **options)
