from __future__ import annotations

import dataclasses

import pytest
import torch

import isogon as ig
from isogon.errors import OptionError, SpecError
from isogon.training import Callback, FitConfig, fit
from isogon.training.observing import gather

ARCH = "mlp(width=12, depth=1)"
CONFIG = FitConfig(
    epochs=1,
    batch_size=256,
    observe="data-matrix",
    observe_every=3,
    observe_data="digits(test, 20)",
)


class Crash(Exception):
    pass


class CrashAt(Callback):
    def step(self, run):
        if run.step == 4:
            raise Crash


def test_observing_does_not_change_the_run(tmp_path):
    plain = fit(ARCH, "digits", config=dataclasses.replace(CONFIG, observe=None))
    found = fit(ARCH, "digits", config=CONFIG, out=tmp_path)
    assert all(torch.equal(found.weights[k], plain.weights[k]) for k in plain.weights)
    reading = ig.read(tmp_path / "observe" / "data_matrix")
    table = reading.to_frame()
    assert sorted(table.step.unique()) == [0, 3, 6]
    assert (table.groupby("step").size() == 20).all()
    assert reading.meta["observes"] == "data_matrix"
    # the last observation is the measure of the final model
    last = table[table.step == 6].trace.to_numpy()
    direct = ig.data_matrix(found.model(), ig.batches("digits(test, 20)")).to_frame()
    assert direct.trace.to_numpy() == pytest.approx(last, rel=1e-4)
    assert ig.draw(reading).axes


def test_what_was_observed_survives_a_crash(tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_every=2)
    with pytest.raises(Crash):
        fit(ARCH, "digits", config=config, out=tmp_path, callbacks=[CrashAt()])
    assert sorted(gather(tmp_path / "observe" / "data_matrix").table.step.unique()) == [0, 3]
    fit(ARCH, "digits", config=config, out=tmp_path)
    fit(ARCH, "digits", config=CONFIG, out=tmp_path / "calm")
    calm, crashed = (
        ig.read(p / "observe" / "data_matrix").table for p in (tmp_path / "calm", tmp_path)
    )
    assert calm.equals(crashed)


def test_what_can_not_be_observed_is_refused(tmp_path):
    with pytest.raises(OptionError, match="model and batches"):
        fit(ARCH, "digits", config=dataclasses.replace(CONFIG, observe="orientation"), out=tmp_path)
    with pytest.raises(SpecError, match="unknown measure"):
        fit(ARCH, "digits", config=dataclasses.replace(CONFIG, observe="nothing"), out=tmp_path)
    with pytest.raises(OptionError, match="needs a folder"):
        fit(ARCH, "digits", config=CONFIG)
