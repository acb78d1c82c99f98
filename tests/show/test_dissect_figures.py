"""Figures of dissections show what their tables hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.container import BarContainer
from torch import nn

import isogon as ig
from isogon.errors import OptionError
from isogon.show import draw
from isogon.show.together import Panel, draw_together, tables


@pytest.fixture(scope="module")
def reading():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(6, 8, 3), nn.ReLU())  # fmt: skip
    options = {"basis": ("unit", "orthogonal"), "draws": 3, "quantile": 0.9, "gallery": 2}
    return ig.dissect(model, "shapes(n=12)", **options)


def test_bars_are_the_summary(reading):
    fig = draw(reading, column="detectors")
    rows = reading.summary().set_index(["category", "basis", "site"])
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["colour", "shape", "scene", "all categories"]
    assert fig.axes[0].get_ylabel() == "detectors"
    for ax, category in zip(fig.axes, ("colour", "shape", "scene", "all")):
        groups = [c for c in ax.containers if isinstance(c, BarContainer)]
        for group, basis in zip(groups, ("unit", "orthogonal"), strict=True):
            heights = [bar.get_height() for bar in group]
            assert heights == [rows.loc[(category, basis, s), "detectors"] for s in ("1", "4")]
    top = fig.axes[0].get_ylim()[1]
    assert top >= (rows["detectors"] + rows["detectors_sd"].fillna(0)).max()
    texts = [t.get_text() for t in fig.legends[0].texts]
    assert texts == ["unit", "orthogonal"]
    with pytest.raises(OptionError, match="no such count"):
        draw(reading, column="iou")


def test_a_gallery_shows_the_images_and_their_outlines(reading):
    fig = draw(reading, gallery=("4", 2))
    row = reading.table.query("site == '4' and basis == 'unit' and unit == 2").iloc[0]
    subs = fig.subfigs
    assert len(subs) == 1
    assert f"unit 2: {row.concept} ({row.category}), IoU {row.iou:.2f}" in subs[0].get_suptitle()
    place = int(row.name)
    for ax, i in zip(subs[0].axes, reading.arrays["top"][place]):
        image = np.asarray(ax.images[0].get_array())
        assert np.allclose(image, reading.arrays["images"][i].transpose(1, 2, 0))
        assert len(ax.collections) == 2  # a dark line on a light one
    assert len(draw(reading, gallery="1").subfigs) == 6
    with pytest.raises(OptionError, match="no such unit"):
        draw(reading, gallery=("4", 99))
    without = type(reading)("dissect", reading.table, meta=reading.meta)
    with pytest.raises(OptionError, match="no images were kept"):
        draw(without, gallery="1")


def test_several_in_one_figure(reading):
    panel = Panel("runs", (reading, reading), ("a", "b"), None)
    fig = draw_together([panel])
    assert fig.axes[0].get_title(loc="left") == "runs"
    groups = [c for c in fig.axes[0].containers if isinstance(c, BarContainer)]
    names = [c.get_label() for c in groups]
    assert names == ["a, unit", "a, orthogonal", "b, unit", "b, orthogonal"]
    frame = tables([panel])["runs"]
    one = frame[(frame["label"] == "a, orthogonal") & (frame["category"] == "all")]
    want = reading.summary().query("basis == 'orthogonal' and category == 'all'")
    assert one["unique"].tolist() == want["unique"].tolist()
    assert one["elements"].tolist() == [3, 3]
