"""Models from specs and files; what can't be loaded is refused in one line."""

from __future__ import annotations

import json
import pickle
import sys

import pytest
import torch
from torch import nn

import isogon as ig
from isogon import nets, storage
from isogon.errors import FileError, ModelError, SpecError
from isogon.nets.load import parse_module
from isogon.nets.normalize import Normalize, normalized
from isogon.specs import parse


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nets.build("mlp(8, 1, inputs=2, classes=3)").eval()


SPEC = "mlp(8, 1, inputs=2, classes=3)"


def same(a: nn.Module, b: nn.Module) -> bool:
    sa, sb = a.state_dict(), b.state_dict()
    return list(sa) == list(sb) and all(torch.equal(sa[k], sb[k]) for k in sa)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_weights_load(net, tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        storage.write_tensors(path, net.state_dict(), {})
    else:
        torch.save(net.state_dict(), path)
    found = ig.load(f"{SPEC}@{path}")
    assert same(found, net)
    assert not found.training


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_nested_and_prefixed_state_dicts(net, tmp_path, key):
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    torch.save({key: state, "epoch": 3}, tmp_path / "w.pt")
    assert same(ig.load(f"{SPEC}@{tmp_path}/w.pt"), net)


def test_checkpoints_say_what_they_are(net, tmp_path):
    path = tmp_path / "last.safetensors"
    tensors = {f"model.{k}": v for k, v in net.state_dict().items()}
    tensors["optimizer.0.exp_avg"] = torch.zeros(3)
    meta = {"format": 1, "spec": SPEC, "normalize": {"mean": [0.5], "std": [0.25]}}
    storage.write_tensors(path, tensors, {"isogon": json.dumps(meta)})
    x = torch.rand(4, 2)
    for spec in (str(path), path, f"{SPEC}@{path}", f"mlp@{path}", f"mlp(num_classes=3)@{path}"):
        found = ig.load(spec)
        assert torch.equal(found(x), net((x - 0.5) / 0.25))
        assert isinstance(found[0], Normalize)


def test_a_checkpoint_never_imports_code(net, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    storage.write_tensors(
        "w.safetensors",
        {f"model.{k}": v for k, v in net.state_dict().items()},
        {"isogon": json.dumps({"spec": "evil_module:build()"})},
    )
    with pytest.raises(SpecError, match="architecture"):
        ig.load("w.safetensors")
    assert "evil_module" not in sys.modules


def test_weights_of_a_normalised_model(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    (tmp_path / "normed.py").write_text(
        "from isogon import nets\nfrom isogon.nets.normalize import normalized\n"
        f"def build(): return normalized(nets.build('{SPEC}'), 0.5, 0.25)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        found = ig.load(f"normed:build()@{tmp_path}/w.pt")
    finally:
        sys.path.remove(str(tmp_path))
    x = torch.rand(4, 2)
    assert torch.equal(found(x), net((x - 0.5) / 0.25))


def test_user_code_from_the_working_directory(tmp_path, monkeypatch, net):
    (tmp_path / "zoo_of_mine.py").write_text(
        "from torch import nn\ndef build(k=2): return nn.Linear(2, k)\ndef number(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = list(sys.path)
    assert ig.load("zoo_of_mine:build(k=5)").out_features == 5
    assert sys.path == before
    with pytest.raises(SpecError, match="kk"):
        ig.load("zoo_of_mine:build(kk=5)")
    with pytest.raises(ModelError, match="did not return a model"):
        ig.load("zoo_of_mine:number()")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_files_that_would_execute_code(tmp_path):
    torch.save({"w": Bomb()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save(nn.Linear(2, 2), tmp_path / "c.pt")
    for name in "abc":
        with pytest.raises(FileError) as error:
            ig.load(f"{SPEC}@{tmp_path}/{name}.pt")
        assert "\n" not in str(error.value)
        assert "state_dict" in str(error.value)


def test_truncated_files(net, tmp_path):
    storage.write_tensors(tmp_path / "w.safetensors", net.state_dict(), {})
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(FileError) as error:
            ig.load(f"{SPEC}@{path}")
        assert "\n" not in str(error.value)


def test_mismatch_names_what_differs(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"other shape 1\.weight \(8, 2\) for \(9, 2\)"):
        ig.load(f"mlp(9, 1, inputs=2, classes=3)@{tmp_path}/w.pt")
    with pytest.raises(ModelError, match=r"missing 5\.weight, 5\.bias") as error:
        ig.load(f"mlp(8, 2, inputs=2, classes=3)@{tmp_path}/w.pt")
    assert "\n" not in str(error.value)


def test_float64_weights_stay_float64(net, tmp_path):
    torch.save(net.double().state_dict(), tmp_path / "w.pt")
    found = ig.load(f"{SPEC}@{tmp_path}/w.pt")
    assert found[1].weight.dtype == torch.float64


def test_nan_weights_are_refused_as_a_measures_input(net, tmp_path):
    net[1].weight.data[0, 0] = float("nan")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"NaN or infinity in '1\.weight'"):
        parse_module(f"{SPEC}@{tmp_path}/w.pt")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("/nowhere/w.safetensors", "no such file"),
        ("mlp@/nowhere/w.safetensors", "no such file"),
        ("/nowhere/model.pt2", "no such file"),
        ("mlpp", "Did you mean 'mlp'"),
        ("mlp[3]", "no index"),
    ],
)
def test_refusals(spec, match):
    with pytest.raises((FileError, SpecError), match=match):
        ig.load(spec)


def test_a_bare_state_dict_asks_for_its_architecture(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.raises(SpecError, match=r"ARCHITECTURE@w\.pt"):
        ig.load(str(tmp_path / "w.pt"))


def test_published_small_cnn(shared):
    model = ig.load(f"small_cnn@{shared}/oracles/manifold/small_cnn_01.pt")
    assert model(torch.zeros(1, 1, 28, 28)).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_normalize():
    x = torch.rand(2, 3, 4, 4)
    layer = Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    assert torch.equal(layer(x)[:, 2], (x[:, 2] - 0.3) / 4.0)
    assert torch.equal(Normalize(0.5, 0.25)(x), (x - 0.5) / 0.25)
    assert Normalize((0.1, 0.2), (1.0, 1.0))(torch.rand(5, 2)).shape == (5, 2)
    assert normalized(nn.Flatten(), 0.5, 0.5)(x).shape == (2, 48)
    for mean, std in ((0.0, 0.0), ((0.0, 1.0), (1.0, 1.0, 1.0)), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="expected"):
            Normalize(mean, std)


def test_a_small_checkpoint_can_not_ask_for_a_huge_model(net, tmp_path):
    storage.write_tensors(
        tmp_path / "w.safetensors",
        {f"model.{k}": v for k, v in net.state_dict().items()},
        {"isogon": json.dumps({"spec": "mlp(1000000000, 3, inputs=1000000)"})},
    )
    with pytest.raises(SpecError, match="a file asks for width = 1000000000"):
        ig.load(tmp_path / "w.safetensors")


def test_a_spec_names_one_model_and_the_global_generator_stays():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b = ig.load(SPEC), ig.load(SPEC)
    assert same(a, b)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(nets.build(SPEC), nets.build(SPEC))


def test_weights_trained_on_normalised_inputs(shared):
    path = f"{shared}/oracles/manifold/small_cnn_01.pt"
    raw = ig.load(f"normalized(small_cnn, 0.1307, 0.3081)@{path}")
    inner = ig.load(f"small_cnn@{path}")
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(raw(x), inner((x - 0.1307) / 0.3081))
    with pytest.raises(ModelError, match="don't fit"):
        ig.load(f"normalized(small_cnn(classes=7))@{path}")


class Data:
    shape, classes = (3, 8, 8), ["a", "b"]


def test_weights_say_more_about_their_model_than_the_data(tmp_path):
    ours = nets.build("all_conv(2, channels=3)")  # ten classes, as the architecture has by default
    torch.save(nets.build("all_conv(2)", channels=3, classes=2).state_dict(), tmp_path / "2.pt")
    torch.save(ours.state_dict(), tmp_path / "10.pt")
    x = torch.rand(2, 3, 8, 8)
    assert ig.load(f"all_conv(2, channels=3)@{tmp_path}/10.pt", like=Data())(x).shape == (2, 10)
    assert ig.load(f"all_conv(2)@{tmp_path}/2.pt", like=Data())(x).shape == (2, 2)
    with pytest.raises(ModelError, match="don't fit"):
        ig.load(f"all_conv(3)@{tmp_path}/2.pt", like=Data())


def test_users_builders_get_what_the_spec_says_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "sized_module.py").write_text(
        "from torch import nn\ndef build(size=5, classes=3): return nn.Linear(size, classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = ig.load("sized_module:build(classes=4)", like=Data())
    assert (found.in_features, found.out_features) == (5, 4)


def test_what_data_say_fills_what_is_open_and_nothing_else():
    from isogon.nets.facts import facts, filled

    def both(depth, channels=1, classes=10, size=28): ...
    def theirs(weights=None, num_classes=1000): ...

    known = facts(Data())
    assert known == {"inputs": 192, "channels": 3, "size": 8, "classes": 2}
    assert facts(Data(), classes=7)["classes"] == 7
    for text, builder, kwargs in (
        ("f(1)", both, {"channels": 3, "classes": 2, "size": 8}),
        ("f(1, 5)", both, {"classes": 2, "size": 8}),
        ("f(1, num_classes=4)", both, {"channels": 3, "classes": 4, "size": 8}),
        ("f", theirs, {"num_classes": 2}),
        ("f(classes=5)", theirs, {"num_classes": 5}),
        ("f(None, 5)", theirs, {}),
        ("f(1, 2, 3, 4, 5)", both, {}),
    ):
        assert filled(parse(text), builder, known).kwargs == kwargs
    assert ig.load("cnn(4)", like=Data())(torch.rand(1, 3, 8, 8)).shape == (1, 2)
