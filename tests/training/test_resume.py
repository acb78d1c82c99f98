from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from isogon.errors import FileError, OptionError
from isogon.training import Callback, Checkpoint, FitConfig, fit
from isogon.training.state import capture_random, isolated

ARCH = "mlp_bn(width=16, bottleneck=8, depth=1)"
CONFIG = FitConfig(
    epochs=2, batch_size=128, augment=("crop(1)", "flip"), checkpoint_every=1, schedule="constant"
)


class Crash(Exception):
    pass


class CrashAt(Callback):
    def __init__(self, step):
        self.at = step

    def step(self, run):
        torch.rand(3)  # watchers may draw: the run must not notice
        if run.step == self.at:
            raise Crash


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(checkpoint):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in checkpoint.meta["history"]]


@pytest.mark.parametrize(
    ("kills", "workers"), [(10, 0), pytest.param(5, 2, marks=pytest.mark.long)]
)
def test_kills_in_a_row_change_nothing(tmp_path, kills, workers):
    """With label noise, augmentation and noise; processes that read ahead change nothing either."""
    seed = int.from_bytes(os.urandom(4))
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(kills), str(seed), str(workers)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert len(outcome["steps"]) == kills
    calm, killed = (Checkpoint.load(tmp_path / n / "last.safetensors") for n in ("calm", "killed"))
    assert same(calm.weights, killed.weights), f"seed {seed}, {outcome}"
    assert same(calm.optimizer, killed.optimizer)
    assert same(calm.random, killed.random)
    assert rows(calm) == rows(killed)
    tables = [pd.read_parquet(tmp_path / n / "metrics.parquet") for n in ("calm", "killed")]
    pd.testing.assert_frame_equal(*(t.drop(columns="seconds") for t in tables))
    left = [p.name for p in (tmp_path / "killed").rglob("*") if p.name.endswith(".safetensors")]
    assert sorted(left) == [*(f"epoch-000{i}.safetensors" for i in (1, 2, 3)), "last.safetensors"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "lr": 0.01},
        {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.5, "clip": 1.0},
        {"workers": 1},
        {
            "label_noise": 0.2,
            "pixel_shuffle": "each",
            "classes": 5,
            "validation": 0.25,
            "batch_size": 16,
        },
        {"precision": "bf16"},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
@pytest.mark.parametrize("at", [2, 12])
def test_a_crash_in_the_middle_changes_nothing(tmp_path, options, at):
    config = dataclasses.replace(CONFIG, **{"batch_size": 48, **options})
    calm = fit(ARCH, "digits(train, 400)", config=config)
    with pytest.raises(Crash):
        fit(ARCH, "digits(train, 400)", config=config, out=tmp_path, callbacks=[CrashAt(at)])
    assert Checkpoint.load(tmp_path / "last.safetensors").step == at - 1
    again = fit(ARCH, "digits(train, 400)", config=config, out=tmp_path)
    assert same(calm.weights, again.weights)
    assert rows(calm) == rows(again)


def test_without_the_saved_state_the_end_is_another(tmp_path):
    """Each part of the state matters: the test above could fail."""
    calm = fit(ARCH, "digits", config=CONFIG)
    with pytest.raises(Crash):
        fit(ARCH, "digits", config=CONFIG, out=tmp_path, callbacks=[CrashAt(13)])
    path = tmp_path / "last.safetensors"
    held = Checkpoint.load(path)

    def end(**changes):
        dataclasses.replace(held, **changes).save(path)
        return fit(ARCH, "digits", config=CONFIG, out=tmp_path).weights

    with isolated(1):
        other = capture_random()
    assert same(calm.weights, end())
    assert not same(calm.weights, end(random=other))
    assert not same(calm.weights, end(optimizer={k: 2 * v for k, v in held.optimizer.items()}))
    assert not same(calm.weights, end(meta={**held.meta, "batch": held.meta["batch"] + 1}))


def test_more_epochs_go_on_from_where_a_shorter_run_ended(tmp_path):
    longer = dataclasses.replace(CONFIG, epochs=3)
    fit(ARCH, "digits", config=CONFIG, out=tmp_path)
    assert same(
        fit(ARCH, "digits", config=longer, out=tmp_path).weights,
        fit(ARCH, "digits", config=longer).weights,
    )


def test_resume_from_adopts_the_options_of_the_checkpoint(tmp_path):
    config = dataclasses.replace(CONFIG, lr=0.02, weight_decay=0.01)
    first = fit(ARCH, "digits", config=config, out=tmp_path / "a")
    path = str(tmp_path / "a" / "last.safetensors")
    going_on = FitConfig(resume_from=path, epochs=3)
    found = fit(ARCH, "digits", config=going_on, out=tmp_path / "b")
    straight = fit(ARCH, "digits", config=dataclasses.replace(config, epochs=3))
    assert same(found.weights, straight.weights)
    assert len(found.history) == 3
    assert first.step < found.step

    with pytest.raises(OptionError, match="override=true"):
        fit(ARCH, "digits", config=dataclasses.replace(going_on, lr=0.5))
    changed = fit(
        ARCH,
        "digits",
        config=dataclasses.replace(going_on, lr=1e-4, override=True, schedule="constant"),
    )
    assert changed.history.lr.iloc[-1] == 1e-4
    assert changed.history.lr.iloc[0] == 0.02
    assert not same(changed.weights, found.weights)
    with pytest.raises(OptionError, match="another spec"):
        fit("mlp", "digits", config=going_on)
    with pytest.raises(OptionError, match="contradicts"):
        fit(ARCH, "digits", config=dataclasses.replace(going_on, seed=9))


def test_modules_that_are_passed_in_resume_too(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.2), nn.Linear(16, 10))
    calm = fit(module, "digits", config=CONFIG)
    with pytest.raises(Crash):
        fit(module, "digits", config=CONFIG, out=tmp_path, callbacks=[CrashAt(5)])
    assert same(calm.weights, fit(module, "digits", config=CONFIG, out=tmp_path).weights)


def test_a_damaged_state_is_refused_and_kept(tmp_path):
    fit(ARCH, "digits", config=CONFIG, out=tmp_path)
    path = tmp_path / "last.safetensors"
    good = Checkpoint.load(path)
    longer = dataclasses.replace(CONFIG, epochs=3)
    for changes in (
        {"random": {}},
        {"optimizer": {"7.exp_avg": torch.zeros(3)}},
        {"meta": {**good.meta, "state": {"sums": "x"}}},
        {"meta": {k: v for k, v in good.meta.items() if k != "step"}},
    ):
        dataclasses.replace(good, **changes).save(path)
        before = path.read_bytes()
        with pytest.raises(FileError):
            fit(ARCH, "digits", config=longer, out=tmp_path)
        assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(FileError):
        fit(ARCH, "digits", config=longer, out=tmp_path)
