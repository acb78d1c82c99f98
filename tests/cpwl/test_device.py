"""Large products on another device: what is sent there comes back, and nothing is mixed.

A stand-in for a device: tensors that were sent there must not meet others, nor be read. What
remains for a GPU itself is that its arithmetic is right (the last test, where there is one).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import isogon as ig
from isogon.cpwl import lower as lowering
from isogon.cpwl import program as programs
from isogon.cpwl import stages
from isogon.cpwl.lower import lower
from isogon.cpwl.rounding import errors
from isogon.cpwl.single import evaluate_single

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")  # nothing is really there


class There(Tensor):
    """A tensor on it."""


class Stand(TorchFunctionMode):
    """Tensors go there and come back by `to`; counts the products that are made there."""

    def __init__(self, double=True):
        super().__init__()
        self.made, self.double = 0, double

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") == ELSEWHERE:
            if not self.double:
                raise TypeError("this device has no float64")
            return func(*args, **kwargs | {"device": CPU}).as_subclass(There)
        if func is Tensor.to and args[1] == ELSEWHERE:
            assert not isinstance(args[0], There)
            return args[0].as_subclass(There)
        if func is Tensor.to and isinstance(args[0], There) and args[1] == CPU:
            return args[0].as_subclass(Tensor)
        own = [isinstance(t, There) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        assert all(own) or not any(own), f"{func} mixes tensors of two devices"
        if any(own):
            assert func not in (Tensor.numpy, Tensor.tolist, Tensor.item), f"{func} reads there"
            self.made += "conv" in str(func) or "linear" in str(func) or "matmul" in str(func)
        return func(*args, **kwargs)


class Net(nn.Module):
    """Convolutions, one of them transposed, a skip, a maximum, linear layers, a product."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.third = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.pool, self.last = nn.MaxPool2d(4), nn.Linear(18, 5)
        self.out = nn.Parameter(torch.randn(5, 3))

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = self.third((x + self.second(x)).relu())
        return self.last(self.pool(x).flatten(1)).relu() @ self.out


@pytest.fixture
def everything(monkeypatch):
    """However small a product is, it is sent."""
    monkeypatch.setattr(stages, "TERMS", 0)
    monkeypatch.setattr(stages, "NUMBERS", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a stand-in counts for its own thread
    yield
    torch.set_num_threads(before)


def setting():
    torch.manual_seed(0)
    model = Net().double().eval()
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    return model, x, ig.Slice.through(*x)


def test_a_partition_is_that_of_the_cpu(everything):
    model, x, plane = setting()
    here = lower(model, x[:2])
    one = ig.partition(here, plane)
    with Stand() as stand:
        there = here.on(ELSEWHERE)
        other = ig.partition(there, plane)
        assert stand.made > 5
        assert other.certify().passed
        assert ig.segments(there, x[0], x[1]).breakpoints.size
        assert ig.forecast(there, plane).regions > 1
        local = ig.local_complexity(there, x[:1], radius=0.1, chords=1, slices=1).table
        found = ig.boundary(there, plane, grid=20)
        assert found.certify().passed
    assert len(one) > 50
    for key in ("edges", "edge_unit", "face_offsets", "face_edges"):
        assert np.array_equal(one.arrays[key], other.arrays[key]), key
    assert np.array_equal(one.vertices, other.vertices)
    assert np.allclose(found.segments, ig.boundary(here, plane, grid=20).segments)
    again = ig.local_complexity(here, x[:1], radius=0.1, chords=1, slices=1).table
    assert local.equals(again)


def test_values_errors_and_single_numbers(everything):
    model, x, _ = setting()
    here = lower(model, x[:2])
    expected = here.evaluate(x), list(errors(here, x)), evaluate_single(here, x)
    assert np.allclose(expected[0], model(x).detach())
    with Stand() as stand:
        there = here.on(ELSEWHERE)
        assert torch.equal(there.evaluate(x), expected[0])
        before = stand.made
        assert all(torch.equal(a, b) for a, b in zip(errors(there, x), expected[1], strict=True))
        assert stand.made > before
        before = stand.made
        for stage, own in zip(there.stages, here.stages, strict=True):
            if isinstance(stage, stages.Affine) and isinstance(stage.linear, stages.Product):
                v = torch.rand(2, *there.shapes[stage.inputs[0]], dtype=torch.float64)
                for f in (torch.abs, torch.square):
                    assert torch.equal(stage.weights(f)(v), own.weights(f)(v))
        assert stand.made == before + 10
        single = evaluate_single(there, x)
    assert single.dtype == torch.float32
    assert torch.allclose(single, expected[2], atol=1e-6)
    assert type(single) is Tensor


def test_small_products_stay(monkeypatch):
    model, x, _ = setting()
    with Stand() as stand:
        there = lower(model, x[:2]).on(ELSEWHERE)
        there.evaluate(x)
        assert stand.made == 0
        monkeypatch.setattr(stages, "NUMBERS", 0)
        there.evaluate(x)
        assert stand.made == 0, "sums of few terms"
        monkeypatch.setattr(stages, "TERMS", 9)
        there.evaluate(x)
        few = stand.made
        monkeypatch.setattr(stages, "TERMS", 18)
        there.evaluate(x)
        assert 0 < stand.made - few < few


def test_terms_are_those_of_one_sum():
    model, x, _ = setting()
    terms = [
        s.linear.terms for s in lower(model, x[:2]).stages if isinstance(s, stages.Affine)
        if isinstance(s.linear, stages.Product)
    ]  # fmt: skip
    assert terms == [9, 18, 4 * 4, 18, 5]


def test_a_device_without_doubles_is_not_used(everything):
    model, x, _ = setting()
    with Stand(double=False) as stand:
        program = lower(model, x[:2])
        assert program.on(ELSEWHERE) is program
        program.evaluate(x)
        assert stand.made == 0


def test_the_device_is_that_of_the_model(everything, monkeypatch):
    model, x, _ = setting()
    seen = []
    monkeypatch.setattr(programs.Program, "on", lambda self, device: seen.append(device) or self)
    lower(model, x[:2])
    assert not seen
    monkeypatch.setattr(lowering, "device_of", lambda *_: ELSEWHERE)
    lower(model, x[:2])
    assert seen == [ELSEWHERE]
    monkeypatch.undo()
    assert lowering.device_of(nn.Flatten(), x) == CPU
    assert lowering.device_of(nn.Linear(2, 2, device="meta"), x).type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(everything):
    model, _, plane = setting()
    one = ig.partition(model, plane)
    model = model.cuda()
    other = ig.partition(model, plane)
    assert other.certify().passed
    assert len(one) == len(other)
    assert ig.boundary(model, plane, grid=20).certify().passed
