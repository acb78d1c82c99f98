"""Figures of similarity: maps, diagonals, over seeds, outputs."""

from __future__ import annotations

import numpy as np
import pytest

import isogon as ig
from isogon.errors import OptionError
from isogon.show.similarity import curves_together, numbers_together
from isogon.show.together import Panel


def features(seed, n=30):
    r = np.random.default_rng(seed)
    x = {f"l{k}": r.standard_normal((n, 4 + k)) for k in range(3)}
    return x


@pytest.fixture(scope="module")
def readings():
    a = features(0)
    like = {k: v + 0.1 * features(9)[k] for k, v in a.items()}
    return [ig.similarity(a, b, metric=("cka", "rsa"), null=9) for b in (like, features(1))]


def hatched(fig):
    return sum(len(ax.patches) for ax in fig.axes)


def test_maps_hatch_what_can_not_be_told_from_chance(readings):
    like, unlike = (ig.draw(r, metric="cka") for r in readings)
    assert [t.get_text() for t in like.axes[0].get_yticklabels()] == ["l0", "l1", "l2"]
    assert hatched(unlike) == 9
    assert hatched(ig.draw(readings[1], fade=False)) == 0
    z_alone = ig.similarity(features(0), features(0))
    assert hatched(ig.draw(z_alone)) == 6  # all but the diagonal
    with pytest.raises(OptionError, match="no such metric"):
        ig.draw(readings[0], metric="cca")


def test_diagonals_are_curves():
    found = ig.similarity(features(0), features(0), pairs="diagonal")
    (ax,) = ig.draw(found).axes
    assert ax.lines[0].get_ydata() == pytest.approx([1, 1, 1])
    assert len(ax.collections) == 1  # what chance gives


def test_runs_are_pooled(readings):
    panel = Panel("", (readings[0], readings[0], readings[1]), ("x", "x", "y"))
    fig = curves_together([panel])
    labels = [t.get_text() for t in fig.legends[0].get_texts()]
    assert labels == ["x, cka", "x, rsa", "y, cka", "y, rsa"]
    (table,) = numbers_together([panel]).values()
    assert set(table["runs"]) == {1, 2}
    assert table[table["name"] == "x"]["sd"].to_numpy() == pytest.approx(0)


def test_outputs_are_bars():
    a = ig.load("cnn(width=2, size=8)")
    found = ig.similarity(a, a, ig.batches("digits(test, 8)"), metric=("disagreement", "jsd"))
    (ax,) = ig.draw(found).axes
    assert [b.get_height() for b in ax.patches] == pytest.approx([0, 0])
