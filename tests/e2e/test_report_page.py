"""The report in a real browser: silent, alone with itself, and doing what it offers."""

from __future__ import annotations

import pytest
from cdp import Browser

from isogon.cli import main

pytestmark = pytest.mark.browser

NASTY = "</script><script>console.error('pwned')</script><img src=http://example.invalid/x>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report written by the command line."""
    out = tmp_path_factory.mktemp("report")
    words = ["survey", "cnn(width=2)", "--batches", "digits(test, 24)", "--out", str(out)]
    assert main([*words, "--only", "data-matrix,orientation", "--quiet"]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        found.open(page.as_uri())
        yield found


def test_nothing_is_said_and_nothing_is_fetched(browser, page):
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("document.querySelectorAll('figure img').length") == 2
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.run(broken) == 0


def test_columns_sort_up_and_down_with_numbers_as_numbers(browser):
    column = """(() => {
        const table = document.querySelector('#measure-data_matrix table');
        const head = table.querySelectorAll('th')[2];
        head.click();
        const up = [...table.tBodies[0].rows].map(r => Number(r.cells[2].dataset.v));
        head.click();
        const down = [...table.tBodies[0].rows].map(r => Number(r.cells[2].dataset.v));
        return [up, down, head.getAttribute('aria-sort')];
    })()"""
    up, down, state = browser.run(column)
    assert len(up) > 3
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert state == "descending"


def test_theme_changes_and_text_stays_readable(browser):
    contrast = """(() => {
        const lum = c => { const v = c.match(/\\d+(\\.\\d+)?/g).slice(0, 3).map(x => x / 255)
            .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
            return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
        const back = lum(getComputedStyle(document.body).backgroundColor);
        return ['p.summary', 'h1', 'td', 'nav li a', '.cite'].map(s => {
            const ink = lum(getComputedStyle(document.querySelector(s)).color);
            return (Math.max(ink, back) + .05) / (Math.min(ink, back) + .05); });
    })()"""
    seen = []
    for _ in range(2):
        assert min(browser.run(contrast)) > 3, "text against the page"
        seen.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        browser.run("document.getElementById('theme').click()")
    assert seen[0] != seen[1]


def test_every_link_of_the_contents_leads_somewhere(browser):
    lost = """[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))
        .filter(id => !document.getElementById(id))"""
    assert browser.run(lost) == []


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_the_page_never_scrolls_sideways(browser, width):
    browser.send(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_hostile_text_stays_text(page, browser, tmp_path):
    from isogon.survey.pages import report
    from isogon.survey.whole import survey as everything

    found = everything.read_survey(page.parent)
    found.model = found.facts["layers"][0]["path"] = found.command = NASTY
    found.lines[0].command = found.versions["x"] = NASTY
    found.lines.append(everything.Line(NASTY, "failed", NASTY, detail=NASTY))
    path = tmp_path / "hostile.html"
    path.write_text(report.render(found))
    browser.events.clear()
    browser.open(path.as_uri())
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
    assert NASTY in browser.run("document.body.textContent")
