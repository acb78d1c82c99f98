"""The survey: what runs, what is listed with a reason, how it resumes; and its page."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch

from isogon import context, registry
from isogon.errors import IsogonError, ModelError, OptionError
from isogon.readings import SampleTable
from isogon.survey.pages import report
from isogon.survey.running.run import Session
from isogon.survey.whole import survey as everything

NASTY = "<script>alert('x')</script>&\"' {{ 7*7 }}"
MODEL, DATA = "cnn(width=2)", "digits(test, 24)"


def fake_nasty(model: Module, batches: Batches) -> SampleTable:  # noqa: F821
    """Says <b>something</b> {{ 7*7 }}."""
    table = pd.DataFrame({"name": [NASTY, "b"], "x": [1.5, float("inf")]})
    return SampleTable("fake_nasty", table, meta={"caption": NASTY})


def fake_slow(model: Module, batches: Batches) -> SampleTable:  # noqa: F821
    """Reports progress for ever."""
    for i in range(10_000):
        time.sleep(0.005)
        context.progress()(i, 10_000, "slow")
    raise AssertionError


def fake_deaf(model: Module, batches: Batches) -> SampleTable:  # noqa: F821
    """Reports nothing for ever."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)
    raise AssertionError


def fake_inapplicable(model: Module, batches: Batches) -> SampleTable:  # noqa: F821
    """Never applies."""
    raise ModelError("no convolution", got="a poem", expected="filters")


def fake_broken(model: Module, batches: Batches) -> SampleTable:  # noqa: F821
    """Has a bug."""
    raise ZeroDivisionError("oops")


def fake_needy(model: Module, thing: Snapshots) -> SampleTable:  # noqa: F821
    """Needs what a survey has not."""
    raise AssertionError


def fake_off(model: Module) -> SampleTable:  # noqa: F821
    """Not for surveys."""
    raise AssertionError


@pytest.fixture
def fakes():
    registry.names("noun")
    registry.names("measure")
    kept = {k: dict(registry._entries[k]) for k in ("noun", "measure")}
    registry._entries["noun"].setdefault(
        "Snapshots", registry.Entry("noun", "Snapshots", lambda spec: spec)
    )
    for f, extra in (
        (fake_nasty, {"cost": 0.01}),
        (fake_inapplicable, {"cost": 0.02}),
        (fake_broken, {"cost": 0.03}),
        (fake_needy, {"cost": 0.04}),
        (fake_off, {"survey": False}),
        (fake_slow, {"cost": 99.0}),
        (fake_deaf, {"cost": 98.0}),
    ):
        registry.register("measure", f.__name__, **extra)(f)
    yield
    for kind, entries in kept.items():
        registry._entries[kind].clear()
        registry._entries[kind].update(entries)


def lines(found) -> dict:
    return {line.measure: line for line in found.lines}


ONLY = ("fake_nasty", "fake_inapplicable", "fake_broken", "fake_needy", "orientation")


def test_each_measure_is_run_or_listed_with_the_reason(fakes, tmp_path):
    found = everything.survey(MODEL, DATA, out=tmp_path, only=ONLY)
    by = lines(found)
    assert [line.measure for line in found.lines][:4] == list(ONLY[:4]), "cheap ones first"
    assert by["fake_nasty"].status == by["orientation"].status == "done"
    assert by["fake_inapplicable"].status == "skipped"
    assert "got a poem" in by["fake_inapplicable"].reason
    assert by["fake_broken"].status == "failed"
    assert "fake_broken" in by["fake_broken"].detail
    assert "--thing" in by["fake_needy"].reason
    again = lines(everything.survey(MODEL, DATA, out=tmp_path, only=ONLY))
    assert again["orientation"].status == again["fake_nasty"].status == "reused"
    assert "fake_off" not in {d.name for d in everything.declarations()}
    assert everything.read_survey(tmp_path).facts["parameters"] > 0


def test_the_budget_stops_what_is_slow_and_keeps_the_rest(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(everything, "GRACE", 0.1)
    only = ("fake_nasty", "fake_slow", "fake_deaf")
    start = time.monotonic()
    found = everything.survey(MODEL, DATA, out=tmp_path, budget=0.4, only=only)
    assert time.monotonic() - start < 5
    by = lines(found)
    assert by["fake_nasty"].status == "done"
    assert "budget" in by["fake_deaf"].reason
    assert "budget" in by["fake_slow"].reason
    assert not list((tmp_path / "records").glob(".*"))
    spent = lines(everything.survey(MODEL, DATA, out=tmp_path, budget=1e-9, only=only))
    assert spent["fake_nasty"].status == "reused", "what is there costs nothing"
    assert spent["fake_slow"].reason.startswith("not started")


def test_an_interrupted_survey_keeps_what_it_has(fakes, tmp_path, monkeypatch):
    def stop(line):
        raise KeyboardInterrupt

    found = everything.survey(MODEL, DATA, out=tmp_path, only=ONLY, notify=stop)
    assert found.interrupted
    assert lines(found)["fake_nasty"].record
    assert "interrupted" in lines(found)["orientation"].reason
    assert "interrupted" in report.write(found).read_text()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"budget": 0.0}, OptionError),
        ({"only": ("fake_nothing",)}, IsogonError),
        ({"model": "cnnn"}, IsogonError),
        ({"batches": "digits(tset)"}, IsogonError),
    ],
)
def test_wrong_surveys_are_refused(fakes, tmp_path, change, error):
    given = {"model": MODEL, "batches": DATA, "out": tmp_path, **change}
    with pytest.raises(error) as caught:
        everything.survey(given.pop("model"), given.pop("batches"), **given)
    assert "expected" in str(caught.value)


class Page(HTMLParser):
    """Tags and attributes of a page; complains about nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_escapes_everything(fakes, tmp_path):
    found = everything.survey(MODEL, DATA, out=tmp_path, only=ONLY, command=NASTY)
    found.facts["pictures"][0]["label"] = NASTY
    found.facts["layers"][0]["path"] = NASTY
    text = report.write(found).read_text()
    page = Page(text)
    assert [t for t, _ in page.tags].count("script") == 1
    assert "<script>alert" not in text
    assert "49" not in re.findall(r"something[^<]*", text)[0]
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")) or tag == "a", (tag, value)
        assert not [a for a in attributes if a.startswith("on")], (tag, attributes)
    assert "url(" not in text.split("</style>")[0]
    assert "@import" not in text
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "isogon orientation --model" in text
    assert "Gamba" in text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for t, a in page.tags if a.get("href", "").startswith("#")}
    assert links <= set(ids)
    assert report.render(found) == report.render(found)


def test_survey_of_regression_and_of_vectors(tmp_path):
    found = everything.survey("mlp", "two_moons(test, 32)", out=tmp_path)
    assert found.facts["pictures"] == []
    assert report.write(found).is_file()
    assert any(line.record for line in found.lines)


def test_verdicts_are_kept_and_shown(tmp_path):
    found = everything.survey("mlp", "two_moons(test, 32)", out=tmp_path, only=("segments",))
    (line,) = found.lines
    assert line.verdict.startswith("certified: 7 of 7 checks, ")
    assert f'<p class="verdict">{line.verdict}</p>' in report.write(found).read_text()
    assert everything.read_survey(tmp_path).lines[0].verdict == line.verdict
    record = found.records()["segments"]
    record.reading.meta["certificate"]["verdict"] = "NOT certified: <b>sorted</b>"
    record.save(record.directory)
    text = report.write(found).read_text()
    assert "NOT certified: &lt;b&gt;sorted&lt;/b&gt;</p>" in text
    again = everything.survey("mlp", "two_moons(test, 32)", out=tmp_path, only=("segments",))
    assert again.lines[0].status == "reused"


@pytest.mark.parametrize(("left", "expected"), [(None, 10.0), (8.0, 2.0), (-1.0, 0.1)])
def test_a_certificate_takes_its_part_of_the_time(left, expected):
    import time

    from isogon.survey.running.certifying import certify_within

    class Exact:
        def certify(self, seconds):
            self.seconds = seconds

    exact = Exact()
    certify_within(exact, 0.5, None if left is None else time.monotonic() + left)
    assert exact.seconds == pytest.approx(expected, abs=0.1)
    certify_within(exact, 100.0)
    assert exact.seconds == 30.0
    certify_within(object(), 1.0)  # most readings have none


def test_fresh_weights_are_the_same_each_time_and_leave_the_global_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = (Session().fingerprint("Module", "mlp(2, 3)", seed=s) for s in (0, 1))
    c = Session().fingerprint("Module", "mlp(2, 3, seed=1)")
    assert a == b, "a spec names one model, whatever else is seeded"
    assert a != c
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (-0.5, "−0.5"),
        (1e-7, "1.00·10⁻⁷"),
        (123456.7, "123,457"),
        (float("inf"), "∞"),
        (float("nan"), "–"),
        (-1.25e9, "−1.25·10⁹"),
    ],
)
def test_numerals(value, text):
    assert report.numeral(value) == text


@pytest.mark.parametrize(
    ("done", "total", "stopped"), [(3, 3, False), (4, 3, False), (2, 3, True), (9, None, True)]
)
def test_what_is_finished_is_kept_even_if_it_says_so_after_the_deadline(done, total, stopped):
    said = []
    with context.use(progress=lambda *report: said.append(report)):
        try:
            with everything.deadline(0.01):
                time.sleep(0.03)
                context.progress()(done, total, "work")
            assert not stopped
        except everything.OutOfTime:
            assert stopped
    assert said == [(done, total, "work")], "the report is passed on in any case"


def test_a_measure_that_ends_late_with_its_last_report_is_in_the_survey(tmp_path, monkeypatch):
    def slow(job, objects):
        time.sleep(0.6)
        context.progress()(1, 1, "work")
        return SampleTable("orientation")

    monkeypatch.setattr("isogon.survey.running.run.call_measure", slow)
    found = everything.survey(
        "mlp(4)", "digits(test, 8)", out=tmp_path, budget=0.5, only=("orientation",)
    )
    assert [(n.status, n.reason) for n in found.lines] == [("done", "")]
