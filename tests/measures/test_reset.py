from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import FileError, ModelError, OptionError
from isogon.measures.arrangement.reset import reset
from isogon.training.snapshots import Snapshots, snapshots


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(),
        nn.Linear(6, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def earlier(model):
    torch.manual_seed(1)
    old = copy.deepcopy(model)
    for m in old.modules():
        if hasattr(m, "reset_parameters"):
            m.reset_parameters()
    with torch.no_grad():
        old[1].weight.copy_(torch.tensor([1.0, -1.0, 3.0, 0.0]))
    return old


@pytest.fixture
def batches(model, generator):
    x = torch.randn(60, 1, 4, 4, generator=generator)
    return [(x[:40], model(x[:40]).argmax(1)), (x[40:], model(x[40:]).argmax(1))]


def slow(model, other, path, batches, norm=None):
    """Copy the layer in a copy of the model, count by hand."""
    twin = copy.deepcopy(model)
    for p in filter(None, (path, norm)):
        twin.get_submodule(p).load_state_dict(other.get_submodule(p).state_dict())
    hits = [(twin(x).argmax(1) == y).float() for x, y in batches]
    return float(torch.cat(hits).mean())


def test_is_the_slow_twin_and_leaves_the_model_alone(model, earlier, batches):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    middle = nn.Sequential(*[copy.deepcopy(m) for m in earlier])
    reading = reset(model.train(), {"0": earlier, "5": middle.state_dict()}, batches)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    table = reading.to_frame()
    assert list(table) == ["site", "snapshot", "accuracy", "drop"]
    assert table["site"].unique().tolist() == ["0", "4", "6"]
    assert reading.meta["accuracy"] == 1.0
    for row in table.itertuples():
        assert row.accuracy == pytest.approx(slow(model, earlier, row.site, batches))
        assert row.drop == pytest.approx(1 - row.accuracy)
    assert table["drop"].max() > 0.1
    normed = reset(model, [earlier], batches, sites="0", norms=True).to_frame()
    assert normed["accuracy"][0] == pytest.approx(slow(model, earlier, "0", batches, "1"))


def test_resetting_to_itself_loses_nothing(model, batches):
    assert (reset(model, [model, model], batches).arrays["drop"] == 0).all()


def test_random_states(model, batches):
    state = torch.random.get_rng_state()
    first = reset(model, None, batches, random=3, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.equals(reset(model, [], batches, random=3, seed=5))
    assert first.coords["snapshot"] == ["random 1", "random 2", "random 3"]
    made = []

    def fresh():
        made.append(nn.Sequential(*[copy.deepcopy(m) for m in model]))
        nn.init.zeros_(made[-1][4].weight)
        return made[-1]

    reading = reset(model, None, batches, random=2, fresh=fresh, sites="4")
    assert reading.arrays["accuracy"][0, 0] == pytest.approx(slow(model, made[0], "4", batches))


def test_snapshots_of_a_training_run(tmp_path):
    from isogon.training.config import FitConfig

    done = ig.fit("mlp(width=8)", "two_moons(train)", out=tmp_path,
                  config=FitConfig(epochs=2, snapshot_every=1, seed=0))  # fmt: skip
    found = snapshots(str(tmp_path))
    assert len(found) >= 2
    reading = ig.reset(done.model(), found, ig.batches("two_moons(test)"))
    last = reading.arrays["drop"][:, -1]
    assert np.allclose(last, 0)
    reading.save(tmp_path / "reading")
    again = ig.read(tmp_path / "reading")
    assert again.equals(reading)
    ig.draw(again).savefig(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no snapshots"):
        snapshots(str(tmp_path / "empty"))


def test_refusals(model, earlier, batches):
    with pytest.raises(OptionError, match="nothing to reset to"):
        reset(model, [], batches)
    with pytest.raises(OptionError):
        reset(model, [earlier], batches, sites="nothing.*")
    with pytest.raises(ModelError, match="does not fit layer '4'"):
        reset(model, [nn.Sequential(*list(earlier)[:4], nn.Linear(16, 5))], batches)
    with pytest.raises(OptionError, match="no snapshots"):
        Snapshots.of(3)
