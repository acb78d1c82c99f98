"""The check of texts finds what is wrong; the layout of figures mends what it can."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import isogon as ig
from isogon.readings import Curve, Grid, SampleTable, SiteTable
from isogon.show import legends, style
from isogon.show.fitting import broken_line
from isogon.show.generic import heatmap, site_axis
from isogon.show.invariance_scatter import depth_bar
from text_boxes import faults

NAMES = [f"layer{i // 4}.{i % 4}.bn2" for i in range(24)]


def plain(**kwargs):
    """A figure of matplotlib's own, which mends nothing."""
    fig = Figure(figsize=(4, 3), **kwargs)
    return fig, fig.subplots()


def test_tick_labels_that_overlap_are_found():
    fig, ax = plain()
    ax.set_xticks(range(24), NAMES)
    assert len(faults(fig)) >= 23
    ax.set_xticks([0, 12, 23], ["a", "b", "c"])
    assert not faults(fig)
    ax.set_xticks([0, 12, 13], ["a", "long enough", "to meet it"])
    assert faults(fig) == ["'long enough' overlaps 'to meet it'"]


def test_text_that_is_cut_off_is_found():
    fig, ax = plain()
    ax.set_title("a title that is longer than the figure is wide, as titles of models may be")
    assert [f for f in faults(fig) if "cut off by the figure's border" in f]
    fig, ax = plain()
    ax.text(0.9, 0.5, "half of it", transform=ax.transAxes, clip_on=True)
    assert faults(fig) == ["'half of it' is cut off by its axes"]


def test_a_legend_over_text_is_found():
    fig, ax = plain()
    ax.plot([0, 1], label="curve")
    ax.legend(loc="center")
    assert not faults(fig)
    ax.text(0.5, 0.5, "beneath", transform=ax.transAxes, ha="center")
    assert any("legend 'curve' covers 'beneath'" in f for f in faults(fig))


def test_turned_texts_are_judged_by_what_they_cover():
    """Upright hulls of slanted labels overlap long before the labels do."""
    fig, ax = plain(layout="constrained")
    ax.set_xticks(range(8), NAMES[:8], rotation=45, ha="right", rotation_mode="anchor")
    assert not faults(fig)
    ax.set_xticks(range(8), NAMES[:8], rotation=5, ha="right", rotation_mode="anchor")
    assert faults(fig)


def test_hidden_texts_do_not_count():
    fig, ax = plain()
    for visible in (False, False, True):
        ax.text(0.5, 0.5, "here", transform=ax.transAxes, visible=visible)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1, 9], ["", "half", "", "far away"])
    assert not faults(fig)


@pytest.mark.parametrize("width", [4.4, 7.2])
@pytest.mark.parametrize("count", [1, 2, 24])
def test_names_of_sites_have_room(width, count):
    with style.styled():
        fig, axes = style.panels(2, width=width, height=2.6)
        for ax in axes.flat:
            site_axis(ax, NAMES[:count])
            ax.set_title("Mean of the normalised variance of every site")
            ax.set_ylabel("normalised variance of the units")
    for density in (72, 200, 110):  # of vector formats, of pictures, of the screen
        fig.set_dpi(density)
        assert not faults(fig)
    shown = [t.get_text() for t in axes[0, 0].get_xticklabels()]
    assert shown
    assert shown[0] in (NAMES[0], NAMES[0][-len(shown[0]) + 1 :], "…" + NAMES[0][-8:])
    if width == 7.2 and count < 24:
        assert shown == NAMES[:count]
        assert {t.get_rotation() for t in axes[0, 0].get_xticklabels()} == {0}


def test_what_was_left_out_comes_back_where_there_is_room():
    with style.styled():
        fig = style.figure(2.0, 2.6)
        ax = fig.subplots()
        site_axis(ax, NAMES)
        ax.set_title("A title of two lines or three")
    fig.canvas.draw()
    assert len(ax.get_xticks()) < 24
    assert "\n" in ax.get_title("left")
    fig.set_size_inches(20, 3)
    fig.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == NAMES
    assert "\n" not in ax.get_title("left")
    ax.set_title("Another", loc="left")
    assert not faults(fig)
    assert ax.get_title("left") == "Another"


def test_many_names_along_a_colour_bar_are_thinned():
    with style.styled():
        fig = style.figure(5.2, 2.8)
        depth_bar(fig.subplots(), NAMES, style.shades(24))
    for density in (72, 200):
        fig.set_dpi(density)
        assert not faults(fig)


@pytest.mark.parametrize("size", [2, 12])
def test_numbers_of_cells_are_left_out_together(size):
    with style.styled():
        fig = style.figure(2.4, 2.0)
        ax = fig.subplots()
        values = np.linspace(-1, 1, size * size).reshape(size, size)
        heatmap(fig, ax, values, NAMES[:size], NAMES[:size], "similarity")
    assert not faults(fig)
    assert {t.get_visible() for t in ax.texts} == {size == 2}


def test_numbers_on_axes_have_room():
    with style.styled():
        fig, axes = style.panels(6, width=7.2, height=1.6)
        for k, ax in enumerate(axes.flat):
            ax.plot([-123.4 * 10**k, 345.6 * 10**k], [1e-5 * 10**k, 0.99876])
        axes[0, 1].set_xscale("log")
    assert not faults(fig)


def test_a_line_is_broken_at_spaces_then_at_signs_then_shortened():
    assert broken_line("one two three", 8, len) == "one two\nthree"
    assert broken_line("one two three", 99, len) == "one two three"
    assert broken_line("a trained(net, digits)", 9, len) == "a\ntrained(\nnet,\ndigits)"
    assert broken_line("a classification", 9, len) == "a\n…fication"
    assert broken_line("a classification", 9, len, False) == "a\nclassification"
    assert broken_line(r"of $a b c d e f$ costs $5", 6, len).split("\n")[1] == "$a b c d e f$"
    assert broken_line("$5", 1, len) == "$5"


def test_a_legend_has_as_many_columns_as_fit():
    with style.styled():
        fig, axes = style.panels(2)
        for k in range(20):
            axes[0, 0].plot([0, k], label=f"trained(resnet18, cifar10, epochs={k})")
        legends.above(fig, list(axes.flat))
    assert not faults(fig)
    (legend,) = fig.legends
    assert len(legend.get_texts()) == legends.MOST
    assert "of 20 names" in fig.get_supxlabel()


RNG = np.random.default_rng(0)
LONG = [f"backbone.encoder.layer{i // 4}.{i % 4}.conv_block.bn2" for i in range(26)]
READINGS = {
    "units": SiteTable("unheard_of", pd.DataFrame({"site": np.repeat(LONG, 5),
                       "unit": [*range(5)] * 26, "variance": RNG.gamma(2, size=130)})),
    "sites": SiteTable("unheard_of", pd.DataFrame({"site": LONG, "loss": RNG.uniform(size=26)})),
    "one": SiteTable("unheard_of", pd.DataFrame({"site": LONG[:1], "loss": [1e-9]})),
    "grid": Grid.of("unheard_of", RNG.uniform(size=(26, 26)), {"site": LONG, "other": LONG}),
    "flat": Grid.of("unheard_of", RNG.uniform(size=(2, 26)) * 1e-7, {"a": [1, 2], "b": LONG}),
    "tall": Grid.of("unheard_of", RNG.uniform(size=(26, 3)), {"a": LONG, "b": LONG[:3]}),
    "classes": Curve("unheard_of", pd.DataFrame({"x": [0, 100, 200] * 6,
                     "loss_over_the_whole_test_set": RNG.uniform(size=18) * 1e-5,
                     "who": np.repeat([f"a class with a long name, {k}" for k in range(6)], 3)})),
    "samples": SampleTable("unheard_of", pd.DataFrame({"sample": range(40), **{
                           f"a_rather_long_name_of_a_number_{k}": RNG.normal(size=40) * 10.0**k
                           for k in range(-5, 6, 2)}})),
}  # fmt: skip


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_any_reading_with_long_names_has_room(reading):
    assert not faults(ig.draw(reading))
