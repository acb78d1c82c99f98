"""Networks with a planted weight symmetry: which element of its own group made b from a."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn

import isogon as ig
from isogon.measures.alignment.matching import tensors
from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.symmetries import symmetries


class Block(nn.Module):
    """``x + B relu(A x)``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return x + self.b(self.a(x).relu())


class ResidualMLP(nn.Module):
    """A linear map into a stream, blocks, a linear map out of it."""

    def __init__(self, width: int, blocks: int = 4, inputs: int = 10, classes: int = 5) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(Block(width, width) for _ in range(blocks)))
        self.out = nn.Linear(width, classes)

    def forward(self, x):
        return self.out(self.blocks(self.embed(x)))


class Unanchored(nn.Module):
    """A stream that nothing tells apart at either end: one number per class in, its mean out."""

    def __init__(self, width: int = 30, inner: int = 50, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, inner) for _ in range(blocks)))
        self.width = width

    def forward(self, x):
        return self.blocks(x[:, :, None].expand(-1, -1, self.width)).mean(2)


class Pointwise(nn.Module):
    """A function of every number."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def pointwise_mlp(function) -> nn.Module:
    """10 -> 64 -> 64 -> 64 -> 5 with a function of every number behind the hidden layers."""
    sizes = (10, 64, 64, 64)
    hidden = [m for p, q in pairwise(sizes) for m in (nn.Linear(p, q), Pointwise(function))]
    return nn.Sequential(*hidden, nn.Linear(64, 5))


def loaded(name: str):
    """An architecture of isogon's, by seed."""
    return lambda seed: ig.load(f"{name[:-1]}, seed={seed})")


def seeded(make):
    """Another module, by seed."""

    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return make()

    return build


KINDS = {
    "mlp": (loaded("mlp(inputs=10, width=64, depth=3)"), (10,)),
    "mlp gelu": (loaded("mlp(inputs=10, width=64, depth=3, activation=gelu)"), (10,)),
    "mlp tanh": (loaded("mlp(inputs=10, width=64, depth=3, activation=tanh)"), (10,)),
    "mlp sin": (seeded(lambda: pointwise_mlp(torch.sin)), (10,)),
    "mlp abs": (seeded(lambda: pointwise_mlp(torch.abs)), (10,)),
    "mlp cos": (seeded(lambda: pointwise_mlp(torch.cos)), (10,)),
    "mlp square": (seeded(lambda: pointwise_mlp(lambda x: x**2)), (10,)),
    "mlp cube": (seeded(lambda: pointwise_mlp(lambda x: x * x * x)), (10,)),
    "residual 30": (seeded(lambda: ResidualMLP(30)), (10,)),
    "residual 64": (seeded(lambda: ResidualMLP(64)), (10,)),
    "unanchored": (seeded(Unanchored), (5,)),
    "resnet20": (loaded("cifar_resnet20(width=16)"), (3, 32, 32)),
    "vgg": (loaded("cifar_vgg11_bn(size=32)"), (3, 32, 32)),
}


def model(kind: str, seed: int) -> nn.Module:
    """A network in float64, with statistics of batch-norm that are not those of the start."""
    with torch.random.fork_rng():
        net = KINDS[kind][0](seed).double().eval()
        torch.manual_seed(seed)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                assert m.running_mean is not None
                assert m.running_var is not None
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
                m.weight.data.uniform_(0.5, 2)
                m.bias.data.normal_()
    return net


class Plants:
    """Two networks of a kind that are traced once and filled again and again.

    Args:
        kind: Of `KINDS`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.a = model(kind, 0)
        self.b = copy.deepcopy(self.a)
        example = torch.zeros(2, *KINDS[kind][1], dtype=torch.float64)
        self.found = symmetries(self.a, example)

    @torch.no_grad()
    def fill(self, seed: int, noise: float, scales: float = 3.0) -> Element:
        """Weights of a by a seed, b = g(a + noise), and g.

        Args:
            seed: Of the weights, the noise and g.
            noise: Its standard deviation, in units of that of each tensor (of the logarithm of
                variances).
            scales: Scales are 10 to the power of a uniform number of this size.
        """
        fresh = tensors(model(self.kind, seed))
        generator = torch.Generator().manual_seed(seed)
        for name, value in tensors(self.a).items():
            value.copy_(fresh[name])
        for name, value in fresh.items():
            if value.is_floating_point() and value.numel() > 1:
                drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64) * noise
                if name.endswith("_var"):
                    value.mul_(drawn.exp())
                else:
                    value.add_(drawn * value.std())
        element = self.found.sample(generator, scales=scales)
        held = tensors(self.b)
        for name, value in (fresh | self.found.applied(element, fresh)).items():
            held[name].copy_(value)
        return element

    def undone(self, match, element: Element) -> bool:
        """Whether a match undoes a planted element: orders and signs, and sizes within noise."""
        state = tensors(self.a)
        there = state | self.found.applied(element, state)
        back = self.found.applied(match.element, there)
        same = all(torch.equal(v.sign(), state[k].sign()) for k, v in back.items())
        return same and recovered(match, element)


def planted(kind: str, seed: int, noise: float, scales: float = 3.0):
    """The networks a and b = g(a + noise), and g, see `Plants.fill`."""
    plants = Plants(kind)
    element = plants.fill(seed, noise, scales)
    return plants.a, plants.b, element


def recovered(match, element) -> bool:
    """Whether a match undoes the planted order of every group."""
    return all(
        np.array_equal(planted_[order], np.arange(len(order)))
        for planted_, order in zip(element.order, match.element.order, strict=True)
    )
