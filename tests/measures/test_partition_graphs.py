"""Partitions of random graphs with skips, concatenation, maxima, several kinds of kinks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.cpwl.program import Program, dense
from isogon.cpwl.stages import Affine, Join, Kink, Max, relu
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

SQUARE = Slice.box2d([-1, -1], [1, 1])


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


KINKS = {
    "relu": (tensor(0), tensor(0, 1), 0.0),
    "abs": (tensor(0), tensor(-1, 1), 0.0),
    "clamp": (tensor(-0.3, 0.4), tensor(0, 1, 0), -0.3),
    "sawtooth": (tensor(-0.5, 0, 0.5), tensor(1, -1, 1, -1), 0.0),
}


class Graphs:
    """Random programs, stage by stage."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.stages, self.widths, self.shared = [], {"input": 2}, None

    def add(self, stage, width):
        self.stages.append(stage)
        self.widths[stage.output] = width
        return stage.output

    def name(self):
        return f"t{len(self.stages)}"

    def dense(self, source, width):
        w = torch.from_numpy(self.rng.standard_normal((width, self.widths[source])))
        b = torch.from_numpy(0.5 * self.rng.standard_normal(width))
        if self.shared is not None and self.shared[0].shape == w.shape and self.rng.random() < 0.5:
            w, b = self.shared
        self.shared = w, b
        return self.add(dense(self.name(), source, 1.5 * w / w.shape[1] ** 0.5, b), width)

    def kink(self, source):
        kind = list(KINKS)[self.rng.integers(len(KINKS))]
        knots, slopes, value = KINKS[kind]
        name = self.name()
        return self.add(
            Kink(output=name, inputs=(source,), site=name, knots=knots, slopes=slopes, value=value),
            self.widths[source],
        )

    def maximum(self, sources, width, size):
        total = sum(self.widths[s] for s in sources)
        index = torch.stack(
            [torch.from_numpy(self.rng.permutation(total)[:size].copy()) for _ in range(width)]
        )
        if size > 2 and self.rng.random() < 0.5:
            index[0, -1] = -1
        name = self.name()
        stage = Max(output=name, inputs=tuple(sources), site=name, index=index, shape=(width,))
        return self.add(stage, width)

    def join(self, a, b):
        name = self.name()
        if self.widths[a] == self.widths[b]:
            return self.add(Join(output=name, inputs=(a, b), linear=torch.add), self.widths[a])
        cat = Join(output=name, inputs=(a, b), linear=lambda *x: torch.cat(x, 1))
        return self.add(cat, self.widths[a] + self.widths[b])

    def program(self, depth):
        at, skip = "input", "input"
        for _ in range(depth):
            width = int(self.rng.integers(2, 7))
            at = self.dense(at, width)
            kind = self.rng.integers(4)
            if kind == 0 and self.widths[at] >= 3:
                at = self.maximum([at], width, int(self.rng.integers(2, 1 + min(4, width))))
            elif kind == 1:
                other = self.dense(skip, width)
                at = self.maximum([at, other], width, 3)
            else:
                at = self.kink(at)
            if self.rng.random() < 0.5:
                at = self.join(at, skip)
            skip = at
        self.dense(at, 3)
        return Program(self.stages, (2,))


def signatures(program, x):
    """Pattern of each point as bytes: pieces of all kinks, winners of all maxima."""
    columns = []
    with torch.no_grad():
        for stage, arguments, _ in program.steps(x):
            if isinstance(stage, Kink):
                columns.append(stage.piece(arguments[0]).reshape(len(x), -1))
            elif isinstance(stage, Max):
                c = stage.candidates(*arguments)
                tied = c >= c.amax(-1, keepdim=True) - 1e-12
                columns.append((tied * 2 ** torch.arange(c.shape[-1])).sum(-1))
    return torch.cat([c.long() for c in columns], 1).numpy()


def test_one_unit_that_varies_at_several_knots():
    """The same unit may be the last of one knot's functions and the first of the next's."""
    knots, slopes = tensor(-0.5, 0, 0.5), tensor(1, -1, 1, -1)
    kink = Kink(output="h", inputs=("z",), site="h", knots=knots, slopes=slopes)
    # the first unit passes two knots everywhere, the second one none
    first = dense("z", "input", tensor([0.3, 0], [0, 1]), tensor(0.6, 0))
    p = partition(
        Program([first, kink, dense("y", "h", torch.eye(2).double(), None)], (2,)), SQUARE
    )
    assert len(p) == 2 * 4
    assert p.certify(500).passed
    pieces = [tuple(p.pattern(i)["h"]) for i in range(len(p))]
    assert set(pieces) == {(a, b) for a in (2, 3) for b in (0, 1, 2, 3)}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 3))
def test_random_graphs_against_dense_sampling(seed, depth):
    program = Graphs(seed).program(depth)
    p = partition(program, SQUARE)
    certificate = p.certify(1000)
    assert certificate.passed, str(certificate)
    side = torch.linspace(-0.9971, 0.9973, 120, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    seen = signatures(program, x)
    region = p.locate(x)
    assert (region >= 0).all()
    # one pattern per region, one region per pattern, at all sampled points
    pairs = np.unique(np.concatenate([region[:, None], seen], 1), axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1:], axis=0))
    # and no large region was missed or made up
    around = np.array(
        [np.linalg.norm(q - np.roll(q, 1, 0), axis=1).sum() for q in map(p.polygon, range(len(p)))]
    )
    big = p.area > around * (2 / 120)  # a disc of a cell's diagonal fits in
    assert set(np.nonzero(big)[0]) <= set(region.tolist())


def test_envelope_of_three_planes_meets_in_one_point():
    """max(x, y, -x-y): three regions around the origin; bisectors end where they stop winning."""
    w = tensor([1, 0], [0, 1], [-1, -1])
    stage = Max(output="m", inputs=("z",), site="m", index=torch.arange(3)[None], shape=(1,))
    p = partition(Program([dense("z", "input", w, None), stage], (2,)), SQUARE)
    assert (len(p), len(p.vertices), len(p.edges)) == (3, 4 + 3 + 1 - 1, 9)
    assert p.certify(1000).passed
    assert sorted(p.area) == pytest.approx(sorted([1.5, 1.25, 1.25]), abs=0.3)


def test_square_island():
    """max(|x|, |y|, 1/2): an inside cell that no corner of the domain knows of."""
    w = tensor([1, 0], [-1, 0], [0, 1], [0, -1], [0, 0])
    stage = Max(output="m", inputs=("z",), site="m", index=torch.arange(5)[None], shape=(1,))
    p = partition(Program([dense("z", "input", w, tensor(0, 0, 0, 0, 0.5)), stage], (2,)), SQUARE)
    assert len(p) == 5
    assert len(p.vertices) == 8
    assert p.certify(1000).passed


def test_max_pool_by_hand():
    """Pooling after a convolution and a ReLU: ties at zero make no regions."""
    g = torch.Generator().manual_seed(0)
    kernel = torch.randn(3, 1, 3, 3, generator=g, dtype=torch.float64)
    position = torch.arange(3 * 36).reshape(3, 6, 6)
    index = position.unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 4)
    stages = [
        Affine(output="c", inputs=("input",), linear=lambda x: torch.conv2d(x, kernel)),
        relu("r", "c", "relu"),
        Max(output="m", inputs=("r",), site="pool", index=index, shape=(3, 3, 3)),
        Affine(output="f", inputs=("m",), linear=lambda x: x.flatten(1)),
        dense("y", "f", torch.randn(4, 27, generator=g, dtype=torch.float64), None),
    ]
    program = Program(stages, (1, 8, 8))
    anchors = torch.randn(3, 1, 8, 8, generator=g, dtype=torch.float64)
    p = partition(program, Slice.through(*anchors))
    assert len(p) > 300
    certificate = p.certify(3000)
    assert certificate.passed, str(certificate)
    plain = torch.nn.functional.max_pool2d
    x = torch.conv2d(anchors, kernel).relu()
    assert torch.equal(stages[2](x), plain(x, 2))
