"""What a sweep says over seeds: a mean with its interval, which no share can leave."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from test_findings import reset

from isogon.survey.pages.figures import SEED
from isogon.survey.pages.seeds import found_over


def over(drops, settings=None):
    """What is said of readings whose first layer costs so much."""
    job = SimpleNamespace(measure="reset", inputs={})
    records = {
        str(k): SimpleNamespace(job=job, reading=reset([d, 0.01], 0.97))
        for k, d in enumerate(drops)
    }
    facts = {k: {SEED: k} for k in records}
    for k, told in (settings or {}).items():
        facts[str(k)] |= {"how": told}
    return found_over(records, facts)


def test_the_mean_with_students_interval():
    drops = np.array([0.50, 0.54, 0.58])
    (found,) = over(drops)
    half = stats.t.ppf(0.975, 2) * drops.std(ddof=1) / np.sqrt(3)
    assert found.value == "54 points"
    assert (
        found.against
        == f"95 % interval {100 * (0.54 - half):.0f} to {100 * (0.54 + half):.0f} for the mean"
    )
    assert "50 to 58 from seed to seed" in found.text


@pytest.mark.parametrize("drops", [[0.43, 0.5, 0.97], [0.6, 0.9, 0.96]])
def test_no_interval_of_a_share_goes_beyond_it(drops):
    (found,) = over(drops)
    assert "to 100 for the mean" in found.against


def test_nor_one_of_a_difference_of_shares():
    found = over([0.0, 0.9, 0.95, 0.1], {0: "plain", 1: "noisy", 2: "noisy", 3: "plain"})
    assert found
    assert all(
        "to 100" not in f.against or float(f.against.split(" to ")[1].split(";")[0]) <= 100
        for f in found
    )
    wide = over([0.0, 0.4, 0.95, 0.1], {0: "plain", 1: "noisy", 2: "noisy", 3: "plain"})
    assert any("-100 to 100" in f.against or "to 100;" in f.against for f in wide)
