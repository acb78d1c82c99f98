from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isogon.measures.manifold.merged import merged
from isogon.measures.manifold.tangent import tangent


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": (2, 0)},
        {"dilation": 2, "padding": 2, "bias": False},
    ],
)
def test_is_the_convolution(options, generator):
    conv = nn.Conv2d(60, 9, 3, **options).double()
    x = torch.rand(5, 60, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    with merged():
        found = conv(x)
    assert "Merged" in str(_functions(found))
    assert torch.allclose(found, plain, rtol=1e-13, atol=1e-13)
    seed = torch.rand(plain.shape, generator=generator, dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad(z, x, seed, retain_graph=True) for z in (plain, found))
    assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)
    seeds = torch.stack([seed, 2 * seed])
    (many,) = torch.autograd.grad(found, x, seeds, is_grads_batched=True)
    assert torch.allclose(many[1], 2 * a, rtol=1e-13, atol=1e-12)


def test_leaves_other_convolutions_alone(generator):
    x = torch.rand(2, 64, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(8, 64, 3, 3, generator=generator, dtype=torch.float64)
    cases = [
        (x.float(), weight.float(), {}),
        (x, weight[:, :16], {"groups": 4}),
        (x, weight, {"padding": "same"}),
        (F.pad(x, (9, 9)), weight, {}),
        (x[:, :8], weight[:, :8], {}),
    ]
    for inputs, w, options in cases:
        with merged():
            found = F.conv2d(inputs, w, **options)
        assert "Merged" not in str(_functions(found))
        assert torch.equal(found, F.conv2d(inputs, w, **options))


def test_tangents_are_the_same_where_few_positions_are_left(generator):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1),
        nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5),
    ).double()  # fmt: skip
    x = torch.rand(12, 3, 8, 8, generator=generator, dtype=torch.float64)
    rows = tangent(model, x).rows
    model.eval()
    leaf = x.clone().requires_grad_(True)
    z = model(leaf)
    for k in range(4):
        for i in range(12):
            others = [c for c in range(5) if c != int(z[i].argmax())]
            (g,) = torch.autograd.grad(z[i, others[k]] - z[i].max(), leaf, retain_graph=True)
            assert torch.allclose(rows[i, k], g[i].flatten(), rtol=1e-11, atol=1e-13)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def _functions(z):
    seen, stack = [], [z.grad_fn]
    while stack:
        f = stack.pop()
        if f is not None:
            seen.append(type(f).__name__)
            stack += [g for g, _ in f.next_functions]
    return seen
