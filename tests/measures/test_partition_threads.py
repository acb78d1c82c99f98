"""Threads change nothing of a partition but the time that it takes."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.measures.partition.kernels import threads
from isogon.measures.partition.mesh import memory, stream


@pytest.fixture(params=[1, 2, 3])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_parts_are_consecutive_and_whole(count, monkeypatch):
    monkeypatch.setattr(threads, "LEAST", 4)
    for rows in (0, 1, 2, 7, 40):
        parts = threads.by_rows(rows, 2, lambda part: np.arange(part.start, part.stop))
        assert np.array_equal(np.concatenate(parts), np.arange(rows))
        assert len(parts) == max(1, min(count, rows * 2 // 4))


def test_every_part_is_worked_on_once_by_several_threads(count):
    seen, names = [], set()
    both = threading.Barrier(count)

    def work(part):
        if part < count:
            both.wait(10)  # passed only where as many threads as asked for are at work
        seen.append(part)
        names.add(threading.current_thread().name)

    threads.each(work, iter(range(50)))
    assert sorted(seen) == list(range(50))
    assert len(names) == count


def test_a_part_that_fails_stops_the_others(count):
    done = []

    def work(part):
        if part == 5:
            raise ValueError("five")
        done.append(part)

    with pytest.raises(ValueError, match="five"):
        threads.each(work, range(100_000))
    rest = len(done)
    assert rest < 100_000
    threads.each(done.append, range(3))  # the threads are there for the next call
    assert len(done) == rest + 3


def test_torch_keeps_its_number_of_threads(count):
    found = []
    threads.each(lambda _: found.append((torch.get_num_threads(), torch.is_grad_enabled())), [0])
    assert found == [(1, count == 1)]
    assert torch.get_num_threads() == count
    x = torch.rand(400, 400)
    threads.each(lambda _: found.append((x @ x).isnan().any()), range(4))
    threads.each(lambda _: found.append(torch.get_num_threads()), range(4))
    assert set(found[5:]) == {1}
    assert torch.get_num_threads() == count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(count):
    threads.each(lambda _: None, range(4))
    child = os.fork()
    if child == 0:
        found = []
        threads.each(found.append, range(4))
        os._exit(0 if sorted(found) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def networks():
    torch.manual_seed(0)
    yield "mlp", nn.Sequential(*layers(2, 24, 24, 24), nn.Linear(24, 4)), (2,)
    yield "wide", nn.Sequential(*layers(2, 60), nn.Linear(60, 3)), (2,)
    pooled = [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)]
    yield "pooled", nn.Sequential(*pooled), (1, 8, 8)


def layers(*sizes):
    for i, o in pairwise(sizes):
        yield from (nn.Linear(i, o), nn.ReLU())


def cut(net, shape):
    if len(shape) == 1:
        return ig.partition(net, ig.Slice.box2d([-2, -2], [2, 2]))
    generator = torch.Generator().manual_seed(1)
    a, b, c = torch.rand(3, *shape, generator=generator, dtype=torch.float64)
    return ig.partition(net, ig.Slice.anchors(a, b, c, radius=1.0))


@pytest.mark.parametrize(("name", "net", "shape"), list(networks()))
@pytest.mark.parametrize("how", ["as a whole", "pending", "by tiles"])
def test_partitions_are_the_same_for_any_number_of_threads(name, net, shape, how, monkeypatch):
    monkeypatch.setattr(threads, "LEAST", 64)
    monkeypatch.setattr(stream, "CHUNK", 1 << 12)
    if how == "pending":
        monkeypatch.setattr(stream, "LARGE", 1 << 10)
    if how == "by tiles":
        monkeypatch.setattr(memory, "LARGE", 1 << 14)
        monkeypatch.setattr(memory, "TILE", 1 << 13)
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(cut(net, shape))
    finally:
        torch.set_num_threads(before)
    one, more = found
    assert len(one) > 30
    assert more.certify().passed
    for key in ("edges", "edge_site", "edge_unit", "face_offsets", "face_edges", "face_vertices"):
        assert np.array_equal(one.arrays[key], more.arrays[key]), key
    # products of other numbers of rows: rounding
    assert np.abs(one.vertices - more.vertices).max() < 1e-9
    assert np.abs(one.outputs - more.outputs).max() < 1e-9
