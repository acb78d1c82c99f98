"""Procrustes and CKA against the values of an independent implementation in float64."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from isogon.measures.alignment.metrics.metric import metric
from isogon.measures.alignment.similarity import similarity

SPECS = {
    "wreath_procrustes": "procrustes(modulo=G_relu)",
    "ortho_procrustes": "procrustes",
    "wreath_cka_max": "cka(kernel=max, normalize=channel, drop_dead=False)",
    "wreath_cka_median": "cka(kernel=median, normalize=channel, drop_dead=False)",
    "wreath_cka_max_uncentered": (
        "cka(kernel=max, normalize=channel, drop_dead=False, center=False)"
    ),
    "ortho_cka": "cka(normalize=channel, drop_dead=False)",
    "ortho_cka_uncentered": "cka(normalize=channel, drop_dead=False, center=False)",
}
CASES = (
    "indep_same_shape", "diff_channels_small_first", "diff_channels_large_first",
    "diff_resolution_4_vs_8", "diff_both", "dead_channels", "grelu_image", "orthogonal_image",
    "identical", "signed_features", "n5", "n4",
)  # fmt: skip


@pytest.fixture(scope="module")
def oracle(shared):
    folder = shared / "oracles"
    spec = importlib.util.spec_from_file_location("recipes", folder / "recipes.py")
    recipes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipes)
    return json.loads((folder / "alignment" / "oracles.json").read_text()), recipes


def test_every_case_is_known(oracle):
    assert set(CASES) == set(oracle[0]["cases"])


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_values(oracle, case):
    held, recipes = oracle
    facts = held["cases"][case]
    a, b = (recipes.alignment_features(facts[side]) for side in "ab")
    before = a.copy(), b.copy()
    found = similarity(a, b, metric=(*SPECS.values(), "cka")).table
    values = dict(zip(found["metric"], found["similarity"]))
    for key, spec in SPECS.items():
        want = facts["values"][key]["ref64"]
        assert values[metric(spec).name] == pytest.approx(want, abs=1e-6), spec
    assert values["cka"] == pytest.approx(facts["true_linear_cka_unbiased"], abs=1e-6)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


@pytest.mark.shared
def test_layers(oracle):
    held, recipes = oracle
    several = held["multi_layer"]
    a, b = (
        {str(k): recipes.alignment_features(s) for k, s in enumerate(several[side])}
        for side in "ab"
    )
    for key in ("wreath_procrustes", "ortho_procrustes"):
        found = similarity(a, b, metric=SPECS[key])
        want = np.array(several[f"{key}_diagonly_False"])
        assert np.allclose(found.arrays["similarity"], want, atol=1e-4)  # the original's float32
        diagonal = similarity(a, b, metric=SPECS[key], pairs="diagonal").arrays["similarity"]
        assert np.allclose(np.diag(diagonal), np.diag(want), atol=1e-4)
        assert np.isnan(diagonal[~np.eye(*diagonal.shape, dtype=bool)]).all()
