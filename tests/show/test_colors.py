"""Colours of classes are told apart also without red or green receptors."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from isogon.show import style
from isogon.show.areas import TINTS, by_class
from isogon.survey.pages.embedding import DARK

PLATE = "#1b1f24"  # the ground of figures on a dark page (report.css)

# What a dichromat sees, as linear maps of linear RGB: Machado, Oliveira and Fernandes (2009),
# severity 1.
SEEN = {
    "all receptors": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colors, seen):
    """CIE L*a*b* of sRGB colours [n, 3], as somebody sees them."""
    c = np.asarray(colors, float)
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ seen.T, 0, 1) @ TO_XYZ.T / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def closest(colors, seen):
    """The smallest distance between two of them; 2.3 is just noticeable side by side."""
    at = lab(colors, seen)
    apart = np.linalg.norm(at[:, None] - at[None], axis=2)
    return apart[np.triu_indices(len(at), 1)].min()


def test_distances_are_those_of_the_literature():
    """Black and white are 100 apart; pure red and green nearly meet without green receptors."""
    assert closest([(0, 0, 0), (1, 1, 1)], np.eye(3)) == pytest.approx(100, abs=0.1)
    mixed = [(0.7, 0.5, 0.0), (0.55, 0.6, 0.0)]
    assert closest(mixed, SEEN["deuteranopia"]) < 0.4 * closest(mixed, np.eye(3))


@pytest.mark.parametrize("who", SEEN)
@pytest.mark.parametrize(("count", "least"), [(3, 34), (6, 15), (8, 12), (10, 12)])
def test_colors_of_lines_are_told_apart(who, count, least):
    assert closest([to_rgb(c) for c in style.CYCLE[:count]], SEEN[who]) > least


@pytest.mark.parametrize("who", SEEN)
@pytest.mark.parametrize(("count", "least"), [(3, 18), (6, 6), (10, 4)])
def test_their_tints_are_on_areas(who, count, least):
    """Regions are paler; from four classes on names, legends or patterns tell more."""
    shade, palette = by_class(np.arange(count), np.full(count, TINTS // 2), False)
    assert closest(palette[shade], SEEN[who]) > least


def contrast(a, b):
    """Of two colours, as in the Web Content Accessibility Guidelines."""
    light = []
    for c in (a, b):
        rgb = np.array(to_rgb(c))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ TO_XYZ[1]) + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("count", [1, 2, 3, 24])
def test_ordered_curves_are_seen_on_light_and_on_dark_pages(count):
    for shade in style.shades(count):
        assert contrast(shade, "white") > 1.9
        assert contrast(shade, PLATE) > 2.4


@pytest.mark.parametrize("who", SEEN)
@pytest.mark.parametrize(("count", "least"), [(3, 35), (4, 25), (6, 10)])
def test_layers_are_told_apart_on_light_and_on_dark_pages(who, count, least):
    colors = style.layers(count)
    assert len(colors) == count
    assert closest(colors, SEEN[who]) > least
    for color in colors:
        assert contrast(color, "white") > 1.9
        assert contrast(color, PLATE) > 2.4


def test_curves_and_texts_are_seen_on_dark_pages():
    for color in (*style.CYCLE, style.MUTED):
        assert contrast(DARK.get(color, color), PLATE) > 2.9
    assert contrast(DARK[style.INK], PLATE) > 10
    assert style.ON_DATA not in DARK
    assert closest([to_rgb(style.ON_DATA), to_rgb(style.INK)], np.eye(3)) < 1


def test_patterns_of_classes_differ():
    assert len(set(style.HATCHES)) == len(style.HATCHES) == len(style.CYCLE)
