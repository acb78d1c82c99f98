"""Threads change nothing of a partition but the time that it takes."""

from __future__ import annotations

import math
import os
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.measures.partition.kernels import threads
from isogon.measures.partition.mesh import memory, splitting, stream


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


@pytest.mark.parametrize("least", [1, 30, 1000])
def test_shares_are_consecutive_and_of_about_the_same_cost(count, least, monkeypatch):
    monkeypatch.setattr(threads, "LEAST", least)
    for cost in ([], [0, 0], [5], [1, 500, 1], [3] * 40, [100, *[1] * 50]):
        before = np.cumsum([0, *cost])
        parts = threads.shared(before)
        rows = [row for part in parts for row in range(part.start, part.stop)]
        assert rows == list(range(len(cost)))
        assert len(parts) <= max(1, min(count, before[-1] // least))
        if cost:
            assert all(part.stop > part.start for part in parts)
            most = max(before[part.stop] - before[part.start] for part in parts)
            assert most <= before[-1] / max(1, min(count, before[-1] // least)) + 2 * max(cost)


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


class Meeting(nn.Module):
    """Lines that meet in threes: there are fewer regions than pairs of lines say."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 6), nn.Linear(6, 2)
        with torch.no_grad():
            self.first.weight.copy_(
                torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0], [0, 1], [1, 1]])
            )
            self.first.bias.copy_(torch.tensor([0.0, 0, 0, -1, -1, -2]))

    def forward(self, x):
        x = torch.cat([x, x.abs()], 1)[:, :2]
        return self.last(self.first(x.relu() - (-x).relu()).relu())


@pytest.mark.parametrize("net", [Meeting(), networks], ids=["in threes", "at random"])
def test_faces_are_split_in_shares_where_their_places_are_known(net, monkeypatch):
    """Else all at once; both ways give the same mesh, number by number."""
    monkeypatch.setattr(threads, "LEAST", 8)
    # on a busy machine cutting may last so long that it is forecast, for which windows are cut
    monkeypatch.setattr("isogon.measures.partition.forecast.PATIENCE", math.inf)
    net = net if isinstance(net, nn.Module) else next(networks())[1]
    ran, kernel = [], splitting.split_faces

    def counted(*arguments):
        ran.append(len(arguments[0]) - 1)
        return kernel(*arguments)

    monkeypatch.setattr(splitting, "split_faces", counted)
    before, found, calls = torch.get_num_threads(), [], []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            ran.clear()
            found.append(cut(net.double(), (2,)))
            calls.append(list(ran))
    finally:
        torch.set_num_threads(before)
    one, *others = found
    for other in others:
        for key in ("edges", "edge_unit", "face_offsets", "face_edges", "face_vertices"):
            assert np.array_equal(one.arrays[key], other.arrays[key]), key
        assert np.allclose(one.vertices, other.vertices, atol=1e-9)
    fell_back, shares = 0, list(calls[2])
    for whole in calls[0]:
        parts = 0
        while parts < whole:
            parts += (last := shares.pop(0))
        assert parts == whole
        if last < whole and shares[:1] == [whole]:
            fell_back += 1
            shares.pop(0)
    assert not shares
    assert (fell_back > 0) == isinstance(net, Meeting)
