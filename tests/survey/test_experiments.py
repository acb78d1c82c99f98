from __future__ import annotations

import pytest
import torch
from torch import nn

import isogon as ig
from isogon import readings
from isogon.errors import DataError, OptionError
from isogon.survey import experiments


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


@pytest.fixture
def batches():
    return ig.batches("digits(test, 20)")


@pytest.mark.parametrize("name", ["kernel_walk", "leaf_walk", "flip_walk", "noise_leaf"])
def test_each_writes_reading_strip_figure_and_gif(name, model, batches, tmp_path, monkeypatch):
    more = {"noise_steps": 3} if name == "noise_leaf" else {}
    run = getattr(experiments, name)
    path = run(model=model, batches=batches, seed=1, steps=6, out=str(tmp_path), **more)
    for file in ("reading/reading.json", "strip.png", "figure.png", "walk.gif"):
        assert (tmp_path / file).is_file()
    assert path.complete
    assert readings.read(tmp_path / "reading").equals(path)
    assert path.meta["experiment"]["name"] == name
    monkeypatch.setattr(experiments._Stage, "_draw", lambda *_: None)
    again = run(model=model, batches=batches, seed=1, steps=6, out=str(tmp_path / "b"), **more)
    assert again.equals(path)  # the same seed makes the same choices
    if name == "flip_walk":
        start = torch.from_numpy(path.arrays["start"])
        assert torch.equal(torch.from_numpy(path.arrays["target"]), start.flip(-1))


def test_an_interrupted_experiment_goes_on(model, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments._Stage, "_draw", lambda *_: None)
    options = {"model": model, "batches": batches, "start": 3, "end": 7, "step": 0.01}
    whole = experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "whole"))
    monkeypatch.setattr(experiments, "CHUNK", 4)
    calls = []

    def walk(*args, **kwargs):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(args)
        return ig.walk(*args, **kwargs)

    monkeypatch.setattr(experiments, "walk", walk)
    with pytest.raises(KeyboardInterrupt):
        experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "cut"))
    monkeypatch.setattr(experiments, "walk", ig.walk)
    half = readings.read(tmp_path / "cut" / "reading")
    assert not half.complete
    more = experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "cut"))
    assert more.equals(whole)


def test_choices(model, batches, tmp_path):
    with pytest.raises(DataError, match="too sure"):
        experiments.kernel_walk(
            model=model, batches=batches, max_probability=0.0, out=str(tmp_path)
        )
    with pytest.raises(OptionError, match="no such sample"):
        experiments.kernel_walk(model=model, batches=batches, start=99, out=str(tmp_path))
