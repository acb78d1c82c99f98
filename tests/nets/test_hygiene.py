"""Logits, accuracy: closed forms, and the model left as it came."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isogon as ig
from isogon import nets
from isogon.errors import DataError, ModelError
from isogon.nets.accuracy import accuracy
from isogon.nets.derivatives import coarse
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import cast, device_dtype, precision, preserved
from isogon.nets.outputs import logits

X = torch.rand(4, 3)


class Tail(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.fc, self.tail = nn.Linear(3, 5), tail

    def forward(self, x):
        return self.tail(self.fc(x))


TAILS = {
    "module log": nn.LogSoftmax(dim=1),
    "module": nn.Softmax(dim=-1),
    "functional log": lambda z: F.log_softmax(z, dim=1),
    "functional": lambda z: F.softmax(z, 1),
    "torch": lambda z: torch.log_softmax(z, -1),
    "method": lambda z: z.softmax(dim=1),
    "log of softmax": lambda z: z.softmax(1).log(),
    "keyword": lambda z: torch.softmax(input=z, dim=1),
    "tuple": lambda z: (F.softmax(z, 1), None),
}


@pytest.mark.parametrize("name", TAILS)
def test_logits_are_taken_before_a_trailing_softmax(name):
    net = Tail(TAILS[name])
    assert torch.equal(logits(net, X), net.fc(X))


@pytest.mark.parametrize(
    "tail", [nn.Identity(), nn.Sigmoid(), lambda z: F.softmax(z, 1) * 2, lambda z: F.softmax(z, 0)]
)
def test_what_is_no_trailing_softmax_stays(tail):
    net = Tail(tail)
    assert torch.equal(logits(net, X), net(X))


def test_a_softmax_inside_is_not_the_last_one():
    net = nn.Sequential(nn.Linear(3, 5), nn.Softmax(1), nn.Linear(5, 5), nn.LogSoftmax(1))
    assert torch.equal(logits(net, X), net[:3](X))
    net = nn.Sequential(nn.Linear(3, 5), nn.Softmax(1), nn.LogSoftmax(1))
    assert torch.equal(logits(net, X), net[:2](X))


def test_logits_of_an_exported_program():
    net = Tail(TAILS["functional log"])
    program = torch.export.export(net, (X,)).module()
    assert torch.allclose(logits(program, X), net.fc(X))


def test_outputs_of_other_forms():
    assert logits(nn.Flatten(0), torch.rand(4, 1)).shape == (4, 1)
    with pytest.raises(ModelError, match="sample axis"):
        logits(nn.Flatten(0), torch.rand(4, 3))

    class Odd(nn.Module):
        def forward(self, x):
            return "nothing"

    with pytest.raises(ModelError, match="not a tensor"):
        logits(Odd(), X)


def test_gradients_mode_and_flags_are_left_alone():
    net = Tail(nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5))).train()
    net.fc.bias.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.tail[1].eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    accuracy(net, [(X, torch.zeros(4))])

    def fails(inner):
        assert not inner.training
        inner.fc.weight.requires_grad_(False)
        raise KeyError

    with pytest.raises(KeyError), preserved(net) as inner:
        fails(inner)
    assert net.training
    assert net.tail[0].training
    assert not net.tail[1].training
    assert net.fc.weight.requires_grad
    assert not net.fc.bias.requires_grad
    assert torch.equal(net.fc.weight.grad, torch.ones_like(net.fc.weight))
    assert net.fc.bias.grad is None
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_accuracy():
    x = torch.eye(3)
    y = torch.tensor([0, 1, 0])
    assert accuracy(nn.Identity(), [(x[:2], y[:2]), (x[2:], y[2:])]) == pytest.approx(2 / 3)
    assert accuracy(nn.Identity(), [(x, y.double())]) == pytest.approx(2 / 3)
    binary = torch.tensor([[0.3], [-0.2], [1.0]])
    assert accuracy(nn.Identity(), [(binary, torch.tensor([1, 0, 0]))]) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no samples"):
        accuracy(nn.Identity(), [])
    with pytest.raises(DataError, match="real-valued"):
        accuracy(nn.Identity(), [(x, y + 0.5)])


def test_where_a_model_computes():
    assert device_dtype(nn.Flatten()) == (torch.device("cpu"), torch.float32)
    assert device_dtype(nn.Linear(2, 2).double())[1] == torch.float64
    assert device_dtype(nets.build("mlp").half())[1] == torch.float16
    integers = torch.zeros(2, dtype=torch.long)
    assert cast(integers, nn.Embedding(3, 2).double()).dtype == torch.long
    assert cast(X, nn.Linear(3, 2).double()).dtype == torch.float64


def test_weights_that_are_not_numbers():
    net = nets.build("cnn(batch_norm=True)")
    check_finite(net)
    net.bn2.running_var[3] = float("inf")
    with pytest.raises(ModelError, match=r"bn2\.running_var.*1 of 32"):
        check_finite(net)


def test_precision_names_every_type_of_weight():
    class Mixed(nn.Module):
        """Half precision between two layers of single precision."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8).half(), nn.Linear(8, 3)

        def forward(self, x):
            return self.c(torch.relu(self.b(self.a(x).half())).float())

    assert precision(nn.Linear(2, 3)) == "float32"
    assert precision(nn.Linear(2, 3).double()) == "float64"
    assert precision(Mixed()) == "float32, float16"
    assert coarse(Mixed())
    assert not coarse(nn.Linear(2, 3))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    reading = ig.data_matrix(Mixed().eval(), [(x, torch.zeros(6).long())])
    assert reading.meta["dtype"] == "float32, float16"


class Tokens(nn.Module):
    """A map that goes on as tokens: its gradient comes back with the channels last."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 6, 3), norm, nn.Linear(6, 4)

    def forward(self, x):
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        return self.out(torch.tanh(tokens)).square().mean(1)


def derivatives(net, x, *, batched=False):
    """Of every logit, [N, C, ...]."""
    leaf = x.clone().requires_grad_()
    z = logits(net, leaf)
    seeds = torch.eye(z.shape[1], dtype=z.dtype)[:, None].expand(-1, len(x), -1)
    if batched:
        return torch.autograd.grad(z, leaf, seeds, is_grads_batched=True)[0].transpose(0, 1)
    found = [torch.autograd.grad(z, leaf, s, retain_graph=True)[0] for s in seeds]
    return torch.stack(found, 1)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(6),
    "plain": lambda: nn.BatchNorm2d(6, affine=False),
    "instance": lambda: nn.InstanceNorm2d(6, affine=True),
    "group": lambda: nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_of_one_sample_are_those_that_it_has_in_a_batch(norm):
    torch.manual_seed(0)
    net = Tokens(NORMS[norm]()).double()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
        net(torch.randn(8, 1, 7, 7, dtype=torch.float64))  # running statistics
    net.eval()
    x = torch.randn(3, 1, 7, 7, dtype=torch.float64)
    alone = torch.cat([derivatives(net, row[None]) for row in x])
    torch.testing.assert_close(alone, derivatives(net, x))
    torch.testing.assert_close(derivatives(net, x[:1], batched=True), alone[:1])
    # against differences along a direction
    v, h = torch.randn(1, 1, 7, 7, dtype=torch.float64), 1e-5
    slope = (net(x[:1] + h * v) - net(x[:1] - h * v))[0] / (2 * h)
    torch.testing.assert_close((alone[0] * v).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-7)
    labels = torch.zeros(3).long()
    whole = ig.data_matrix(net, [(x, labels)]).table["trace"]
    single = ig.data_matrix(net, [(row[None], labels[:1]) for row in x]).table["trace"]
    assert whole.to_numpy() == pytest.approx(single.to_numpy())


class Sign(torch.autograd.Function):
    """Signs, whose backward pass says that nothing comes back."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, *_):
        return None


class Signed(nn.Module):
    """Pixels and, beside them, signs behind a norm."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm2d(1), nn.Linear(9, 4)

    def forward(self, x):
        return self.out((x + Sign.apply(self.norm(x))).flatten(1))


def test_nothing_may_come_back_to_the_norm_of_one_sample():
    net = Signed().eval()
    found = derivatives(net, torch.randn(1, 1, 3, 3))
    assert torch.equal(found.flatten(1), net.out.weight.flatten()[None])
