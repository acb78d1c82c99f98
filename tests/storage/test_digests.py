"""Digests stand for content: all of it, and nothing but it."""

from __future__ import annotations

import copy
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isogon import context
from isogon.storage import digests, file_digests, stamps

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def told(x) -> str:
    """Plain data in words that tell types apart (1, True and 1.0 are equal to Python)."""
    if isinstance(x, dict):
        return "{" + ",".join(sorted(f"{k!r}:{told(v)}" for k, v in x.items())) + "}"
    if isinstance(x, list | tuple):
        return f"{type(x).__name__}({','.join(map(told, x))})"
    return f"{type(x).__name__}:{x!r}"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(PLAIN, PLAIN)
def test_plain_data_is_told_apart_exactly(a, b):
    assert (digests.of(a) == digests.of(b)) == (told(a) == told(b))
    assert digests.of(a) == digests.of(copy.deepcopy(a))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.text()), st.lists(st.text()))
def test_where_a_part_ends_counts(a, b):
    assert (digests.of(*a) == digests.of(*b)) == (a == b)


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_arrays_count_by_type_shape_and_every_value(make):
    x = make([[1, 2, 3], [4, 5, 6]])
    base = digests.of(x)
    assert digests.of(x.reshape(3, 2)) != base
    assert digests.of(x.reshape(-1)) != base
    narrow = x.astype(np.int32) if make is np.array else x.int()
    assert digests.of(narrow) != base
    for i in range(6):
        y = copy.deepcopy(x)
        y.reshape(-1)[i] += 1
        assert digests.of(y) != base
    across = copy.deepcopy(x).T
    assert digests.of(across) == digests.of(make(across.tolist())), "strides are no content"
    assert digests.of(x[:0]) != digests.of(x[:, :0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.bool])
def test_every_type_of_tensor_has_one(dtype):
    x = torch.tensor([1.0, 0.0]).to(dtype)
    assert digests.of(x) == digests.of(x.clone())
    assert digests.of(x) != digests.of(x.flip(0))


@pytest.mark.parametrize("sizes", [(6,), (1, 5), (2, 2, 2), (3, 0, 3)])
def test_batches_may_be_cut_anywhere(sizes):
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    whole = digests.batches([(x, y)], None)
    assert digests.batches(list(zip(x.split(list(sizes)), y.split(list(sizes)))), None) == whole
    assert digests.batches([(x, y.flip(0))], None) != whole
    assert digests.batches([(x.flip(0), y)], None) != whole
    assert digests.batches([(x[:5], y[:5])], None) != whole
    assert digests.batches([(x.reshape(6, 1, 2), y)], None) != whole
    assert digests.batches([(x.double(), y)], None) != whole
    assert digests.batches([(x, y)], ["a"]) != whole


# --------------------------------------------------------------------------- networks, objects


class Scaled(nn.Module):
    """A network with a plain attribute."""

    def __init__(self, factor=1.0, act=torch.relu):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.factor, self.act, self.lock = factor, act, threading.Lock()
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.factor * self.act(self.layer(x))


def conv(**options):
    net = nn.Conv2d(1, 1, 3, **options)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)
    return net


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda: Scaled(1.0), lambda: Scaled(2.0)),
        (lambda: Scaled(), lambda: Scaled(act=torch.tanh)),
        (lambda: Scaled(), lambda: Scaled().half()),
        (lambda: Scaled().half(), lambda: Scaled().bfloat16()),
        (lambda: conv(), lambda: conv(stride=2)),
        (lambda: conv(), lambda: conv(padding=1, padding_mode="circular")),
        (lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.GELU())),
        (lambda: nn.BatchNorm1d(2), lambda: nn.BatchNorm1d(2, eps=1e-3)),
        (lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.2)),
    ],
)
def test_networks_count_by_weights_structure_and_settings(a, b):
    assert digests.of(a()) == digests.of(a())
    assert digests.of(b()) == digests.of(b())
    assert digests.of(a()) != digests.of(b())


def test_a_network_is_the_same_in_any_mode_and_after_hooks_and_passes():
    net = Scaled()
    before = digests.of(net)
    net.train(False)
    handle = net.register_forward_hook(lambda *_: None)
    net(torch.ones(1, 2)).sum().backward()
    assert digests.of(net) == before
    handle.remove()
    net.register_buffer("extra", torch.ones(1), persistent=False)
    assert digests.of(net) != before, "a buffer that no file holds counts too"


@dataclass
class Thing:
    """An object with parts."""

    a: int
    b: object = None


def test_objects_count_by_class_and_parts_also_in_circles():
    one = Thing(1)
    assert digests.of(one) == digests.of(Thing(1)) != digests.of(Thing(2))
    one.b = one
    two = Thing(1)
    two.b = two
    assert digests.of(one) == digests.of(two) != digests.of(Thing(1))
    assert digests.of(Thing(1, Path("x"))) != digests.of(Thing(1, "x"))


def test_functions_count_by_what_they_close_over():
    def make(k):
        return lambda x: x + k

    assert digests.of(make(1)) == digests.of(make(1)) != digests.of(make(2))
    assert digests.of(partial(max, 1)) != digests.of(partial(max, 2))
    assert digests.of(lambda x: x + 1) != digests.of(lambda x: x * 1)


# --------------------------------------------------------------------------- files


@pytest.fixture
def old(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(file_digests, "SETTLED", -(10**18))
    monkeypatch.setattr(file_digests, "_memory", {})


def test_a_file_is_read_once_and_again_when_it_was_touched(tmp_path, old, monkeypatch):
    reads = []
    true = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda p: reads.append(p) or true(p))
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = file_digests.file(path)
    assert first == file_digests.file(path) == true(path)
    assert len(reads) == 1
    times = path.stat()
    path.write_bytes(b"two")  # as long as before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # and, it says, as old
    assert file_digests.file(path) == true(path) != first
    other = tmp_path / "g"
    other.write_bytes(b"six")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert file_digests.file(path) == true(path)


def test_a_file_that_was_just_written_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "_memory", {})
    path = tmp_path / "f"
    path.write_bytes(b"one")
    file_digests.file(path)
    assert not file_digests._memory


def test_what_took_long_is_kept_for_other_processes(tmp_path, old, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(bytes(file_digests.WORTH))
    with context.use(cache_root=tmp_path / "cache"):
        found = file_digests.file(path)
        file_digests._memory.clear()
        monkeypatch.setattr(file_digests, "file_digest", lambda p: pytest.fail("read again"))
        assert file_digests.file(path) == found
        (kept,) = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
        monkeypatch.undo()
        monkeypatch.setattr(file_digests, "SETTLED", -(10**18))
        for junk in ("", "x" * 64, found + "0", found.upper()):
            kept.write_text(junk)
            file_digests._memory.clear()
            assert file_digests.file(path) == found, "what is no digest is not believed"


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path, old):
    (tmp_path / "cache").write_text("a file")
    path = tmp_path / "f"
    path.write_bytes(bytes(file_digests.WORTH))
    with context.use(cache_root=tmp_path / "cache"):
        assert file_digests.file(path) == file_digests.file_digest(path)


def test_files_that_are_read_are_noted(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("a")
    b.write_text("b")
    with stamps.noting() as outer:
        file_digests.file(a)
        with stamps.noting() as inner:
            file_digests.file(b)
    assert list(inner) == [str(b)]
    assert set(outer) == {str(a), str(b)}
    assert stamps.untouched(outer)
    b.write_text("bb")
    assert not stamps.untouched(outer)
    b.unlink()
    assert not stamps.untouched(inner)
