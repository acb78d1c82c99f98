"""A sweep that is run again does what is missing, and what was computed from other content."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from isogon.cli import main
from isogon.storage import modules
from isogon.survey.pages import sweep_report
from isogon.survey.running import sweep as workers
from isogon.training import Checkpoint

PLAN = """
model: {model}
batches: npz('d.npz', all)
measures: [{{name: data-matrix}}, {{name: orientation}}]
"""
NET = """
import torch
from helper import FACTOR

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        torch.nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return FACTOR * self.layer(x)

def build():
    return Net()
"""


def npz(path, last=0.0):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[-1] += last
    np.savez(path, x=x, y=np.arange(20) % 2)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory and a cache of its own; the modules in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep_report, "write", lambda *_, **__: [])  # pages take their time
    npz(tmp_path / "d.npz")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "helper.py").write_text("FACTOR = 0.5\n")
    yield tmp_path
    for name in ("net", "helper"):
        sys.modules.pop(name, None)
        modules._loaded.pop(name, None)


def sweep(here, model):
    """The jobs that a run of the sweep worked on, by measure, with their records."""

    def attempts():
        states = [json.loads(p.read_text()) for p in (here / "out" / "state").glob("*.json")]
        return {s["id"]: (s["attempts"], s["state"], s["record"]) for s in states}

    (here / "plan.yaml").write_text(PLAN.format(model=model))
    before = attempts()
    workers._sessions.clear()  # as in a new process
    assert main(["sweep", "plan.yaml", "--out", "out", "--quiet"]) == 0
    after = attempts()
    assert {state for _, state, _ in after.values()} == {"done"}
    return {k.split("-")[0]: v[2] for k, v in after.items() if before.get(k, (0,))[0] != v[0]}


@pytest.mark.parametrize("model", ["mlp(2)", "trained(mlp(2, depth=1), npz('d.npz'), epochs=1)"])
def test_changed_data_are_measured_again(here, model):
    first = sweep(here, model)
    assert set(first) == {"data_matrix", "orientation"}
    assert sweep(here, model) == {}
    npz(here / "d.npz", last=1.0)
    second = sweep(here, model)
    assert second["data_matrix"] != first["data_matrix"]
    assert sweep(here, model) == {}
    os.utime(here / "d.npz")
    assert all(second[k] == v for k, v in sweep(here, model).items()), "touched, but the same"


def test_changed_code_of_a_users_model_is_measured_again(here):
    first = sweep(here, "'net:build()'")
    assert sweep(here, "'net:build()'") == {}
    (here / "helper.py").write_text("FACTOR = 1.5\n")
    second = sweep(here, "'net:build()'")
    assert set(second) == set(first)
    assert not set(second.values()) & set(first.values())


def test_a_training_that_went_on_from_its_own_file_is_not_done_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plan.yaml").write_text(
        "model: trained(cnn(width=2), 'digits(train, 64)', epochs=2)\n"
        "batches: digits(test, 8)\nmeasures: [orientation]\n"
    )
    kept = Checkpoint.save

    def killed(self, path):
        kept(self, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    assert main(["sweep", "plan.yaml", "--out", "s"]) == 130
    monkeypatch.setattr(Checkpoint, "save", kept)
    for _ in range(2):
        assert main(["sweep", "plan.yaml", "--out", "s"]) == 0
        (state,) = workers.Sweep.read(tmp_path / "s").states()
        assert state.attempts == 2
