"""Models that can't be traced are still tapped; what can't even be watched is refused clearly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isogon import nets
from isogon.errors import ModelError
from isogon.nets.accuracy import accuracy
from isogon.nets.outputs import logits
from isogon.nets.sites import sites
from isogon.nets.surgery import cuts, split, splits
from isogon.nets.tap import tap

X = torch.rand(5, 4)


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)


class FixedBatch(One):
    def forward(self, x):
        return F.relu(self.fc(x)).view(int(x.shape[0]), -1)


class Branch(One):
    def forward(self, x):
        return F.relu(self.fc(x)) if x.sum() > 0 else -self.fc(x)


class Loop(One):
    def forward(self, x):
        return torch.stack([F.relu(self.fc(row[None]))[0] for row in x])


class Folded(One):
    """Samples folded into the first axis with something else: no site of its own there."""

    def forward(self, x):
        h = F.relu(self.fc(x.repeat_interleave(2, 0)))
        return h.view(x.shape[0], 2, 3).sum(1)


def test_untraceable_models_are_tapped_by_hooks(capfd):
    for kind in (FixedBatch, Branch):
        net = kind().eval()
        found = sites(net, "all", example=X)
        assert [s.name for s in found] == ["fc", ":relu#0"]
        with tap(net, found) as read:
            output, values = read(X)
        assert torch.equal(output, net(X))
        assert torch.equal(values[found[1]], net.fc(X).relu())
        with pytest.raises(ModelError) as error:
            split(net, "fc", example=X)
        assert "\n" not in str(error.value)
        assert net.fc.weight.requires_grad
        assert not net.fc._forward_hooks
    assert capfd.readouterr() == ("", "")


def test_only_outputs_with_one_row_per_sample_are_sites():
    assert sites(nn.Sequential(Folded(), nn.ReLU()), "all", example=X)[0].name == "0"
    assert [s.name for s in sites(nn.Sequential(Loop(), nn.ReLU()), "all", example=X)] == ["0", "1"]


def test_compiled_parts_run_as_written():
    inner = torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager")
    net = nn.Sequential(nn.Linear(4, 3), inner, nn.LogSoftmax(1))
    found = sites(net, "relu", example=X)
    assert [s.op for s in found] == ["ReLU"]
    with tap(net, found) as read:
        assert torch.equal(read(X)[1][found[0]], inner(net[0](X)))
    assert torch.equal(logits(net, X), inner(net[0](X)))


def test_script_modules_are_refused():
    net = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    for call in (sites, cuts):
        with pytest.raises(ModelError, match="TorchScript"):
            call(net, "all", example=X)


def test_fused_attention_is_taken_apart():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    net = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)).eval()
    x = torch.rand(3, 5, 4)
    found = sites(net, "linear", example=x)
    assert [s.name for s in found] == [f"0.layers.{i}.linear{k}" for i in range(2) for k in (1, 2)]
    with torch.no_grad(), tap(net, found[:1]) as read:
        assert read(x)[1][found[0]].shape == (3, 5, 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_one_sample_as_an_example():
    net = nets.build("cnn(4, size=8)").eval()
    x = torch.rand(1, 1, 8, 8)
    assert sites(net, "relu", example=x)[0].shape == (4, 8, 8)
    parts = split(net, "pool1", example=x)
    assert torch.equal(parts.tail(parts.head(x)), net(x))


def test_a_first_layer_in_place_does_not_change_the_data():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    x = X - 0.5
    kept = x.clone()
    found = sites(net, "all", example=x)
    with tap(net, found) as read:
        _, values = read(x)
    logits(net, x)
    accuracy(net, [(x, torch.zeros(5))])
    cuts(net, example=x)
    assert torch.equal(x, kept)
    assert torch.equal(values[found[0]], kept.relu())


class Windows(nn.Module):
    """Folds windows into the samples: a size that is not the number of samples crosses the cut."""

    def __init__(self):
        super().__init__()
        self.fc, self.act, self.inner = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)

    def forward(self, x):
        h = self.fc(x.view(-1, 2))
        rows = h.shape[0]
        back = self.act(h.view(x.shape[0], -1))
        return self.act(self.inner(back.view(rows, -1)).view(x.shape[0], -1))


def test_sizes_that_are_not_the_number_of_samples():
    net = Windows().eval()
    assert [s.name for s in sites(net, "relu", example=X)] == ["act", "act:1"]
    found = splits(net, "relu", example=X)
    assert [p.site.name for p in found][-1:] == ["act:1"]
    for parts in found:
        assert torch.equal(parts.tail(parts.head(X[:4])), net(X[:4])), parts.site


def test_inputs_of_another_shape_are_refused_in_one_line():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    with pytest.raises(ModelError, match=r"does not take these inputs.*\[2, 9\]"):
        sites(net, "all", example=torch.zeros(2, 9))
