"""The studies of invariance are plans that can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from isogon import registry
from isogon.specs import Spec, parse
from isogon.survey.declaring import plan

PLANS = sorted((Path(__file__).parents[2] / "plans" / "invariance").glob("*.yaml"))
STUDIES = {
    "transformation-samples", "sample-size", "measures", "random-initialisations",
    "random-weights", "during-training", "data-set-size", "data-subset", "transfer",
    "family-diversity", "family-complexity", "family-size", "batch-norm",
    "activation-functions", "max-pool", "kernel-size", "aggregation", "stratified",
    "equivariance-normalisation", "ti-pooling", "models", "augmentation", "augmentation-cifar",
}  # fmt: skip


def test_every_study_is_there():
    assert {p.stem for p in PLANS} == STUDIES


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_plan(path, scale):
    found = plan.read_plan(path, scale=scale)
    assert found.about
    assert found.jobs
    for job in found.jobs:
        model = parse(job.inputs["model"])
        assert model.name == "trained"
        arch = model.args[0]
        registry.get("arch", arch.name if isinstance(arch, Spec) else arch)
        if family := model.kwargs.get("family"):
            registry.build("family", family)
        registry.build("family", job.inputs["family"])
    assert f"plans/invariance/{path.name}" in path.read_text()
