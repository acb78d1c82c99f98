"""Shared fixtures: where the oracles are, and one thread for reproducible floating point."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure(config):
    os.environ.setdefault("MPLBACKEND", "agg")
    # a busy machine draws its cases slowly: that says nothing of what is tested
    hypothesis.settings.register_profile(
        "isogon", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("isogon")


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
