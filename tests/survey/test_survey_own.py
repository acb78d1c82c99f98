"""Surveys of people's own models on their own data: nothing is left out for a misread spec."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from isogon.cli import main
from isogon.errors import FileError, NoSuchSite, OptionError, SpecError
from isogon.survey.running.run import Session
from isogon.survey.whole import survey as everything
from isogon.survey.whole.defaults import Subject, _slice

CODE = """
import torch
from torch import nn

def mlp(inputs=784, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, classes))

def data20(n=30, width=20):
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, width, generator=g), torch.arange(n) % 3

def loader(n=30):
    x, y = data20(n)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=7)
"""
ONLY = ("partition", "local_complexity", "segments", "walk", "data_matrix")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of somebody's code, arrays, images and an exported network; the working one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mymods.py").write_text(CODE)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.random((30, 20), np.float32), "y": np.arange(30) % 3}
    np.savez("arr.npz", **arrays)
    (tmp_path / "it's, mine").mkdir()
    np.savez("it's, mine/a b.npz", **arrays)
    for name in "abc":
        for i in range(4):
            folder = tmp_path / "imgs" / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (5, 4, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    yield tmp_path
    import sys

    sys.modules.pop("mymods", None)


DATA = {
    "code": "mymods:data20()",
    "loader": "mymods:loader()",
    "npz": "arr.npz",
    "npz with a path to quote": "it's, mine/a b.npz",
    "part": "subset(mymods:data20(), 12)",
    "images": "imagefolder(imgs)",
    "folder": "./imgs",
}


@pytest.mark.parametrize("name", DATA)
def test_every_measure_of_a_survey_finds_its_inputs(place, name):
    shape = "inputs=60" if name in ("images", "folder") else "inputs=20"
    model = f"mymods:mlp({shape})"
    found = everything.survey(model, DATA[name], out=place / "s", only=ONLY, budget=60)
    reasons = {line.measure: line.reason for line in found.lines}
    assert not any(reasons.values()), reasons
    assert {line.status for line in found.lines} == {"done"}
    if "local_complexity" in reasons:
        count = len(found.records()["local_complexity"].reading.to_frame())
        assert count == 12 if name in ("images", "folder", "part") else count == 16


def test_one_model_serves_every_measure(place):
    """Arguments that follow from the data are the same where the data stand within another spec."""
    (place / "mymods.py").write_text(CODE.replace("inputs=784", "inputs=20"))
    model, data = "mlp(width=4, depth=1)", "mymods:data20()"
    found = everything.survey(model, data, out=place / "s", only=ONLY, budget=60)
    assert not any(line.reason for line in found.lines), [x.reason for x in found.lines]
    prints = {r.provenance["fingerprints"]["model"] for r in found.records().values()}
    assert len(prints) == 1


def test_a_network_of_others_with_own_data(place, capsys):
    pytest.importorskip("onnx")
    import mymods

    net = mymods.mlp(20).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"input": {0: "n"}}
        args = (net, (torch.rand(2, 20),), "net.onnx")
        torch.onnx.export(*args, dynamo=False, input_names=["input"], dynamic_axes=axes)
    only = ",".join(m.replace("_", "-") for m in ONLY)
    for data in ("arr.npz", "mymods:data20()"):
        words = ["survey", "net.onnx", "--batches", data, "--only", f"[{only}]", "--out", "s"]
        assert main([*words, "--budget", "60"]) == 0
        out = capsys.readouterr()
        assert "skipped" not in out.out + out.err


def test_a_slice_is_composed_of_the_samples_specs(place):
    session = Session()
    for data, text in (
        ("mymods:data20()", "mymods:data20()[{}]"),
        ("arr.npz", "arr.npz[{}]"),
        ("it's, mine/a b.npz", '"it\'s, mine/a b.npz"[{}]'),
        ("imagefolder('imgs')", "imagefolder(imgs)[{}]"),
    ):
        batches = session.get("Batches", data)
        found = _slice(Subject("m", data, torch.nn.Linear(1, 1), batches))
        places = (0, 4, 8) if "imgs" in data else (0, 1, 2)
        assert ", ".join(text.format(i) for i in places) in found
        assert session.get("Slice", found) is not None


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SpecError("spec can't be parsed"), "failed", 1),
        (OptionError("directions don't fit"), "failed", 1),
        (FileError("gone"), "failed", 1),
        (NoSuchSite("no activations"), "skipped", 0),
    ],
)
def test_a_measure_left_out_for_an_error_fails_the_survey(
    place, monkeypatch, capsys, error, status, code
):
    real = everything.run

    def run(job, **options):
        if job.measure == "local_complexity":
            raise error
        return real(job, **options)

    monkeypatch.setattr(everything, "run", run)
    words = ["survey", "mymods:mlp(inputs=20)", "--batches", "arr.npz", "--out", "s"]
    assert main([*words, "--only", "[local-complexity,data-matrix]"]) == code
    found = everything.read_survey(place / "s")
    assert {x.measure: x.status for x in found.lines}["local_complexity"] == status
