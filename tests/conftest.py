"""Shared fixtures: where the oracles are, and one thread for reproducible floating point."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# before torch is imported: threads that wait by turning take the cores of other workers
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure(config):
    os.environ.setdefault("MPLBACKEND", "agg")
    # a busy machine draws its cases slowly: that says nothing of what is tested
    slow = [hypothesis.HealthCheck.too_slow]
    register = hypothesis.settings.register_profile
    # the same cases on every run, so that a change is judged by what it changes; a search for
    # new ones is HYPOTHESIS_PROFILE=search
    register("isogon", deadline=None, suppress_health_check=slow, derandomize=True)
    register("search", deadline=None, suppress_health_check=slow, max_examples=400)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "isogon"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and data; skips where it is missing (never in CI)."""
    if not (SHARED / "oracles").is_dir():
        if os.environ.get("CI"):
            pytest.fail("the folder ../shared must be present in CI")
        pytest.skip("needs the folder ../shared with oracles and data")
    return SHARED


@pytest.fixture
def generator():
    """A seeded torch generator."""
    import torch

    return torch.Generator().manual_seed(0)
