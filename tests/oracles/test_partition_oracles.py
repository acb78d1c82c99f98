from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from isogon.cpwl.program import mlp
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

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
