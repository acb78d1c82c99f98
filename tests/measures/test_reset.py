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
    assert list(table) == ["site", "snapshot", "accuracy", "drop", "drop_low", "drop_high"]
    assert reading.meta["whole_passes"] == []
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


def residual():
    torch.manual_seed(2)
    return ig.load("cifar_resnet20(width=4, channels=1)")


def shared():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), layer, nn.ReLU(), layer, nn.Flatten(),
                         nn.Linear(2 * 6 * 6, 3), nn.LogSoftmax(1))  # fmt: skip


def normed():
    first = nn.utils.parametrizations.weight_norm(nn.Linear(64, 5))
    last = nn.utils.spectral_norm(nn.Linear(5, 3))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), last)


def batch_normed():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
                         nn.MaxPool2d(2), nn.Conv2d(4, 4, 2, groups=2), nn.BatchNorm2d(4),
                         nn.Flatten(), nn.Linear(16, 3))  # fmt: skip


@pytest.mark.parametrize(
    ("build", "norms"),
    [
        (residual, True),
        (shared, False),
        (normed, False),
        (batch_normed, False),
        (batch_normed, True),
    ],
)
def test_the_bits_are_those_of_whole_passes(build, norms, monkeypatch):
    """Every logit of every cell, not only which of them is the largest."""
    from isogon.measures.arrangement import resets

    torch.manual_seed(1)
    model = build().eval()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_var.uniform_(0.5, 2)
    x = torch.randn(21, 1, 8, 8)
    batches = [(x[:16], torch.arange(16) % 3), (x[16:], torch.arange(5) % 3)]
    seen = {True: [], False: []}
    counted = resets.correct
    monkeypatch.setattr(
        resets, "correct", lambda z, y: seen[False].append(z.clone()) or counted(z, y)
    )
    from isogon.measures.arrangement import suffixes

    monkeypatch.setattr(
        suffixes, "correct", lambda z, y: seen[True].append(z.clone()) or counted(z, y)
    )
    readings = {
        reuse: reset(model, None, batches, random=1, norms=norms, reuse=reuse)
        for reuse in (True, False)
    }
    assert readings[True].meta["whole_passes"] == []
    assert readings[True].table.equals(readings[False].table)
    rows = readings[True].table.shape[0]

    def bits(chunks):
        """Logits of the cells as a set: the two ways take them in another order."""
        return sorted(z.double().numpy().tobytes() for z in chunks)

    assert len(seen[True]) == len(seen[False]) == 2 * (rows + 1)
    assert bits(seen[True]) == bits(seen[False])


def test_what_comes_before_a_layer_runs_once(model, batches, monkeypatch):
    from isogon.measures.arrangement.suffixes import Program

    runs = []
    value = Program._value
    monkeypatch.setattr(Program, "_value", lambda self, node, values, x: (
        runs.append(str(node.target)), value(self, node, values, x))[1])  # fmt: skip
    reset(model, None, batches, random=5)
    convolutions = sum("conv2d" in r for r in runs)
    linear = sum("linear" in r for r in runs)
    # each layer is first looked at on two samples, changed; then two batches: the network itself,
    # and five states of the first layer
    assert convolutions == (1 + 1) + 2 * (1 + 5)
    # behind it: both linear layers for its states and those of the first linear, one for the last
    assert linear == (2 + 2 + 2 + 1) + 2 * (2 + 5 * 2 + 5 * 2 + 5 * 1)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.a(x)
        return self.b(h.relu() if float(h.detach().abs().sum()) >= 0 else h)


def test_what_cannot_be_traced_is_measured_by_whole_passes():
    torch.manual_seed(0)
    model, x = Branching(), torch.randn(20, 4)
    reading = reset(model, None, [(x, torch.arange(20) % 3)], random=2)
    assert reading.meta["whole_passes"] == ["a", "b"]
    twin = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twin.a.reset_parameters()
    want = float((twin(x).argmax(1) == torch.arange(20) % 3).float().mean())
    assert reading.arrays["accuracy"][0, 0] == pytest.approx(want)


def test_states_come_in_groups(model, earlier, batches, monkeypatch):
    from isogon.measures.arrangement import resets

    states = {str(k): m for k, m in enumerate([earlier, model, earlier, model, earlier])}
    whole = reset(model, states, batches)
    monkeypatch.setattr(resets, "MOST", 1500)  # bytes: two or three states at a time
    assert reset(model, states, batches).equals(whole)


def test_intervals_are_those_of_paired_resampling():
    """Against resampling samples one by one; unpaired resampling would be far wider."""
    from isogon.measures.arrangement.criticality import interval

    rng = np.random.default_rng(0)
    own = rng.random(300) < 0.8
    right = own ^ (rng.random(300) < 0.1)
    low, high = interval(own, right[None, None], 20_000, 0)
    rows = rng.integers(0, 300, (20_000, 300))
    drops = own[rows].mean(1) - right[rows].mean(1)
    assert np.allclose([low[0, 0], high[0, 0]], np.percentile(drops, [2.5, 97.5]), atol=0.004)
    other = own[rows].mean(1) - right[rng.integers(0, 300, (20_000, 300))].mean(1)
    assert np.ptp(np.percentile(other, [2.5, 97.5])) > 1.3 * (high - low)[0, 0]
    same = interval(own, own[None, None], 100, 0)
    assert same[0].tolist() == same[1].tolist() == [[0.0]]


def test_bias_and_criticality(model, batches):
    from isogon.measures.arrangement.criticality import correlation

    reading = reset(model, [model], batches, random=1)
    mass = ig.orientation(model).summary().set_index("site")["mass"]
    assert reading.meta["bias"] == {k: mass[k] - 0.5 for k in ("0", "4", "6")}
    assert list(reading.summary())[-2:] == ["mean_drop", "bias"]
    drop = np.array([[0.1, 0.5], [0.2, 0.4], [0.3, 0.1]])
    found = correlation(drop, [-0.1, 0.2, -0.3], ["x", "y"])
    assert [found[k]["spearman"] for k in "xy"] == pytest.approx([1.0, -1.0])
    assert found["x"]["n"] == 3
    assert correlation(np.zeros((3, 1)), [0.1, 0.2, 0.3], ["x"]) == {}


def test_a_list_of_snapshots(model, earlier, batches, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "inner").mkdir()
    save_file(earlier.state_dict(), tmp_path / "inner" / "b.safetensors")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    text = tmp_path / "list.txt"
    text.write_text("# the start\ninner/b.safetensors\n\na.safetensors  # the end\n")
    reading = reset(model, str(text), batches)
    assert reading.coords["snapshot"] == ["b", "a"]
    plain = reset(model, {"b": earlier, "a": model}, batches)
    assert np.array_equal(reading.arrays["drop"], plain.arrays["drop"])
    for wrong in (
        "",
        "../a.safetensors",
        str(tmp_path / "a.safetensors"),
        "c.safetensors",
        "list.txt",
    ):
        text.write_text(wrong + "\n")
        with pytest.raises(FileError, match="list of snapshots"):
            snapshots(str(text))
    with pytest.raises(FileError, match="can't be read"):
        snapshots(str(tmp_path / "none.txt"))


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
    with pytest.raises(OptionError, match="bootstrap"):
        reset(model, [earlier], batches, bootstrap=-1)
    with pytest.raises(OptionError, match="no snapshots"):
        Snapshots.of(3)
