"""Surgery: tail(head(x)) is the model bit by bit at every cut; nothing of the user's changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isogon import nets
from isogon.errors import DataError, ModelError, NotACut, OptionError
from isogon.nets.anatomy import Anatomy
from isogon.nets.recalibrate import GraphNorm
from isogon.nets.sites import sites
from isogon.nets.surgery import cuts, frozen, graft, recalibrated, split, splits, swapped


class Encoder(nn.Module):
    """A small transformer of torch's own parts, with a class token."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(6, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.mlp(self.norm(x))
        return self.head(x[:, 0])


def randomised(model):
    torch.manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return model


MODELS = {
    "cnn": (lambda: nets.build("cnn(4, size=12)"), (1, 12, 12), 10),
    "resnet18": (lambda: nets.build("resnet18(num_classes=5)"), (3, 32, 32), 34),
    "vgg11_bn": (lambda: nets.build("cifar_vgg11_bn"), (3, 32, 32), 32),
    "transformer": (Encoder, (4, 6), 4),
    "compact transformer": (lambda: nets.build("cct(2, size=16)"), (3, 16, 16), 25),
}


@pytest.mark.parametrize("name", MODELS)
def test_head_identity_tail_is_the_model_at_every_cut(name):
    torch.manual_seed(0)
    build, shape, count = MODELS[name]
    model = randomised(build()).eval()
    before = copy.deepcopy(model.state_dict())
    x, more = torch.randn(2, *shape), torch.randn(3, *shape)
    expected = model(more)
    found = splits(model, example=x)
    assert len(found) >= count
    assert [p.site for p in found] == cuts(model, example=x)
    for parts in found:
        whole = graft(parts.head, nn.Identity(), parts.tail)
        assert torch.equal(whole(more), expected), parts.site
        assert parts.head(more).shape[1:] == parts.site.shape
    mine = {id(p) for p in model.parameters()}
    assert {id(p) for p in parts.tail.parameters()} <= mine
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_what_is_within_a_block_is_not_a_cut():
    model = nets.build("resnet18(num_classes=5)").eval()
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(NotACut, match=r"nearest cuts are 'layer1' and 'layer2\.0:add#0'"):
        split(model, "layer2.0.conv1", example=x)
    with pytest.raises(NotACut, match=r"data also flow around"):
        split(model, "layer1.0.relu", example=x)
    assert "layer1.0.conv1" not in {s.name for s in cuts(model, example=x)}
    assert {s.name for s in cuts(model, "layer?", example=x)} == {f"layer{i}" for i in range(1, 5)}
    with pytest.raises(OptionError, match="one site"):
        split(model, "relu", example=x)
    with pytest.raises(OptionError, match="matches no site"):
        split(model, "layer9", example=x)


class Awkward(nn.Module):
    """Batch sizes read off the input behind the cut, in-place steps, a value used twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.none = nn.Linear(4, 6), nn.Linear(6, 6), nn.Identity()
        self.offset = nn.Parameter(torch.randn(1, 6))

    def forward(self, x):
        h = self.none(F.relu_(self.a(x)))
        y = self.b(h).view(x.shape[0], 2, 3)
        y = y + self.offset.expand(x.size(0), 6).view(x.size(0), 2, 3)
        return y.reshape(x.shape[0], -1) * h


def test_batch_sizes_come_from_the_cut_tensor():
    torch.manual_seed(0)
    model = Awkward().eval()
    x = torch.randn(1, 4)
    more = torch.randn(7, 4)
    names = [s.name for s in cuts(model, example=x)]
    assert names == ["a", ":relu#0", "none", ":mul#0"]
    for name in names:
        parts = split(model, name, example=x)
        assert torch.equal(parts.tail(parts.head(more)), model(more))
        sizes = [n for n in parts.tail.graph.nodes if n.op == "placeholder"]
        assert len(sizes) == 1
    with pytest.raises(NotACut, match=r"nearest cuts are 'none' and ':mul#0'"):
        split(model, "b", example=x)


def test_grafting_two_models():
    torch.manual_seed(0)
    a = nets.build("cnn(4, size=12)").eval()
    b = nets.build("cnn(6, size=12, batch_norm=True)").eval()
    x = torch.rand(3, 1, 12, 12)
    head = split(a, "pool1", example=x).head
    tail = split(b, "pool1", example=x).tail
    stitch = nn.Conv2d(4, 6, 1)
    whole = graft(head, stitch, tail)
    expected = b[4:](stitch(a[:3](x)))
    assert torch.equal(whole(x), expected)
    a[0].bias.requires_grad_(False)  # by its owner: not to be thawed afterwards
    with frozen(a), frozen(b):
        whole(x).sum().backward()
    assert stitch.weight.grad is not None
    assert all(p.grad is None for p in [*a.parameters(), *b.parameters()])
    held = [p for p in [*a.parameters(), *b.parameters()] if not p.requires_grad]
    assert len(held) == 1
    assert held[0] is a[0].bias


def test_swapped_tensors_come_back():
    model = nets.build("cnn(4, size=12, batch_norm=True)")
    model.fc1.bias.requires_grad_(False)
    held = {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    before = copy.deepcopy(model.state_dict())
    values = {k: torch.zeros_like(v).double() for k, v in before.items() if k != "fc2.bias"}

    def inside():
        assert not model.conv1.weight.any()
        assert model.conv1.weight.dtype == torch.float32
        assert model.conv1.weight.requires_grad
        assert not model.fc1.bias.requires_grad
        assert not model.bn1.running_var.any()
        assert torch.equal(model.fc2.bias, before["fc2.bias"])
        raise KeyError

    with pytest.raises(KeyError), swapped(model, values):
        inside()
    assert held == {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ModelError, match="'conv9'"), swapped(model, {"conv9": torch.zeros(1)}):
        pass
    with (
        pytest.raises(ModelError, match="another shape"),
        swapped(model, {"conv1.bias": torch.zeros(5)}),
    ):
        pass
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_tied_tensors_are_swapped_together():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with swapped(model, {"0.weight": torch.eye(3)}):
        assert model[1].weight is model[0].weight
        assert torch.equal(model[1].weight, torch.eye(3))
    assert model[1].weight is model[0].weight


NORMS = (GraphNorm, nn.modules.batchnorm._BatchNorm)


def statistics(x):
    return x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).var(1)


@pytest.mark.parametrize("traced", [False, True])
def test_recalibration(traced):
    torch.manual_seed(0)
    model = randomised(nets.build("cnn(4, size=12, batch_norm=True)")).train()
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(6, 1, 12, 12)
    if traced:
        parts = split(model, "conv1", example=x)
        subject = graft(parts.head, nn.Identity(), parts.tail)
    else:
        subject = model
    found = recalibrated(subject, [(x, None)])
    # one batch: the statistics are its own, and the output that of training mode but for the
    # factor (n - 1) / n between the two variances
    model.eval()
    mean, var = statistics(model.conv1(x))
    norms = [m for m in found.modules() if isinstance(m, NORMS)]
    assert torch.allclose(norms[0].running_mean, mean, atol=1e-6)
    assert torch.allclose(norms[0].running_var, var, rtol=1e-5)
    h = F.batch_norm(model.conv1(x), None, None, model.bn1.weight, model.bn1.bias, True)
    mean, _ = statistics(model.conv2(model.pool1(h.relu())))
    assert torch.allclose(norms[1].running_mean, mean, atol=1e-5)
    assert not found.training
    assert {id(p) for p in found.parameters()} == {id(p) for p in model.parameters()}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    # several batches: weighted by their sizes
    found = recalibrated(subject, [(x[:4], None), (x[4:], None)])
    mean, _ = statistics(model.conv1(x))
    norms = [m for m in found.modules() if isinstance(m, NORMS)]
    assert torch.allclose(norms[0].running_mean, mean, atol=1e-6)


def test_recalibration_refusals_and_no_ops():
    plain = nets.build("mlp(4, 1, inputs=3)").eval()
    x = torch.rand(4, 3)
    assert torch.equal(recalibrated(plain, [(x, 0)])(x), plain(x))
    normed = nets.build("mlp(4, 1, inputs=3, batch_norm=True)")
    with pytest.raises(DataError, match="no samples"):
        recalibrated(normed, [])
    with pytest.raises(DataError, match="one sample"):
        recalibrated(normed, [(x[:1], 0)])


def test_graph_norms_are_exact_before_recalibration():
    model = randomised(nets.build("cnn(4, size=12, batch_norm=True)")).eval()
    x = torch.rand(3, 1, 12, 12)
    parts = split(model, "conv1", example=x)
    twin = recalibrated(parts.tail, [(parts.head(x), 0)])
    for m in twin.modules():
        if isinstance(m, NORMS):
            k = 1 + (m.running_mean.numel() == 8)
            m.running_mean.copy_(getattr(model, f"bn{k}").running_mean)
            m.running_var.copy_(getattr(model, f"bn{k}").running_var)
    assert torch.equal(twin(parts.head(x)), model(x))


def test_double_precision_and_other_inputs():
    model = Encoder().double().eval()
    x = torch.randn(3, 4, 6)  # float32: cast to the model's dtype
    parts = split(model, ":add#1", example=[(x, torch.zeros(3))])
    assert torch.equal(parts.tail(parts.head(x.double())), model(x.double()))

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(7, 4), nn.Linear(4, 3)

        def forward(self, ids):
            return self.fc(self.embed(ids).mean(1))

    model, ids = Tokens().eval(), torch.randint(7, (3, 5))
    assert [s.name for s in sites(model, "weights", example=ids)] == ["embed", "fc"]
    parts = split(model, "embed", example=ids)
    assert torch.equal(parts.tail(parts.head(ids)), model(ids))


def test_what_is_alive_where_data_flow_around():
    """A model goes on from what is alive at any node, cut or not, bit by bit."""
    torch.manual_seed(0)
    model = randomised(nets.build("resnet18(num_classes=5)")).eval()
    x = torch.rand(2, 3, 32, 32)
    anatomy = Anatomy(model, x)
    expected, seen = model(x), []
    for name in ("layer1.0.conv1", "layer2.0.relu", "layer2.0.bn2", "layer3"):
        node = anatomy.node(anatomy.site(name))
        alive = anatomy.alive[node]
        assert (alive == (node,)) == (node in anatomy.cuts) == (name == "layer3")
        values = anatomy.head(*alive)(x)
        values = values if isinstance(values, tuple) else (values,)
        with torch.no_grad():
            assert torch.equal(anatomy.tail(*alive)(*values), expected)
            anatomy.visit(x, {node: lambda *found: seen.append(found)})
        assert all(map(torch.equal, seen[-1], values))
    assert len(seen) == 4
