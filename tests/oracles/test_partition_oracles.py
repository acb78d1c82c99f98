from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from isogon.cpwl.program import mlp
from isogon.measures.boundary import trace
from isogon.measures.boundary.measure import traced
from isogon.measures.partition.forecast import forecast
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice
from reference.same_curves import compared

CASES = (
    "toy16", "scex", "bunny2_4x32", "deg_dup", "deg_nobias", "deg_corner", "deg_triple",
    "deg_dead", "deg_grid", "w64", "acas11",
)  # fmt: skip


def load(shared, name):
    folder = shared / "oracles" / "partition"
    case = {c["name"]: c for c in json.loads((folder / "oracles.json").read_text())["cases"]}[name]
    z = np.load(folder / "cases" / case["file"])
    layers = sum(key.startswith("W") for key in z.files)
    weights = [torch.from_numpy(z[f"W{i}"]) for i in range(layers)]
    biases = [torch.from_numpy(z[f"b{i}"]) for i in range(layers)]
    program = mlp(weights, biases, slope=float(z["slope"]))
    chart = z["T"]
    return case, program, Slice.polygon(chart[:, 2], chart[:, :2], z["poly"])


@pytest.mark.parametrize("name", CASES)
def test_counts(shared, name):
    case, program, plane = load(shared, name)
    p = partition(program, plane)
    assert len(p) == case["regions"] == case["distinct_patterns"]
    per_layer = [int((p.edge_site == s).sum()) for s in range(len(p.sites))]
    assert (len(p.vertices), len(p.edges)) == (case["vertices"], case["edges"])
    assert per_layer == case["edges_per_layer"]
    assert p.area.min() == pytest.approx(case["min_area"], rel=1e-3)
    certificate = p.certify(20_000 if len(p) < 5_000 else 2_000)
    assert certificate.passed, str(certificate)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("scex", "deg_dead", "w64")]
)
@pytest.mark.parametrize("patience", [0, sys.maxsize], ids=["carried", "literal"])
def test_the_traced_boundary_is_that_of_the_partition(shared, name, patience, monkeypatch):
    monkeypatch.setattr(trace, "PATIENCE", patience)
    _case, program, plane = load(shared, name)
    p, b = partition(program, plane), traced(program, plane, 200)
    found = compared(b, p)
    assert len(p.boundary)
    assert b.complete
    assert found["spurious"] == found["open"] == 0
    assert found["length"] < 1e-9
    assert found["distance"] < 1e-9
    # of acas11's 17 closed curves two fit between all lines of both grids
    assert found["closed"] == (2 if name == "acas11" else 0)
    b.certify(200).require()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["bunny2_4x32", "w64", "acas11"])
def test_forecast_is_within_a_factor_of_two(shared, name, seed):
    case, program, plane = load(shared, name)
    found = forecast(program, plane, generator=torch.Generator().manual_seed(seed))
    assert 0.5 < found.regions / case["regions"] < 2
