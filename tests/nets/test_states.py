"""Other weights in a model, layers drawn again, and whether a state fits."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import isogon as ig
from isogon.errors import ModelError
from isogon.measures.arrangement.orientation import orientation
from isogon.nets.hygiene import preserved
from isogon.nets.redrawn import redrawn
from isogon.nets.states import fitted, load_weights, misfits, swapped, weight_of
from isogon.nets.weights import put

X = torch.rand(5, 6)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again = self.a
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(self.b(self.again(self.a(x).relu()).relu()).relu())


@pytest.fixture
def tied():
    torch.manual_seed(0)
    return Tied().eval()


def test_a_shared_tensor_is_other_everywhere_and_comes_back(tied):
    weight, state = tied.a.weight, {k: v.clone() for k, v in tied.state_dict().items()}
    other = torch.randn(6, 6)
    twin = copy.deepcopy(tied)
    with torch.no_grad():
        twin.a.weight.copy_(other)
    for name in ("a.weight", "again.weight", "b.weight"):
        with swapped(tied, {name: other}):
            assert torch.equal(tied(X), twin(X))
        for holder in (tied.a, tied.again, tied.b):
            assert holder.weight is weight
    with swapped(tied, twin.state_dict()):
        assert torch.equal(tied(X), twin(X))
    assert isinstance(tied.a._parameters["weight"], nn.Parameter)
    assert all(torch.equal(v, state[k]) for k, v in tied.state_dict().items())
    with (
        pytest.raises(ModelError, match="two values for one tensor"),
        swapped(tied, {"a.weight": other, "b.weight": -other}),
    ):
        pass


def test_reset_of_a_shared_module_is_that_of_a_copy(tied):
    torch.manual_seed(1)
    earlier = Tied()
    before = {k: (id(v), v.clone()) for k, v in tied.state_dict(keep_vars=True).items()}
    x = torch.randn(200, 6)
    y = tied(x).argmax(1)
    reading = ig.reset(tied, [earlier], [(x, y)])
    after = tied.state_dict(keep_vars=True)
    assert all(id(after[k]) == i and torch.equal(after[k], v) for k, (i, v) in before.items())
    for row in reading.to_frame().itertuples():
        twin = copy.deepcopy(tied)
        twin.get_submodule(row.site).load_state_dict(earlier.get_submodule(row.site).state_dict())
        assert row.accuracy == pytest.approx(float((twin(x).argmax(1) == y).float().mean()))
    assert reading.arrays["drop"].max() > 0.05


def test_recurrent_layers_compute_with_the_other_weights():
    torch.manual_seed(0)
    net, other = nn.LSTM(3, 4, batch_first=True), nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    before = net(x)[0]
    with swapped(net, other.state_dict()):
        assert torch.equal(net(x)[0], other(x)[0])
    own = dict(net.named_parameters())
    held = zip(net._flat_weights_names, net._flat_weights, strict=True)
    assert all(w is own[name] for name, w in held)
    assert torch.equal(net(x)[0], before)


def test_a_buffer_that_is_written_to_is_a_copy():
    net = nn.BatchNorm1d(6).train()
    given = {"running_mean": torch.ones(6)}
    mine = net.running_mean.clone()
    with swapped(net, given):
        net(X)
        assert not torch.equal(net.running_mean, torch.ones(6))
    assert torch.equal(given["running_mean"], torch.ones(6))
    assert torch.equal(net.running_mean, mine)


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": torch.nn.utils.weight_norm,
    "old spectral norm": torch.nn.utils.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


def layer_of(how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        layer = COMPUTED[how](nn.Linear(6, 4))
        layer(X)
    return layer


@pytest.mark.parametrize("how", COMPUTED)
def test_a_layer_is_drawn_again_through_what_computes_its_weight(how):
    layer = layer_of(how)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    torch.manual_seed(3)
    state = redrawn(layer, "layer")
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    layer.eval()
    was, old = layer(X), weight_of(layer)
    torch.manual_seed(3)
    plain = nn.Linear(6, 4)
    plain.reset_parameters()
    with swapped(layer, state):
        new = weight_of(layer)
        assert torch.allclose(layer(X), X @ new.T + state["bias"], atol=1e-6)
    assert torch.equal(layer(X), was)
    assert float((new - old).abs().max()) > 1e-2
    if "weight norm" in how:
        assert new.abs().max() <= 6**-0.5 + 1e-6, "the initialisation of a linear layer"
    if "spectral" in how:
        assert float(torch.linalg.matrix_norm(new, 2)) == pytest.approx(1, rel=0.02)
    if how == "orthogonal":
        assert torch.allclose(new @ new.T, torch.eye(4), atol=1e-5)
    if how == "pruned":
        assert torch.equal(new == 0, old == 0)


@pytest.mark.parametrize("how", COMPUTED)
def test_reading_a_weight_leaves_the_layer_as_it_is(how):
    """In training mode every reading of a spectral norm's weight takes a step of its estimate."""
    net = nn.Sequential(layer_of(how), nn.ReLU(), nn.Linear(4, 2)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    first = weight_of(net[0])
    for call in (lambda: weight_of(net[0]), lambda: ig.sites(net, "weights")):
        call()
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(weight_of(net[0]), first)
    assert [s.path for s in ig.sites(net, "weights")] == ["0", "2"]
    assert all(m.training for m in net.modules())


def test_a_layer_that_cannot_be_drawn_is_refused():
    class Odd(nn.Module):
        def forward(self, x):
            return x.tanh()

    layer = nn.Linear(6, 4)
    parametrize.register_parametrization(layer, "weight", Odd())
    with pytest.raises(ModelError, match="Odd, which has no inverse"):
        redrawn(layer, "fc")
    with pytest.raises(ModelError, match="Give fresh"):
        redrawn(nn.ReLU(), "relu")


@pytest.mark.parametrize("how", COMPUTED)
def test_orientation_reads_the_weight_as_it_is_now(how):
    layer = layer_of(how)
    other = redrawn(layer, "")
    layer.load_state_dict(other)  # old hooks leave the weight of the last call behind
    twin = copy.deepcopy(nn.Sequential(nn.Linear(6, 4)))
    with torch.no_grad():
        twin[0].weight.copy_(weight_of(layer))
    net = nn.Sequential(layer)
    held = vars(layer).get("weight")
    mine = orientation(net).table["projection"]
    assert list(mine) == pytest.approx(list(orientation(twin).table["projection"]), abs=1e-6)
    assert vars(layer).get("weight") is held
    assert list(mine) == pytest.approx(weight_of(layer).sum(1).tolist(), abs=1e-6)


def test_cached_parametrisations_do_not_outlive_a_swap():
    layer = layer_of("weight norm").eval()
    with parametrize.cached():
        weight, was = layer.weight, layer(X)
        with swapped(layer, redrawn(layer, "")):
            assert not torch.equal(layer.weight, weight)
            assert not torch.equal(layer(X), was)
        assert layer.weight is weight
        assert torch.equal(layer(X), was)


def test_what_does_not_fit_is_named(tied):
    state = dict(tied.state_dict())
    del state["again.weight"], state["b.weight"], state["again.bias"]
    assert misfits(tied, state) == ([], [], []), "aliases are one tensor"
    assert set(fitted(tied, state, what="it")) == set(tied.state_dict())
    state |= {"out.weight": torch.zeros(2, 6), "more": torch.zeros(1)}
    del state["a.bias"]
    missing, unexpected, shapes = misfits(tied, state)
    assert missing == ["a.bias", "again.bias"]
    assert unexpected == ["more"]
    assert shapes == ["out.weight (2, 6) for (3, 6)"]
    with pytest.raises(ModelError, match=r"a.bias: missing, and 2 more"):
        fitted(tied, state, what="it")
    state = dict(tied.state_dict()) | {"out.bias": torch.tensor([1.0, float("nan"), 2.0])}
    with pytest.raises(ModelError, match=r"holds NaN or infinite weights: got out.bias, 1 of 3"):
        fitted(tied, state, what="it")


def test_preserved_puts_back_what_a_forward_writes():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("nan", torch.tensor([float("nan"), 1.0]))
            self.plain = torch.zeros(2)

        def forward(self, x):
            self.calls += 1
            self.nan = self.nan + 1
            self.register_buffer("late", torch.ones(1))
            self.plain, self.kept = torch.ones(2), x
            self.fc.weight.data = self.fc.weight.data * 0.5
            return self.fc(x)

    net = Writes().train()
    held = {k: (v, v.clone()) for k, v in net.state_dict(keep_vars=True).items()}
    plain = net.plain
    with preserved(net), preserved(net.fc), preserved(net):
        assert not net.training
        net(X)
        net(X)
    assert net.training
    now = net.state_dict(keep_vars=True)
    assert list(now) == list(held)
    for key, (tensor, value) in held.items():
        assert now[key] is tensor
        assert torch.equal(tensor.nan_to_num(7), value.nan_to_num(7)), key
    assert net.plain is plain
    assert not hasattr(net, "kept")


def test_two_models_preserved_in_any_order():
    a, b = nn.Linear(2, 2).train(), nn.Linear(2, 2).train()
    one, two = preserved(a), preserved(b)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    two.__exit__(None, None, None)
    with preserved(a):
        assert not a.training
    assert a.training
    assert b.training


def test_verify_computes_in_double_and_leaves_a_shared_module_as_it_was(tied):
    before = {k: (id(v), v.clone()) for k, v in tied.state_dict(keep_vars=True).items()}
    found = ig.verify(tied, X)
    assert found.passed
    assert found.facts["precision"] == "float64"
    after = tied.state_dict(keep_vars=True)
    for key, (tensor, value) in before.items():
        assert id(after[key]) == tensor
        assert after[key].dtype == torch.float32
        assert torch.equal(after[key], value)


class Caching(nn.Module):
    """Keeps what it computes of a weight in evaluation mode, as LeViT does with its biases."""

    def __init__(self):
        super().__init__()
        self.bias, self.out = nn.Parameter(torch.randn(6)), nn.Linear(6, 3)
        self.cache = {}

    def train(self, mode=True):
        super().train(mode)
        if mode and self.cache:
            self.cache = {}
        return self

    def forward(self, x):
        if self.training:
            return self.out(torch.tanh(x + self.bias * 2))
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias * 2
        return self.out(torch.tanh(x + self.cache["bias"]))


@pytest.mark.parametrize("warm", [False, True])
def test_what_a_module_keeps_of_its_weights_follows_them(warm):
    torch.manual_seed(0)
    net, other = nn.Sequential(Caching()).eval(), nn.Sequential(Caching()).eval()
    with torch.no_grad():
        was = copy.deepcopy(net)(X)
        if warm:
            net(X)
    cache = net[0].cache
    contents = dict(cache)
    with torch.no_grad(), swapped(net, other.state_dict()):
        assert torch.equal(net(X), other(X))
        assert not net.training
        assert not net[0].out.training
    assert net[0].cache is cache
    assert cache.keys() == contents.keys()
    assert all(cache[k] is v for k, v in contents.items())
    with torch.no_grad():
        assert torch.equal(net(X), was)
        labels = net(X).argmax(1)
    # a measure that puts other weights in, one layer at a time
    state = {**net.state_dict(), "0.bias": torch.tensor([9.0, -9.0] * 3)}
    reading = ig.reset(net, {"moved": state}, [(X, labels)], sites="*")
    rows = reading.table
    moved = copy.deepcopy(net)
    moved[0].cache = {}
    moved.load_state_dict(state)
    with torch.no_grad():
        share = float((moved(X).argmax(1) == labels).float().mean())
    assert share < 1
    assert min(rows["accuracy"]) == pytest.approx(share)


class Versioned(nn.Linear):
    """Asks of a state which version of the module wrote it."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version") != 2:
            raise ValueError(f"version {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def versioned() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Versioned(4, 3), nn.BatchNorm1d(3))


def test_modules_that_ask_for_a_version_get_their_own(tmp_path):
    torch.manual_seed(0)
    model = versioned()
    state = dict(model.state_dict())
    with pytest.raises(ValueError, match="version None"):
        versioned().load_state_dict(state)
    twin = versioned()
    load_weights(twin, state)
    assert torch.equal(twin[1].weight, model[1].weight)
    del state["2.num_batches_tracked"]  # files of the first version of batch-norm have none
    load_weights(versioned(), state)
    save_file(state, tmp_path / "net.safetensors")
    found = put(versioned(), load_file(tmp_path / "net.safetensors"), source="net", what="it")
    assert torch.equal(found[1].weight, model[1].weight)
    old = model.state_dict()
    old._metadata["1"]["version"] = 1  # what is said is believed
    with pytest.raises(ValueError, match="version 1"):
        load_weights(versioned(), old)
