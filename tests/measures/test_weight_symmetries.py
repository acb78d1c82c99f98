"""Weight symmetries read off the graph: a random element leaves the function as it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isogon as ig
from isogon.errors import ModelError
from isogon.measures.alignment.matching import image, tensors
from isogon.measures.alignment.symmetry.symmetries import symmetries
from isogon.measures.alignment.symmetry.units import distinct
from reference.planted import Block, ResidualMLP


class Made(nn.Module):
    """A module from parts and a function of them and the input."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def linear(*sizes):
    return nn.Linear(*sizes)


def tied():
    a, b = linear(8, 8), linear(8, 8)
    b.weight = a.weight
    return Made(
        lambda m, x: m.out(m.b(m.a(m.inp(x).relu()).relu()).relu()),
        inp=linear(6, 8), a=a, b=b, out=linear(8, 3),
    )  # fmt: skip


def transposed():
    """Encoder and decoder of one matrix."""
    return Made(
        lambda m, x: F.linear(torch.relu(m.a(x)), m.a.weight.t(), m.shift),
        a=linear(6, 8), shift=nn.Parameter(torch.randn(6)),
    )  # fmt: skip


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def depthwise():
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.BatchNorm2d(12),
        nn.ReLU6(), nn.Conv2d(12, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


def sliced():
    """The first half of the channels goes one way, the second another; then both are joined."""
    return Made(
        lambda m, x: m.out(torch.cat([m.b(m.a(x)[:, :4].relu()), m.a(x)[:, 4:].tanh()], 1)),
        a=linear(6, 8), b=linear(4, 5), out=linear(9, 3),
    )  # fmt: skip


def padded():
    return Made(
        lambda m, x: m.out(F.pad(m.a(x).relu(), (2, 3)) + m.b(x).relu()),
        a=linear(6, 5), b=linear(6, 10), out=linear(10, 3),
    )  # fmt: skip


def gated():
    return Made(
        lambda m, x: m.out(m.a(x).relu() * m.b(x).sigmoid() + m.gamma * m.a(x)),
        a=linear(6, 8), b=linear(6, 8), out=linear(8, 3), gamma=nn.Parameter(torch.randn(8)),
    )  # fmt: skip


def attention():
    def forward(m, x):
        x = m.embed(x) + m.places
        q, k, v = m.qkv(m.norm(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + m.proj(y)
        return m.out((x + m.b(F.gelu(m.a(m.norm(x))))).mean(1))

    return Made(
        forward, embed=linear(5, 8), places=nn.Parameter(torch.randn(1, 3, 8)),
        norm=nn.LayerNorm(8), qkv=linear(8, 24), proj=linear(8, 8), a=linear(8, 12),
        b=linear(12, 8), out=linear(8, 3),
    )  # fmt: skip


def shuffled():
    def forward(m, x):
        x = m.a(x).relu()
        x = x.view(x.shape[0], 2, 4, 5, 5).transpose(1, 2).flatten(1, 2)
        return m.out(m.b(x).relu().mean((2, 3)))

    return Made(
        forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 6, 3, padding=1, groups=2), out=linear(6, 3)
    )  # fmt: skip


def normed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.ConvTranspose2d(8, 6, 2, bias=False),
        nn.InstanceNorm2d(6, affine=True), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def prelu():
    return nn.Sequential(linear(6, 8), nn.PReLU(8), linear(8, 5), nn.PReLU(), linear(5, 3))


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
    return nn.Sequential(linear(5, 8), layer, linear(8, 3))


def gates():
    """A gate that is a weight, a quotient, a gated linear unit."""
    return Made(
        lambda m, x: m.d(F.glu(m.c(m.a(x).relu() * m.g.sigmoid() / (1 + m.b(x).relu())))),
        a=linear(6, 8), b=linear(6, 8), c=linear(8, 10), d=linear(5, 3),
        g=nn.Parameter(torch.randn(8)),
    )  # fmt: skip


def places():
    """Channels in another order by a constant index, twice."""

    def forward(m, x):
        h = m.a(x).relu()[:, [2, 0, 3, 1]]
        return m.b(torch.cat([h, 2 * h], 1))

    return Made(forward, a=linear(6, 4), b=linear(8, 3))


def maxout():
    return Made(lambda m, x: m.b(m.a(x).view(x.shape[0], 4, 2).amax(2)), a=linear(6, 8),
                b=linear(4, 3))  # fmt: skip


def lifted():
    """Padded with a number that is not 0: what is added to it keeps its scale."""
    return Made(
        lambda m, x: m.b(F.pad(m.a(x).relu(), (1, 2), value=3.0) + m.c(x).relu()),
        a=linear(6, 8), b=linear(11, 3), c=linear(6, 11),
    )  # fmt: skip


def line():
    return nn.Sequential(
        nn.Conv1d(6, 4, 3), nn.GELU(), nn.Conv1d(4, 5, 3, padding="same"), nn.ELU(),
        nn.AdaptiveMaxPool1d(1), nn.Flatten(), linear(5, 3),
    )  # fmt: skip


def running():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 2, 3), nn.Flatten(),
        linear(32, 3),
    )  # fmt: skip


def behind(function, out=8):
    """A hidden layer of 8, a function of its numbers, ``out`` numbers that are read."""
    return Made(lambda m, x: m.b(function(m.a(x))), a=linear(6, 8), b=linear(out, 3))


@torch.library.custom_op("isogon_tests::knock", mutates_args=())
def knock(x: torch.Tensor) -> torch.Tensor:
    """Odd, and nothing that a trace sees into."""
    return x - x.clamp(-0.5, 0.5).sin()


@knock.register_fake
def _(x):
    return torch.empty_like(x)


def branches():
    """What reads a unit at several powers, with and without its sign."""
    return behind(lambda h: torch.cat([h, h.abs(), h**3, h * h.abs()], 1), 32)


def folded():
    """Two absolute values to one sum: their signs have nothing to do with each other."""
    return Made(lambda m, x: m.c(m.a(x).abs() + m.b(x).abs()), a=linear(6, 8), b=linear(6, 8),
                c=linear(8, 3))  # fmt: skip


def normed_square():
    return nn.Sequential(linear(6, 8), Square(), nn.BatchNorm1d(8), nn.Tanh(), linear(8, 3))


class Square(nn.Module):
    def forward(self, x):
        return x.square()


SMALL, IMAGE = (6,), (3, 5, 5)
# a function of the numbers of a hidden layer: how many sizes and signs may differ from 1
FUNCTIONS = {
    "relu": (torch.relu, 8, 0),
    "gelu": (F.gelu, 0, 0),
    "sigmoid": (torch.sigmoid, 0, 0),
    "tanh": (torch.tanh, 0, 8),
    "sin": (torch.sin, 0, 8),
    "hardtanh": (F.hardtanh, 0, 8),
    "lopsided": (lambda h: h.clamp(-1, 2), 0, 0),
    "softshrink": (F.softshrink, 0, 8),
    "abs": (torch.abs, 8, 8),
    "cos": (torch.cos, 0, 8),
    "square": (torch.square, 8, 8),
    "power": (lambda h: h**2, 8, 8),
    "product": (lambda h: h * h, 8, 8),
    "cube": (lambda h: h**3, 8, 8),
    "squared relu": (lambda h: h.relu() ** 2, 8, 0),
    "root": (lambda h: h.abs().sqrt(), 8, 8),
    "power of a size": (lambda h: (h**2) ** 0.75, 8, 8),
    "reciprocal": (lambda h: 1 / h, 8, 8),
    "even polynomial": (lambda h: h**4 + h**2, 0, 8),
    "odd polynomial": (lambda h: h**3 - h, 0, 8),
    "polynomial": (lambda h: h**2 + h, 0, 0),
    "softsign by hand": (lambda h: h / (1 + h.abs()), 0, 8),
    "swish by hand": (lambda h: h * h.sigmoid(), 0, 0),
    "leaky relu by hand": (lambda h: torch.maximum(h, 0.1 * h), 8, 0),
    "an operation without a rule": (torch.sinc, 0, 8),
    "an operation of one's own": (lambda h: knock(h), 0, 8),
    "of no activation": (lambda h: h, 8, 8),
}
CASES = {  # model, shape of an input, sizes of the groups
    "mlp": (lambda: ig.load("mlp(inputs=6, width=8, depth=2)"), SMALL, [8, 8]),
    "gelu": (lambda: ig.load("mlp(inputs=6, width=8, depth=2, activation=gelu)"), SMALL, [8, 8]),
    "tanh": (lambda: ig.load("mlp(inputs=6, width=8, depth=2, activation=tanh)"), SMALL, [8, 8]),
    "batch norm": (
        lambda: ig.load("mlp(inputs=6, width=8, depth=2, batch_norm=true)"), SMALL, [8, 8]
    ),
    "flatten": (lambda: ig.load("cnn(width=2, size=8)"), (1, 8, 8), [2, 4, 8]),
    "residual": (lambda: ResidualMLP(7, 2, 6, 3), SMALL, [7, 7, 7]),
    "tied": (tied, SMALL, [8]),
    "transposed": (transposed, SMALL, [8]),
    "grouped": (grouped, IMAGE, [2, 2, 2, 2, 3, 3, 3, 3, 4]),
    "depthwise": (depthwise, IMAGE, [4, 6]),
    "sliced": (sliced, SMALL, [4, 4, 5]),
    "padded": (padded, SMALL, [5, 5]),
    "gated": (gated, SMALL, [8]),
    "attention": (attention, (3, 5), [4, 4, 4, 4, 8, 12]),
    "shuffled": (shuffled, IMAGE, [3, 3, 4, 4]),
    "norms": (normed, IMAGE, [4, 4, 6]),
    "prelu": (prelu, SMALL, [5, 8]),
    "encoder": (encoder, (4, 5), [4, 4, 4, 4, 8, 12]),
    "gates": (gates, SMALL, [5, 8]),
    "places": (places, SMALL, [4]),
    "maxout": (maxout, SMALL, [2, 2, 2, 2]),
    "lifted": (lifted, SMALL, [8]),
    "line": (line, (6, 9), [4, 5]),
    "running": (running, IMAGE, [2, 4]),
    "branches": (branches, SMALL, [8]),
    "folded": (folded, SMALL, [8]),
    "a square in front of batch norm": (normed_square, SMALL, [8]),
    "option A": (lambda: ig.load("cifar_resnet20(width=4)"), (3, 8, 8), None),
}  # fmt: skip


def built(case):
    make, shape, sizes = CASES[case]
    torch.manual_seed(0)
    net = make().double().eval()
    for name, value in tensors(net).items():  # statistics that are not those of the start
        if name.endswith("running_mean"):
            value.normal_()
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            m.weight.data.uniform_(0.5, 2)
            m.bias.data.normal_()
    return net, torch.randn(4, *shape, dtype=torch.float64), sizes


def gap(a, b, x):
    with torch.no_grad():
        y, z = a(x), b(x)
    return float((y - z).abs().max() / y.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_random_elements_leave_the_function(case, generator):
    net, x, sizes = built(case)
    found = symmetries(net, x)
    if sizes is not None:
        assert sorted(found.groups) == sizes
    element = found.sample(generator, scales=2.0)
    twin = image(net, found, element)
    assert gap(net, twin, x) < 1e-9
    before, after = tensors(net), tensors(twin)
    assert before.keys() == after.keys()
    changed = [k for k in before if not torch.equal(before[k], after[k])]
    assert len(changed) >= 2
    for name in changed:  # every tensor plays a part: with its old value the function is another
        half = copy.deepcopy(twin)
        with torch.no_grad():
            tensors(half)[name].copy_(before[name])
        assert gap(net, half, x) > 1e-6, name


def test_padded_shortcuts_couple_stages():
    net, x, _ = built("option A")
    sizes = sorted(symmetries(net, x).groups)
    # inner widths of nine blocks; streams: 4 of stage one, 4 more in stage two, 8 more in three
    assert sizes == sorted([4, 4, 4, 8, 8, 8, 16, 16, 16, 4, 4, 8])


def test_scales_are_what_the_activation_allows(generator):
    for case, sizable in {"mlp": 16, "gelu": 0, "tanh": 0, "batch norm": 16}.items():
        net, x, _ = built(case)
        found = symmetries(net, x)
        assert int(found.sizable.sum()) == sizable, case
        if not sizable:
            scale = found.sample(generator, scales=3).scale
            assert set(np.unique(scale)) <= {1.0, -1.0}
            assert any(found.signed) == (case == "tanh")
            assert (scale < 0).any() == (case == "tanh")
    net, x, _ = built("gelu")  # off the hypothesis: a scale that GELU does not let through
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for value, factor in ((twin[1].weight, 2), (twin[1].bias, 2), (twin[3].weight, 0.5)):
            value.mul_(factor)
    assert gap(net, twin, x) > 1e-3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_lets_through(name, generator):
    """Sizes and signs of its group, by name or from its values, and no others."""
    function, sizes, signs = FUNCTIONS[name]
    torch.manual_seed(0)
    net, x = behind(function).double(), torch.randn(4, 6, dtype=torch.float64)
    found = symmetries(net, x)
    assert found.groups == (8,)
    assert (int(found.sizable.sum()), len(found.facts)) == (sizes, sizes + signs)
    assert found.signed == (signs > 0,)
    element = found.sample(generator, scales=1.0)
    assert gap(net, image(net, found, element), x) < 1e-9
    for factor, allowed in ((-1.0, signs > 0), (2.0, sizes > 0)):  # off the group: another function
        if not allowed:
            twin = copy.deepcopy(net)
            with torch.no_grad():
                twin.a.weight.mul_(factor)
                twin.a.bias.mul_(factor)
                ends = [copy.deepcopy(twin), copy.deepcopy(twin)]
                for end, other in zip(ends, (1 / factor, factor), strict=True):
                    end.b.weight.mul_(other)
            assert all(gap(net, end, x) > 1e-3 for end in ends)


def test_signs_and_powers_of_several_readers():
    net, x, _ = built("branches")
    found = symmetries(net, x)
    (weight,) = (w for w in found.weights if w.name == "b.weight")
    powers = {p for n, p in weight.sides[1].scales if (found.facts[n[n >= 0]] == 1).all()}
    assert powers == {-1, -2, -3}
    assert found.odd(weight.sides[1], 0).tolist() == [True, False, True, True]
    net, x, _ = built("folded")
    found = symmetries(net, x)
    assert int(found.sizable.sum()) == 8  # one size for both, as they are added
    assert int((found.facts == 2).sum()) == 16  # and a sign of each
    net, x, _ = built("a square in front of batch norm")
    found = symmetries(net, x)
    assert int(found.free.sum()) == 8  # the batch-norm undoes them
    assert int(found.sizable.sum()) == 0
    assert int((found.facts == 2).sum()) == 16  # signs in front of the square and of the tanh


def test_an_operand_that_differs_by_unit_is_refused():
    net = Made(lambda m, x: m.b(m.a(x).abs() ** m.p), a=linear(6, 8), b=linear(8, 3),
               p=nn.Parameter(torch.rand(8)))  # fmt: skip
    with pytest.raises(ModelError, match="operands of pow that differ by unit"):
        symmetries(net, torch.randn(2, 6))
    net.p = nn.Parameter(torch.tensor([1.5]))
    assert symmetries(net, torch.randn(2, 6)).groups == (8,)


def test_the_graph_that_does_not_tell_is_refused_by_the_name_of_the_node():
    net = Made(lambda m, x: m.b(torch.cumsum(m.a(x), 1)), a=linear(6, 8), b=linear(8, 3))
    with pytest.raises(ModelError, match=r"':cumsum#0'.*got the operation cumsum"):
        symmetries(net, torch.zeros(2, 6))
    normed_weight = nn.utils.parametrizations.weight_norm(linear(6, 8))
    with pytest.raises(ModelError, match="can't be read off the graph at"):
        symmetries(nn.Sequential(normed_weight, nn.ReLU(), linear(8, 3)), torch.zeros(2, 6))


def test_what_stays_in_place_may_pass_through_anything():
    net = Made(
        lambda m, x: m.b(m.a(torch.cumsum(x, 1)).relu()), a=linear(6, 8), b=linear(8, 3)
    ).double()  # fmt: skip
    x = torch.randn(3, 6, dtype=torch.float64)
    found = symmetries(net, x)
    assert found.groups == (8,)
    twin = image(net, found, found.sample(torch.Generator().manual_seed(1), scales=1))
    assert gap(net, twin, x) < 1e-12


def test_units_of_one_number_at_every_place_are_told_apart_from_masks():
    """A mask of positions tells nothing of channels; one per channel moves with them."""
    mask = torch.rand(5, 5).double()
    net = Made(lambda m, x: m.b((m.a(x).relu() * m.mask).mean((2, 3))), a=nn.Conv2d(3, 8, 1),
               b=linear(8, 3)).double()  # fmt: skip
    net.register_buffer("mask", mask)
    x = torch.randn(3, 3, 5, 5, dtype=torch.float64)
    found = symmetries(net, x)
    assert found.groups == (8,)
    assert int(found.sizable.sum()) == 8
    twin = image(net, found, found.sample(torch.Generator().manual_seed(1), scales=1))
    assert torch.equal(tensors(twin)["mask"], mask)
    assert gap(net, twin, x) < 1e-12


def test_blocks_share_the_stream():
    net = nn.Sequential(linear(6, 8), Block(8, 5), Block(8, 5), linear(8, 3))
    found = symmetries(net, torch.zeros(2, 6))
    assert sorted(found.groups) == [5, 5, 8]
    (stream,) = (g for g, n in enumerate(found.groups) if n == 8)
    held = {w.name for w in found.weights if any(stream in s.slots for s in w.sides)}
    assert held == {
        "0.weight", "0.bias", "1.a.weight", "1.b.weight", "1.b.bias", "2.a.weight", "2.b.weight",
        "2.b.bias", "3.weight",
    }  # fmt: skip


def test_distinct_pairs_of_labels_are_those_of_rows():
    g = torch.Generator().manual_seed(0)
    for high in (1, 3, 40):
        a, b = (torch.randint(-1, high, (200,), generator=g) for _ in range(2))
        pairs, where = distinct(a, b)
        want, at = torch.stack([a, b], 1).unique(dim=0, return_inverse=True)
        assert torch.equal(pairs, want)
        assert torch.equal(where, at)
    assert distinct(a[:0], b[:0])[0].shape == (0, 2)
    assert distinct(torch.tensor([-1]), torch.tensor([-1]))[0].tolist() == [[-1, -1]]
