"""Sites and taps: what is read is what the module returned, and nothing is left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isogon import nets
from isogon.errors import ModelError, OptionError
from isogon.nets.sites import Site, sites
from isogon.nets.tap import tap
from isogon.nets.trace import place, trace


def inplace_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Identity(),
        nn.Hardtanh(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )


class Residual(nn.Module):
    """One ReLU used twice, an in-place sum, a functional in-place ReLU at the end."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x):
        h = self.relu(self.a(x))
        y = self.drop(self.b(h))
        y += h
        return self.head(F.relu_(self.relu(y)))


X = torch.rand(5, 1, 8, 8)


def by_hand(net, x):
    """Every output of a Sequential, copied at once."""
    values, h = [], x
    for layer in net:
        h = layer(h)
        values.append(h.clone())
    return values


def test_in_place_operations_do_not_corrupt_earlier_sites():
    net = inplace_net().eval()
    with torch.no_grad():
        expected = by_hand(net, X)
    found = sites(net, "all", example=X)
    with tap(net, found) as read:
        for _ in range(2):  # the second pass copies at once
            output, values = read(X)
            assert torch.equal(output, expected[-1])
            for site, value in zip(found, expected, strict=True):
                assert torch.equal(values[site], value), site
                assert values[site].shape[1:] == site.shape


def test_in_place_sums_and_functional_relus():
    torch.manual_seed(1)
    net = Residual().eval()
    x = torch.randn(6, 4)
    with torch.no_grad():
        a, b = net.a(x), net.b(net.a(x).relu())
        h = a.relu()
    found = sites(net, "all", example=x)
    with tap(net, found) as read:
        _, values = read(x)
    got = {s.name: v for s, v in values.items()}
    assert torch.equal(got["a"], a)
    assert torch.equal(got["relu"], h)
    assert torch.equal(got["b"], b)
    assert torch.equal(got["drop"], b)
    assert torch.equal(got["relu:1"], (b + h).relu())


class Gate(nn.Module):
    """Functional nonlinearities, a module called twice, an activation written by hand."""

    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x)

    class Inner(nn.Module):
        def forward(self, x):
            return F.relu(x) + x.relu()

    def __init__(self):
        super().__init__()
        self.fc, self.inner, self.act = nn.Linear(4, 4), self.Inner(), self.Swish()

    def forward(self, x):
        h = self.inner(torch.tanh(self.fc(x)))
        return torch.cat([self.inner(-h), self.act(h), F.leaky_relu_(h - 1)], 1)


def test_operations_are_sites_too():
    net, x = Gate(), torch.randn(3, 4)
    found = sites(net, "activations", example=x)
    names = ":tanh#0 inner:relu#0 inner:relu#1 inner:relu#0:1 inner:relu#1:1 act :leaky_relu#0"
    assert [s.name for s in found] == names.split()
    with torch.no_grad():
        h = net.inner(torch.tanh(net.fc(x)))
        with tap(net, found) as read:
            _, values = read(x)
    got = {s.name: v for s, v in values.items()}
    assert torch.equal(got[":tanh#0"], torch.tanh(net.fc(x)))
    assert torch.equal(got["inner:relu#1:1"], (-h).relu())
    assert torch.equal(got[":leaky_relu#0"], F.leaky_relu(h - 1))
    assert [s.name for s in sites(net, "relu", example=x)] == names.split()[1:5]
    assert [s.name for s in sites(net, "inner:relu#1:1, :cat#0", example=x)] == [
        "inner:relu#1:1",
        ":cat#0",
    ]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    "spec", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "residual", "gate"]
)
def test_names_are_those_of_the_traced_graph(spec):
    own = {"residual": Residual, "gate": Gate}
    net = own[spec]().eval() if spec in own else nets.build(f"{spec}(classes=4)").eval()
    x = torch.rand(3, 4) if spec in own else torch.rand(3, 3, 64, 64)
    graph = trace(net, x)
    traced = {(place(n).name, place(n).op) for n in graph.nodes if place(n).functional}
    layers = {place(n).name for n in graph.nodes if not place(n).functional}
    for site in sites(net, "all", example=x):
        if "#" in site.path:
            assert (site.name, site.op) in traced
        elif not list(net.get_submodule(site.path).children()) and spec not in own:
            assert site.name in layers or site.op == "Dropout"


def test_what_is_not_overwritten_is_not_copied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    kept = []
    net[0].register_forward_hook(lambda m, i, o: kept.append(o))
    with tap(net, sites(net, "0", example=torch.rand(2, 4))) as read:
        kept.clear()
        _, values = read(torch.rand(2, 4))
    assert len(kept) == 1
    (value,) = values.values()
    assert value.data_ptr() == kept[0].data_ptr()


def test_results_in_inference_mode():
    net = inplace_net().eval()
    expected = by_hand(net, X)
    with torch.inference_mode(), tap(net, sites(net, "all", example=X)) as read:
        _, values = read(X)
    assert all(torch.equal(v, e) for v, e in zip(values.values(), expected, strict=True))


def throw(error):
    raise error


def snapshot(net):
    return (
        copy.deepcopy(net.state_dict()),
        [m.training for m in net.modules()],
        [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in net.modules()],
        [(p.requires_grad, p.grad) for p in net.parameters()],
    )


def unchanged(net, before):
    state, *rest = snapshot(net)
    assert rest == list(before[1:])
    assert list(state) == list(before[0])
    assert all(torch.equal(state[k], before[0][k]) for k in state)


def test_the_model_is_left_as_it_was_also_after_an_exception():
    net = inplace_net().train()
    net[0].weight.requires_grad_(False)
    net[2].eval()
    net[0].register_forward_hook(lambda m, i, o: None)
    before = snapshot(net)
    found = sites(net, "all", example=X)
    unchanged(net, before)
    with pytest.raises(RuntimeError, match="mine"), tap(net, found) as read:
        read(X) and throw(RuntimeError("mine"))
    unchanged(net, before)
    with pytest.raises(RuntimeError), tap(net, found) as read:  # wrong shape, mid-way
        read(torch.rand(2, 1, 5, 5))
    unchanged(net, before)
    with pytest.raises(ModelError, match="does not take these inputs"):
        sites(net, "all", example=torch.rand(2, 1, 5, 5))
    unchanged(net, before)


def test_users_hooks_keep_working():
    net, calls = inplace_net(), []
    net[1].register_forward_hook(lambda m, i, o: calls.append(1) or o + 1)
    found = sites(net, "1", example=X)
    calls.clear()
    with tap(net, found) as read:
        _, values = read(X)
    assert calls
    net.eval()
    with torch.no_grad():
        assert torch.equal(values[found[0]], net[1](net[0](X)))


def test_wrappers():
    net = inplace_net()
    wrapped = nn.DataParallel(net)
    found = sites(wrapped, "relu", example=X)
    assert [s.name for s in found] == ["2"]
    with tap(wrapped, found) as read:
        assert read(X)[1][found[0]].shape == (5, 4, 6, 6)
    compiled = torch.compile(net, backend="eager")
    assert sites(compiled, "relu", example=X) == found


def test_gradients_on_request():
    net = inplace_net()
    x = X.clone().requires_grad_()
    found = sites(net, "1", example=X)
    with tap(net, found, grad=True) as read:
        _, values = read(x)
    values[found[0]].sum().backward()
    assert x.grad.abs().sum() > 0


def test_selectors():
    net = nets.build("resnet18(num_classes=4)").eval()
    x = torch.rand(2, 3, 32, 32)

    def names(select):
        return [s.name for s in sites(net, select, example=x)]

    relus = names("relu")
    assert len(relus) == 17
    assert names("ReLU") == names("activations") == relus
    assert names("layer1.0.relu") == ["layer1.0.relu"]
    assert names("layer1.0.relu:0") == ["layer1.0.relu"]
    assert names("relu:0") == ["relu"]
    assert names("layer1.0.relu:1") == ["layer1.0.relu:1"]
    assert names("layer1.0.relu*") == ["layer1.0.relu", "layer1.0.relu:1"]
    assert all(n.startswith("layer3.") for n in names("layer3.*"))
    assert len(names("weights")) == 21
    assert names("fc, conv1") == ["conv1", "fc"]
    assert names("conv2d, !layer*") == ["conv1"]
    assert set(names("!relu")) == set(names("all")) - set(relus)
    shapes = {s.name: s.shape for s in sites(net, "all", example=x)}
    assert shapes["layer1.0.relu:1"] == (64, 8, 8)
    assert shapes["fc"] == (4,)


def test_what_is_computed_of_weights_alone_is_no_site():
    """A temperature for each of two heads, clamped, beside two samples (Swin v2)."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.fc = nn.Parameter(torch.ones(2, 1)), nn.Linear(3, 6)

        def forward(self, x):
            heads = self.fc(x).view(len(x), 2, 3)
            return (torch.relu(heads) * torch.clamp(self.scale, max=4.0)).flatten(1)

    net = Heads().eval()
    for count in (1, 2, 3, 5):
        found = sites(net, "activations", example=torch.rand(count, 3))
        assert [s.op for s in found] == ["relu"]


def test_selector_that_matches_nothing_lists_what_there_is():
    net = nets.build("cnn")
    for bad in ("gelu", "relu7", "", "conv9.*", "conv1, nope", "!all"):
        with pytest.raises(OptionError) as error:
            sites(net, bad, example=torch.rand(1, 1, 28, 28))
        assert "activations" in str(error.value)
        assert error.value.exit_code == 2
    with pytest.raises(OptionError, match="Did you mean 'ReLU'"):
        sites(net, "relu7", example=torch.rand(1, 1, 28, 28))


def test_without_an_example_modules_are_listed():
    net = nets.build("cnn")
    assert [s.name for s in sites(net, "weights")] == ["conv1", "conv2", "fc1", "fc2"]


def test_blocks_stand_in_where_there_is_no_nonlinearity():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.fc(x)

    net = nn.Sequential(nn.Sequential(Block(), Block()), nn.Linear(4, 2))
    names = [s.name for s in sites(net, "activations", example=torch.rand(2, 4))]
    assert names == ["0.0", "0.1"]
    assert [s.name for s in sites(nn.Sequential(nn.Linear(4, 4)), "activations")] == ["0"]


def test_a_site_that_is_not_reached():
    net = Residual()
    with pytest.raises(ModelError, match=r"relu:5"), tap(net, [Site("relu", 5)]) as read:
        read(torch.rand(2, 4))
    with pytest.raises(ModelError, match="nope"), tap(net, [Site("nope")]):
        pass


@pytest.mark.parametrize(
    ("x", "fix"),
    [
        ((X * 255).to(torch.uint8), r"x\.float\(\) / 255"),
        (X.permute(0, 2, 3, 1), r"x\.permute\(0, 3, 1, 2\)"),
        (torch.rand(2, 1, 5, 5), "of that shape"),
    ],
)
def test_inputs_that_do_not_fit_are_told_what_they_look_like(x, fix):
    with pytest.raises(ModelError, match=rf"{str(x.dtype)[6:]}.*{fix}"):
        sites(inplace_net(), "all", example=x)
