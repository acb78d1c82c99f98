"""The page of a partition in a real browser: right about what lies where, silent, alone."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from cdp import Browser
from torch import nn

import isogon as ig
from isogon.errors import OptionError

pytestmark = pytest.mark.browser
NASTY = "</script><script>console.error('pwned')</script><img src=http://example.invalid/x>"


def net(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


@pytest.fixture(scope="module")
def p():
    return ig.partition(net(2, 16, 16, 4), ig.Slice.box2d((-3, -2), (3, 2)))


@pytest.fixture(scope="module")
def page(p, tmp_path_factory):
    return p.to_html(tmp_path_factory.mktemp("page") / "p.html", title=NASTY, names=[NASTY, "dog"])


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        opened(found, page)
        yield found


def opened(browser: Browser, page) -> float:
    """Open a page of a partition; the seconds until all of it was drawn."""
    start = time.monotonic()
    browser.open(page.as_uri(), wait=120)
    there = "!!window.partition || !document.getElementById('failed').hidden"
    while time.monotonic() < start + 120 and not browser.run(there):
        time.sleep(0.05)
    assert browser.run("document.getElementById('failed').hidden")
    return browser.run("window.partition.seconds")


def test_it_says_nothing_and_asks_for_nothing(browser, page):
    driver = ("swiftshader", "GL Driver Message")  # a machine without a graphics card
    said = [c for c in browser.complaints() if not any(d in c for d in driver)]
    assert said == []
    assert browser.requests() == [page.as_uri()]
    assert "pwned" in browser.run("document.querySelector('h1').textContent")


@pytest.mark.parametrize("zoom", [1, 40])
def test_what_lies_under_the_pointer_is_what_locate_says(browser, p, zoom):
    rng = np.random.default_rng(zoom)
    center = p.vertices[np.abs(p.vertices).sum(1).argmin()]
    browser.run(f"window.partition.zoomTo({center[0]}, {center[1]}, {zoom})")
    half = np.array([3.0, 2.0]) / zoom * 0.9
    middle = center if zoom > 1 else np.zeros(2)
    if zoom == 1:
        browser.run("window.partition.zoomTo(0, 0, 1)")
    wrong = seen = 0
    for point in rng.uniform(middle - half, middle + half, (100, 2)):
        x, y = point.tolist()
        region, at = browser.run(f"window.partition.regionAt({x}, {y})")
        wrong += region != p.locate(np.array([at]))[0]
        seen += region >= 0
    assert wrong <= 2  # a pixel's middle may lie on an edge, to the precision of the screen
    assert seen > 90


def test_hover_and_controls_tell_the_region(browser, p):
    browser.run("window.partition.zoomTo(0, 0, 1)")
    move = """(() => { const c = document.getElementById('gl');
        c.dispatchEvent(new PointerEvent('pointermove',
            {clientX: c.clientWidth / 2, clientY: c.clientHeight / 2, bubbles: true}));
        return document.getElementById('tip').innerText; })()"""
    text = browser.run(move)
    region = int(text.split("\n")[0].split()[1])
    assert region == p.locate(np.array([[0.0, 0.0]]))[0]
    area = float(text.split("area ")[1].split()[0])
    assert area == pytest.approx(p.area[region], rel=0.01)
    slope = float(text.split("slope ")[1].split()[0])
    assert slope == pytest.approx(np.linalg.norm(p.gradients([region])), rel=0.01)
    first, last = p.face_offsets[region : region + 2]
    held = {p.sites[s] for s in p.edge_site[p.face_edges[first:last]] if s >= 0}
    assert held == set(text.split("edges of ")[1].split("\n")[0].split(", "))
    for mode in ("slope", "area", "random", "class"):
        browser.run(
            f"(() => {{ const m = document.getElementById('mode'); m.value = '{mode}';"
            "m.dispatchEvent(new Event('change')); })()"
        )
    pixels = "window.partition.zoomTo(0, 0, 1), document.getElementById('gl').toDataURL().length"
    whole = browser.run(pixels)
    browser.run("document.getElementById('edges').click()")
    assert browser.run(pixels) < whole, "edges were there"


def test_many_regions_open_in_seconds(browser, tmp_path):
    plane = ig.Slice.box2d((-3, -3), (3, 3))
    many = ig.partition(net(2, 160, 160, 4), plane, max_regions=200_000)
    seconds = opened(browser, many.to_html(tmp_path / "many.html"))
    assert len(many) > 30_000
    assert seconds < 20  # some tenths on a free machine
    failed = "document.getElementById('failed').textContent"
    assert browser.run(failed) == ""


def test_a_report_holds_the_page(tmp_path, browser):
    from isogon.cli import main

    words = ["survey", "mlp(6, inputs=2)", "--batches", "two_moons(test, 24)", "--out"]
    words += [str(tmp_path), "--only", "partition", "--quiet"]
    assert main(words) == 0
    browser.open((tmp_path / "report.html").as_uri())
    browser.run("document.querySelector('details.inside').open = true")
    inside = "document.querySelector('details.inside iframe').contentWindow.partition"
    end = time.monotonic() + 30
    while time.monotonic() < end and not browser.run(f"!!{inside}"):
        time.sleep(0.1)
    browser.run("new Promise(f => setTimeout(f, 500))")
    assert browser.run(f"{inside}.regionAt(0.3, 0.2)")[0] >= 0, "it was laid out after it was made"
    size = "document.querySelector('details.inside iframe').contentDocument.getElementById('gl')"
    wide = browser.run(f"{size}.clientWidth")
    ends = browser.run(f"[{inside}.regionAt(0.3, 0.2)[1], {inside}.regionAt(0.5, 0.2)[1]]")
    assert ends[1][0] - ends[0][0] == pytest.approx(0.2, rel=0.05)
    assert wide > 300
    assert browser.requests()[-1].endswith("report.html")


def test_other_readings_have_no_page(tmp_path):
    line = ig.segments(net(2, 4, 2), torch.zeros(2), torch.ones(2))
    with pytest.raises(OptionError, match="segments has no page of its own"):
        line.to_html(tmp_path / "x.html")
