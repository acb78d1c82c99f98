"""Memory that is kept while a mesh grows: whose it is, and that nothing outlives the partition."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.cpwl.lower import lower
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.mesh.memory import Spare


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(memory, "SMALL", 64)
    return Spare()


def place(t):
    return t.untyped_storage().data_ptr()


def test_memory_is_used_again_when_nobody_reads_it(kept):
    with kept.keeping():
        a = kept.empty((10, 4))
        assert a.shape == (10, 4)
        assert a.dtype == torch.float64
        first, part = place(a), a[2:5]
        del a
        assert place(kept.empty((10, 4))) != first, "a part of it is read"
        part.fill_(7.0)
        b = kept.empty((40, 1))
        b.fill_(1.0)
        assert (part == 7).all()
        del part
        assert place(kept.empty((5, 2, 4))) == first
    assert kept.blocks == []


def test_there_is_room_for_more_rows(kept):
    with kept.keeping():
        a = kept.room(10, (3,), more=4.0)
        assert a.shape == (40, 3)
        first = place(a)
        del a
        small = kept.room(2, (3,))
        assert (len(small), place(small)) == (40, first), "all of a block that waits"
        other = kept.room(2, (3,))
        assert len(other) == 3
        assert place(other) != first
        del small, other
        assert len(kept.room(30, (3,), more=4.0)) == 40, "the largest, though it may be outgrown"


def test_outside_nothing_is_kept(kept):
    a = kept.empty((10, 4))
    assert a.shape == (10, 4)
    del a
    assert kept.blocks == []
    with kept.keeping(), kept.keeping():
        late = kept.empty((10, 4))
    del late
    assert kept.blocks == []


def test_what_waits_is_bounded(kept, monkeypatch):
    monkeypatch.setattr(memory, "MOST", 1000)
    with kept.keeping():
        held = [kept.empty((n, 4)) for n in (10, 20, 15)]
        while held:
            held.pop(0)
        assert [b.nbytes for b in kept.blocks] == [640]
    monkeypatch.setattr(memory, "free", lambda: 3200)
    with kept.keeping():
        held = [kept.empty((n, 4)) for n in (10, 20)]
        while held:
            held.pop(0)
        assert [b.nbytes for b in kept.blocks] == [640], "a fourth of what is free"


def test_a_partition_leaves_nothing_behind(monkeypatch):
    """Its outputs lie in memory of their own, and are those of a run that keeps nothing."""
    monkeypatch.setattr(memory, "SMALL", 1 << 10)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 36, 3),
    ).double()  # fmt: skip
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    plane, program = ig.Slice.through(*x), lower(net, x[:2])
    program.chunk_bytes = 1 << 14
    used = []
    room = Spare.room

    def seen(self, *arguments, **options):
        waiting = len(self.blocks)
        found = room(self, *arguments, **options)
        used.append(len(self.blocks) < waiting)
        return found

    monkeypatch.setattr(Spare, "room", seen)
    for large in (memory.LARGE, 1 << 21):  # as a whole, by tiles
        monkeypatch.setattr(memory, "LARGE", large)
        monkeypatch.setattr(memory, "TILE", large // 2)
        used.clear()
        one = ig.partition(program, plane)
        assert any(used)
        gc.collect()
        assert memory.spare.blocks == []
        assert memory.spare.users == 0
        base = one.outputs
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        size = base.untyped_storage().nbytes() if isinstance(base, torch.Tensor) else base.nbytes
        assert size == one.outputs.nbytes
        monkeypatch.setattr(memory, "SMALL", 1 << 40)
        other = ig.partition(program, plane)
        monkeypatch.setattr(memory, "SMALL", 1 << 10)
        assert np.array_equal(one.outputs, other.outputs)
        assert np.array_equal(one.edges, other.edges)
