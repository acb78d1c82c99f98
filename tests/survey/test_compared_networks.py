"""Two networks in one report; surveys of objects of the calling program."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isogon as ig
from isogon.cli import main
from isogon.errors import OptionError, SpecError
from isogon.findings import Finding
from isogon.survey.declaring.job import Job
from isogon.survey.pages import report, sections
from isogon.survey.pages.naming import called
from isogon.survey.running.record import Record
from isogon.survey.whole.agreement import agreement
from isogon.survey.whole.compare import compare
from isogon.survey.whole.kept import Line, Survey, read_survey

A, B = "cnn(width=2)", "cnn(width=2, seed=1)"
ONLY = ("orientation", "data_matrix", "similarity", "match", "stitch")


class Own(nn.Module):
    """Somebody's network of 64 pixels, in training mode."""

    def __init__(self, seed: int, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, x):
        return self.net(x)


def loader(n: int = 40):
    x, y = ig.batches("digits(test)").first(n)
    data = torch.utils.data.TensorDataset(x, y)
    return torch.utils.data.DataLoader(data, batch_size=16)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    words = ["compare", A, B, "--batches", "digits(test, 24)", "--out", str(out), "--quiet"]
    assert main([*words, "--only", ",".join(ONLY), "--budget", "600"]) == 0
    return out


def test_every_measure_of_two_and_each_of_one_of_both(small):
    found = read_survey(small)
    lines = [(n.measure, n.side, n.status) for n in found.lines]
    assert ("orientation", "a", "done") in lines
    assert ("orientation", "b", "done") in lines
    for measure in ("similarity", "match", "stitch"):
        assert (measure, "", "done") in lines
    assert found.agreement["total"] == 24
    assert set(found.records()) >= {"orientation/a", "orientation/b", "match"}
    names = called(found)
    assert names is not None
    assert (names.a, names.b) == ("seed 0", "seed 1")


def test_its_page_begins_with_findings_that_lead_to_their_sections(small):
    text = (small / "report.html").read_text("utf-8")
    assert text.index(">Findings</h2>") < text.index('id="samples"') < text.index('id="measure-')
    screen = text[
        text.index('<ol class="findings">') : text.index("</ol>", text.index("findings-t"))
    ]
    assert 1 <= screen.count("<li") <= 5
    for part in screen.split('href="#')[1:]:
        assert f'id="{part.split(chr(34))[0]}"' in text
    assert "seed 0" in screen
    order = [text.index(f'<section id="measure-{m}"') for m in ONLY]
    assert len(set(order)) == len(ONLY)


def test_nothing_is_computed_twice(small):
    again = compare(A, B, "digits(test, 24)", out=small, only=("orientation", "match"))
    assert {n.status for n in again.lines} == {"reused"}


def test_what_can_t_be_done_is_skipped_by_name(tmp_path):
    x, y = ig.batches("digits(test)").first(20)
    found = ig.compare(
        Own(0), Own(1, width=5), [(x, y)], out=tmp_path, only=("match", "stitch", "barrier")
    )
    reasons = {n.measure: n.reason for n in found.lines}
    assert {n.status for n in found.lines} == {"skipped"}
    assert "--train" in reasons["stitch"]
    assert "net.1" in reasons["match"]
    assert found.page is not None


def test_objects_of_a_program_are_surveyed_and_left_as_they_came(tmp_path):
    model, data = Own(0), loader()
    model.net[2].eval()
    modes = [m.training for m in model.modules()]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    found = ig.survey(model, data, out=tmp_path, only=("orientation", "data_matrix", "segments"))
    assert {n.status for n in found.lines} == {"done"}
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "isogon orientation --model" not in text  # no command line can name the objects
    again = ig.survey(model, data, out=tmp_path, only=("orientation", "segments"))
    assert {n.status for n in again.lines} == {"reused"}
    with torch.no_grad():
        model.net[1].weight += 1
    other = ig.survey(model, data, out=tmp_path, only=("orientation",))
    assert {n.status for n in other.lines} == {"done"}, "other weights are another network"
    assert "Findings" not in found._repr_html_()
    assert "<li>" in found._repr_html_()


def test_given_objects_are_gone_afterwards():
    with pytest.raises(SpecError, match="handed over"):
        ig.load("given(model)")


def test_a_folder_s_survey_of_objects_is_reported_without_them(tmp_path):
    ig.survey(Own(0), loader(), out=tmp_path, only=("orientation",))
    before = (tmp_path / "report.html").read_text("utf-8")
    report.write(read_survey(tmp_path))
    assert (tmp_path / "report.html").read_text("utf-8") == before


@pytest.mark.parametrize(
    "change", [{"budget": 0}, {"names": ("one",)}, {"only": ("no_such",)}, {"b": "no_such(1)"}]
)
def test_wrong_comparisons_are_refused(tmp_path, change):
    given = {"a": A, "b": B, "batches": "digits(test, 12)", "out": tmp_path, **change}
    with pytest.raises((OptionError, SpecError)):
        compare(**given)


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("trained(cnn, digits)", "trained(cnn, digits, seed=3)", ("seed 0", "seed 3")),
        (
            "trained(cnn, digits)",
            "trained(cnn, digits, augment='rotate(45)')",
            ("plain", "augment rotate(45)"),
        ),
        (
            "trained(cnn, digits)",
            "trained(cnn, digits, augment=('rotate(60)', flip))",
            ("plain", "augment rotate(60), flip"),
        ),
        ("mine:net()", "mine:net()@w.pt", ("A", "B")),
        ("given(a)", "given(b)", ("A", "B")),
    ],
)
def test_networks_are_called_by_what_differs(a, b, names):
    found = called(Survey(a, "digits(test)", {}, other=b))
    assert found is not None
    assert (found.a, found.b) == names


def test_findings_are_escaped():
    nasty = Finding("<script>alert(1)</script>.", "<b>", "&", 1.0, measure="<m>")
    shown = report.screened(nasty, [])
    text = report.page("sweep.html", **_sweep([shown]))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_reading_in_a_notebook_has_findings_and_figure():
    reading = ig.orientation(Own(0))
    reading.measure = "orientation"
    text = reading._repr_html_()
    assert "data:image/png" in text
    assert "coin" in text
    assert reading.findings()[0].text.split("<")[0][:20] in text


def _sweep(findings: list) -> dict:
    class Empty:
        about = command = ""

    empty: dict = {"figures": [], "sections": [], "jobs": [], "definitions": [], "provenance": []}
    return {"sweep": Empty, "heading": "h", "problem": "", "findings": findings, **empty}


def test_what_one_of_two_networks_says_alone_names_it_and_counts_a_tenth(tmp_path):
    reading = ig.orientation(ig.load("cnn(width=4)"))
    job = Job("orientation", {"model": "cnn(width=4)"}, {}, 0)
    record = Record(job, reading, {}, "0" * 24)
    plain = sections.found_of([sections.Part(Line("orientation", "done"), record)], None)
    line = Line("orientation", "done", side="a")
    (first, *_) = sections.found_of([sections.Part(line, record, "seed 0")], None)
    assert first.text == f"Seed 0 alone: {plain[0].text}"
    assert first.weight == plain[0].weight / 10


def test_agreement_is_counted_sample_by_sample():
    models = [ig.load(f"cnn(width=2, size=8, seed={k})") for k in (0, 1)]
    data = ig.batches("digits(test, 50)", batch_size=7)
    (x, y), counts = data.first(50), [0, 0, 0, 0]
    for one, label in zip(x, y, strict=True):
        a, b = (int(m(one[None]).argmax()) for m in models)
        counts = [n + k for n, k in zip(counts, (1, a == b, a == label != b, b == label != a))]
    assert list(agreement(*models, data).values()) == [int(n) for n in counts]
    wide = ig.load("cnn(width=2, size=8, classes=12)")
    assert agreement(models[0], wide, data) == {}
