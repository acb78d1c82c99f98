"""The certificate of segments: it passes what is right, and each check sees its own fault."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_certificate_checks import noisy, one_layer
from test_partition_graphs import Graphs

import isogon as ig
from isogon.cpwl.stages import Affine
from isogon.errors import ModelError
from isogon.measures.partition.certificate.segments import BESIDE
from isogon.measures.segments import Segments

A, B = torch.tensor([-1.0, -0.4]).double(), torch.tensor([1.0, 0.9]).double()
LINES = [(1.0, 0.0, 0.3), (1.0, -0.5, -0.2), (0.0, 1.0, -0.5)]
NAMES = ("sorted", "cover", "complete", "units", "distinct", "decided", "outputs")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 3))
def test_what_is_right_passes(seed, depth):
    g = torch.Generator().manual_seed(seed)
    a, b = (2 * torch.rand(2, 2, generator=g) - 1).double()
    s = ig.segments(Graphs(seed).program(depth), a, b)
    certificate = s.certify()
    assert certificate.passed, str(certificate)
    assert tuple(c.name for c in certificate) == NAMES


def test_images(generator):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(36, 4),
    ).eval()  # fmt: skip
    a, b = torch.rand(2, 1, 8, 8, generator=generator)
    s = ig.segments(net, a, b)
    certificate = s.certify(100)
    assert certificate.passed, str(certificate)
    assert certificate.facts["pieces"] == len(s)
    assert certificate.facts["points"] == 5 * len(s) + 100


def changed(s, program=None, row=None, drop=None, **columns):
    """Segments with a piece cut in two at a place (`row`), or without a breakpoint (`drop`)."""
    arrays, table = dict(s.arrays), s.table.copy()
    if row is not None:
        t, site, unit = row
        knots = np.concatenate([[0.0], s.breakpoints, [1.0]])
        at = int(np.searchsorted(s.breakpoints, t, side="right"))
        length = float(s.meta["length"])
        first, second = table.iloc[[at]].copy(), table.iloc[[at]].copy()
        first["end"], first["site"], first["unit"] = t, site, unit
        first["length"] = (t - knots[at]) * length
        second["start"], second["length"] = t, (knots[at + 1] - t) * length
        table = pd.concat([table[:at], first, second, table[at + 1 :]], ignore_index=True)
        arrays["breakpoints"] = np.insert(s.breakpoints, at, t)
        arrays["outputs"] = np.insert(s.outputs, at + 1, s.at(t)[0], axis=0)
    if drop is not None:
        last = table.iloc[drop + 1]
        for name in ("end", "site", "unit"):
            table.loc[drop, name] = last[name]
        table.loc[drop, "length"] += last["length"]
        table = table.drop(index=drop + 1).reset_index(drop=True)
        arrays["breakpoints"] = np.delete(s.breakpoints, drop)
        arrays["outputs"] = np.delete(s.outputs, drop + 1, axis=0)
    for name, values in columns.items():
        if name in arrays:
            arrays[name] = values
        else:
            table[name] = values
    found = Segments("segments", table=table, arrays=arrays, meta=dict(s.meta))
    found.program = program or s.program
    return found


def segments(out=None, lines=LINES):
    return ig.segments(one_layer(lines, out), A, B)


def a_breakpoint_twice():
    s = segments()
    row = s.table.iloc[0]
    return changed(s, row=(s.breakpoints[0], row["site"], row["unit"]))


def a_gap():
    s = segments()
    ends = s.table["end"].to_numpy().copy()
    ends[0] -= 1e-6
    return changed(s, end=ends)


def a_missing_breakpoint():
    """Of a unit without influence."""
    s = segments([1.0, 0.0, 1.0])
    return changed(s, drop=int(np.flatnonzero(s.table["unit"] == 1)[0]))


def a_wrong_unit():
    s = segments()
    units = s.table["unit"].to_numpy().copy()
    units[0] = units[1]
    return changed(s, unit=units)


def a_breakpoint_too_many():
    """Of a unit that is zero everywhere."""
    s = segments(lines=[*LINES, (0.0, 0.0, 0.0)])
    return changed(s, row=(0.01, s.program.sites[0], 3))


def noise():
    s = segments()
    program = noisy(LINES, 1e14)
    t = torch.from_numpy(np.concatenate([[0.0], s.breakpoints, [1.0]]))[:, None]
    return changed(s, program, outputs=program.evaluate(A + t * (B - A)).numpy())


def a_wrong_output():
    s = segments()
    outputs = s.outputs.copy()
    outputs[1] += 1e-9
    return changed(s, outputs=outputs)


FAULTS = dict(zip(NAMES, (a_breakpoint_twice, a_gap, a_missing_breakpoint, a_wrong_unit,
                          a_breakpoint_too_many, noise, a_wrong_output), strict=True))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_only_this_check_fails(name):
    certificate = FAULTS[name]().certify()
    assert {c.name for c in certificate if not c.passed} == {name}, str(certificate)


def test_a_missing_change_of_a_maximum_fails():
    torch.manual_seed(0)
    grouped = (torch.nn.Unflatten(1, (1, 8)), torch.nn.MaxPool1d(2), torch.nn.Flatten())
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), *grouped, torch.nn.Linear(4, 2))
    s = ig.segments(net.double(), A, B)
    assert s.certify().passed
    assert len(s) > 1
    for drop in range(len(s) - 1):
        certificate = changed(s, drop=drop).certify()
        assert not certificate["complete"].passed, "two entries are the largest on one piece"


@pytest.mark.parametrize("where", ["corner", "between"])
def test_an_output_that_the_network_does_not_have_fails(where):
    s = segments()
    outputs = s.outputs.copy()
    outputs[0 if where == "corner" else -1] += 1e-9
    assert not changed(s, outputs=outputs).certify()["outputs"].passed
    starts = s.table["start"].to_numpy().copy()
    starts[1] += 1e-6
    assert not changed(s, start=starts).certify()["cover"].passed
    lengths = s.table["length"].to_numpy().copy()
    lengths[1] *= 1 + 1e-6
    assert not changed(s, length=lengths).certify()["cover"].passed


class Bumps(Affine):
    """Values (of some units) that are 1e-9 too large at some places, told by the first unit."""

    def __call__(self, z):
        t = ((z[:, 0] - LINES[0][2]) - A[0]) / (B[0] - A[0])
        return z + 1e-9 * self.apply(t)[:, None] * self.bias


@pytest.mark.parametrize("place", ["ends", "middles", "beside", "random"])
def test_outputs_are_compared_at_each_kind_of_place(place):
    """The network has another output there alone."""
    s = segments()
    knots = np.concatenate([[0.0], s.breakpoints, [1.0]])
    k = int(s.outputs[1:-1, 0].argmax()) + 1
    start, width = knots[k], knots[k + 1] - knots[k]
    assert s.outputs[k, 0] > 0.1
    where = {"ends": start, "middles": start + width / 2, "beside": start + BESIDE}
    others = torch.ones(len(LINES)).double()
    others[int(s.table["unit"].iloc[k - 1])] = 0  # what vanishes at the start stays zero
    low, high = start + 0.2 * width, start + 0.4 * width
    if place != "random":
        low, high = where[place] - 1e-10, where[place] + 1e-10
    bumps = Bumps(
        output="y", inputs=("z",), linear=lambda z: z.clone(), bias=others,
        apply=lambda t: (t > low) & (t < high),
    )  # fmt: skip
    certificate = changed(s, one_layer(LINES, through=bumps)).certify()
    assert {c.name for c in certificate if not c.passed} == {"outputs"}, str(certificate)


def test_it_stays_with_the_reading(tmp_path):
    s = segments()
    assert s.certificate is None
    verdict = s.certify().verdict
    assert verdict == f"certified: 7 of 7 checks, {5 * len(s) + 1000:,} points"
    s.save(tmp_path / "s")
    kept = ig.read(tmp_path / "s")
    assert kept.certificate.verdict == verdict
    with pytest.raises(ModelError, match="no network"):
        kept.certify()
    assert kept.attach(s.program).certify().passed


def test_it_is_bounded_in_time():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(400, 3, generator=g).tolist()
    s = segments(lines=[tuple(row) for row in w])
    wide = ig.segments(s.program, A, B)
    wide.program.chunk = lambda: 30
    certificate = wide.certify(seconds=1e-9)
    assert certificate.passed
    assert certificate.facts["pieces"] < len(wide)
    assert certificate.verdict.startswith(
        f"certified in part: 7 of 7 checks, 5 of {len(wide)} pieces, "
    )
