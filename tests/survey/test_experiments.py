from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import isogon as ig
from isogon import readings
from isogon.errors import DataError, OptionError
from isogon.show import video
from isogon.survey.experiments import walk_study
from isogon.survey.experiments import walks as experiments


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


@pytest.fixture
def batches():
    return ig.batches("digits(test, 20)")


@pytest.fixture(autouse=True)
def uncounted(monkeypatch):
    """Regions are counted in tests/survey/test_crossings.py; finding that tanh has none is slow."""
    monkeypatch.setattr(walk_study, "with_regions", lambda model, path, **_: path)


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
    again = run(model=model, batches=batches, seed=1, steps=6, out=str(tmp_path / "b"), **more)
    assert again.equals(path)  # the same seed makes the same choices
    assert "walk.gif" in path.meta["video"]
    assert (tmp_path / "walk.mp4").is_file() == (video.encoder() is not None)
    if name == "flip_walk":
        start = torch.from_numpy(path.arrays["start"])
        assert torch.equal(torch.from_numpy(path.arrays["target"]), start.flip(-1))


def test_an_interrupted_experiment_goes_on(model, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(walk_study.WalkStudy, "_draw", lambda *_: None)
    options = {"model": model, "batches": batches, "start": 3, "end": 7, "step": 0.01}
    whole = experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "whole"))
    monkeypatch.setattr(walk_study, "CHUNK", 4)
    calls = []

    def walk(*args, **kwargs):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(args)
        return ig.walk(*args, **kwargs)

    monkeypatch.setattr(walk_study, "walk", walk)
    with pytest.raises(KeyboardInterrupt):
        experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "cut"))
    monkeypatch.setattr(walk_study, "walk", ig.walk)
    half = readings.read(tmp_path / "cut" / "record" / "reading")
    assert not half.complete
    more = experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "cut"))
    assert more.equals(whole)

    def no_walk(*args, **kwargs):
        raise AssertionError("walked again")

    no_walk.__module__ = ig.walk.__module__  # whose source is part of the record's address
    monkeypatch.setattr(walk_study, "walk", no_walk)
    again = experiments.leaf_walk(**options, steps=9, out=str(tmp_path / "cut"))
    assert again.equals(whole)  # a whole record is found, not computed
    for other in (
        {"steps": 10},
        {"end": 8},
        {"seed": 1},
        {"step": 0.02},
    ):
        with pytest.raises(AssertionError, match="walked again"):
            experiments.leaf_walk(**options | {"steps": 9} | other, out=str(tmp_path / "cut"))


def test_choices(model, batches, tmp_path):
    with pytest.raises(DataError, match="too sure"):
        experiments.kernel_walk(
            model=model, batches=batches, max_probability=0.0, out=str(tmp_path)
        )
    with pytest.raises(OptionError, match="no such sample"):
        experiments.kernel_walk(model=model, batches=batches, start=99, out=str(tmp_path))


def test_samples_are_those_of_the_published_seeds(tmp_path):
    class Many:  # as long as MNIST's test set
        def __len__(self):
            return 10_000

    stage = object.__new__(walk_study.WalkStudy)
    stage.samples = Many()
    for seed, chosen in ((5, [4185, 5874]), (3, [3898, 9709]), (100, [2386, 7528])):
        stage.draw = random.Random(seed)
        assert [stage.choose(None, 1.0), stage.choose(None, 1.0)] == chosen


def test_outcomes(model, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(walk_study.WalkStudy, "_draw", lambda *_: None)
    options = {"model": model, "batches": batches, "start": 3, "end": 7}
    stalled = experiments.leaf_walk(
        **options, step=0.02, steps=900, patience=5, out=str(tmp_path / "a")
    )
    assert stalled.meta["ended"] == ["patience"]
    last = stalled.table.iloc[-1]
    assert stalled.meta["outcome"].startswith(f"stalled after {last['step']:.0f} steps")
    assert f"{last['alignment']:.2g} of what is left" in stalled.meta["outcome"]
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 100))
    near = experiments.leaf_walk(**options | {"model": linear}, out=str(tmp_path / "b"))
    assert near.meta["ended"] == ["distance"]  # its one leaf is the whole space
    assert near.meta["outcome"].startswith("reached the target in")
    kernel = experiments.kernel_walk(
        model=model, batches=batches, start=3, steps=5, out=str(tmp_path / "c")
    )
    assert "5 steps in the kernel" in kernel.meta["outcome"]


def test_the_model_is_left_bitwise_as_it_came(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(walk_study.WalkStudy, "_draw", lambda *_: None)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(),
        nn.Linear(216, 10),
    )  # fmt: skip
    _left_alone(model, batches, tmp_path, steps=4)


@pytest.mark.long
def test_a_vgg_on_cifar_is_left_bitwise_as_it_came(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(walk_study.WalkStudy, "_draw", lambda *_: None)
    archive = shared / "data" / "cifar10-imagefolder.zip"
    batches = ig.batches(f"imagefolder('{archive}', test, 100, seed=0)")
    _left_alone(ig.load("cifar_vgg11_bn"), batches, tmp_path, steps=3)


def _left_alone(model, batches, folder, steps):
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = experiments.leaf_walk(
        model=model, batches=batches, start=3, end=7, steps=steps, out=str(folder)
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()
    x = batches.samples[3][0][None]
    p = model(x).double().softmax(1).max()  # eval mode inside: running statistics, no dropout
    assert path.table["probability"][0] == pytest.approx(float(p.detach()), rel=1e-5)
