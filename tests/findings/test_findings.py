"""Findings: thresholds at both sides, their order, and that they say no more than their numbers."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import isogon as ig
from isogon import registry
from isogon.errors import IncompleteWarning
from isogon.findings import (
    Finding,
    Names,
    differences,
    findings,
    intervals,
    numbers,
    ordered,
    words,
)
from isogon.readings import Grid, Reading, SampleTable, SiteTable

NAMES = Names("seed 0", "seed 1")


def orientation(*below: int, total: int = 64, cls="OrientationTable") -> Reading:
    """A reading with so many filters of each layer on the non-positive side."""
    from isogon.measures.arrangement.orientation import OrientationTable

    rows = []
    for i, k in enumerate(below):
        signs = np.where(np.arange(total) < k, -1.0, 1.0)
        rows.append(pd.DataFrame({"site": f"net.conv{i}", "projection": signs, "zero": False}))
    table = pd.concat(rows, ignore_index=True)
    return OrientationTable("orientation", table)


def reset(drops: list[float], accuracy: float, samples: int | None = 1000) -> Grid:
    drop = np.array(drops)[:, None]
    meta = {"accuracy": accuracy} | ({} if samples is None else {"samples": samples})
    axes = {"site": [f"conv{i + 1}" for i in range(len(drops))]}
    axes["snapshot"] = ["trained(cnn, digits, epochs=0)"]
    return Grid.of("reset", {"accuracy": accuracy - drop, "drop": drop}, axes, meta=meta)


def data_matrix(trace, prediction=None, label=None) -> SampleTable:
    n = len(trace)
    table = pd.DataFrame(
        {
            "sample": range(n),
            "label": np.zeros(n, int) if label is None else label,
            "prediction": np.zeros(n, int) if prediction is None else prediction,
            "trace": trace,
            "rank@1e-3": 2,
            "participation_ratio": np.linspace(1, 2, n),
            "eigenvalue_1": trace,
            "eigenvalue_2": 0.0,
        }
    )
    return SampleTable("data_matrix", table)


def barrier(middle: float, samples: int = 400) -> Reading:
    from isogon.measures.alignment.barrier import Barrier

    rows = [(False, False, t, 0.1, a) for t, a in ((0.0, 0.9), (0.5, middle), (1.0, 0.9))]
    columns = ["matched", "recalibrated", "t", "loss", "accuracy"]
    table = pd.DataFrame(rows, columns=columns)
    return Barrier("barrier", table, meta={"samples": samples})


def similarity(values, null_sd: float) -> Grid:
    sites = [f"relu{i}" for i in range(len(values))]
    grid = Grid.of("similarity", np.diag(values), {"site_a": sites, "site_b": sites})
    kept = grid.table[grid.table["site_a"] == grid.table["site_b"]].reset_index(drop=True)
    z = kept["similarity"] / null_sd
    grid.table = kept.assign(metric="cka", null_sd=null_sd, z=z)
    facts = {"direction": "higher is closer", "range": [-1.0, 1.0], "identical": 1.0}
    grid.meta["metrics"] = {"cka": facts}
    return grid


# --------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (7, 40), (20, 40), (499, 1000)])
def test_a_coin_is_tested_as_scipy_would(k, n):
    tail = min(stats.binom.cdf(k, n, 0.5), stats.binom.sf(k - 1, n, 0.5))
    assert intervals.coin(k, n) == pytest.approx(min(1.0, 2 * tail))


def test_mass_is_corrected_over_layers_and_changes_sides_at_the_level():
    # 21 of 64 has p = 0.0081 alone: an effect among 6 layers (0.049), none among 7 (0.057)
    six, seven = orientation(21, *[32] * 5), orientation(21, *[32] * 6)
    assert intervals.coin(21, 64) * 6 < 0.05 < intervals.coin(21, 64) * 7
    found, hidden = findings(six)[0], findings(seven)[0]
    assert found.effect
    assert "21 of 64" in found.text
    assert "50 ± 6.2 %" in found.against
    assert not hidden.effect
    assert "In none of 7 layers" in hidden.text
    assert hidden.weight < found.weight


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_coins_seldom_yield_an_effect(seed):
    """At its null a reading yields an effect in at most the level's share of cases."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(20):
        p = [intervals.coin(int(k), 64) for k in rng.binomial(64, 0.5, 5)]
        hits += min(intervals.corrected(p)) <= intervals.LEVEL
    assert hits <= 6  # of 20 at 5 %: more in one of 30,000 cases


def test_a_reset_costs_what_its_interval_keeps_from_zero():
    for drop, total, is_effect in ((0.58, 355, True), (0.02, 355, False), (0.02, 20_000, True)):
        found = findings(reset([0.0, drop], 0.97, total))[0]
        assert found.effect is is_effect, (drop, total)
        low = intervals.drop(0.97, 0.97 - drop, total, intervals.LEVEL / 2)[0]
        assert (low > 0) is is_effect
    sentence = findings(reset([0.02, 0.58], 0.97, 355))[0].text
    expected = "Putting conv2 back to its initial values costs 58 of 97 points; conv1 can be put "
    assert sentence == expected + "back at 2.0."


def test_what_has_no_number_of_samples_claims_no_effect():
    found = findings(reset([0.0, 0.58], 0.97, None))[0]
    assert not found.effect
    assert "no interval" in found.against


@pytest.mark.parametrize(("middle", "effect"), [(0.9, False), (0.88, False), (0.7, True)])
def test_barriers_have_an_interval(middle, effect):
    found = findings(barrier(middle), NAMES)[0]
    assert found.effect is effect
    assert "seed 0" in found.text
    assert ("no barrier" in found.text) is not effect


def test_similarity_is_told_from_its_null():
    far = findings(similarity([0.9, 0.5, 0.04], 0.01), NAMES)[0]
    near = findings(similarity([0.9, 0.5, 0.01], 0.01), NAMES)[0]
    assert far.effect  # 4 sd: not chance
    assert not near.effect  # 1 sd
    assert any(
        "can't be told from chance" in f.text for f in findings(similarity([0.9, 0.01], 0.01))
    )


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_samples_that_are_wrong_at_random_are_not_called_more_sensitive(seed):
    rng = np.random.default_rng(seed)
    trace = rng.exponential(size=60)
    wrong = np.zeros(60, int)
    wrong[rng.permutation(60)[:20]] = 1
    found = [f for f in findings(data_matrix(trace, wrong)) if "gets wrong" in f.text]
    share, p = intervals.separation(trace[wrong == 1], trace[wrong == 0])
    assert len(found) == 1
    assert found[0].effect is (p <= intervals.LEVEL)
    assert 0 <= share <= 1


def test_samples_that_are_wrong_because_sensitive_are_called_so():
    trace = np.linspace(0.1, 10, 60)
    found = findings(data_matrix(trace, (trace > 8).astype(int)))[0]
    assert found.effect
    assert "more sensitive" in found.text


def test_invariance_is_told_from_one_at_the_threshold():
    from isogon.measures.orbits.reading import OrbitTable

    def table(mean: float) -> Reading:
        rows = {"site": "relu1", "unit": range(9), "sample_variance": 1.0}
        values = mean + np.linspace(-1e-3, 1e-3, 9)
        frame = pd.DataFrame(rows | {"normalized_variance": values})
        return OrbitTable("invariance", frame, meta={"family": {"name": "rotations(4)"}})

    assert not findings(table(0.905))[0].effect
    assert not findings(table(1.105))[0].effect
    assert findings(table(0.895))[0].effect
    assert findings(table(1.115))[0].effect


def test_homogeneity_rounding_is_no_deviation():
    def table(deviation: float) -> Reading:
        rows = {"site": ["a", "b"], "op": "ReLU", "scale": 2.0, "deviation": [0.0, deviation]}
        return SiteTable("homogeneity", pd.DataFrame(rows))

    assert not findings(table(9e-6))[0].effect
    assert findings(table(1.1e-5))[0].effect


# --------------------------------------------------------------------------- two networks


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_equal_networks_do_not_differ(seed):
    trace = np.random.default_rng(seed).exponential(size=40) + 1e-6
    one = data_matrix(trace)
    assert not any(f.effect for f in differences(one, one, NAMES))


def test_differences_are_paired_by_sample():
    trace = np.geomspace(1e-3, 1e3, 40)  # a spread that hides a factor of 1.5, unless paired
    found = differences(data_matrix(trace), data_matrix(1.5 * trace), NAMES)[0]
    assert found.effect
    assert "1.5 times as large for seed 1 as for seed 0" in found.text
    assert "paired over 40 samples" in found.against


def test_a_share_on_the_same_samples_has_a_paired_interval():
    gap, low, high = intervals.paired_shares(30, 10, 400)
    assert gap == pytest.approx(0.05)
    assert 0 < low < gap < high
    wide = intervals.drop(0.95, 0.90, 400)
    assert high - low < wide[1] - wide[0]
    _, low, high = intervals.paired_shares(12, 10, 400)
    assert low < 0 < high


# --------------------------------------------------------------------------- order, words


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.floats(0, 1)), max_size=30))
def test_the_first_screen_has_every_measure_once_before_any_twice(given_):
    found = [Finding(f"{m} {w}", "1", "no null", w, measure=m) for m, w in given_]
    first = ordered(found)
    assert len(first) == min(5, len(found))
    assert [f.weight for f in first] == sorted((f.weight for f in first), reverse=True)
    kinds = {f.measure for f in found}
    assert len({f.measure for f in first}) == min(5, len(kinds))
    for f in first:  # none of its measure that is left out matters more
        same = [g.weight for g in found if g.measure == f.measure]
        assert f.weight <= max(same)
    if len(kinds) >= 5:
        best = sorted((max(f.weight for f in found if f.measure == m) for m in kinds), reverse=True)
        assert [f.weight for f in first] == best[:5]


@given(st.floats(1e-12, 1e12), st.integers(2, 5))
def test_numbers_are_rounded_for_a_reader(value, digits):
    text = words.number(value, digits)
    assert len(re.sub(r"[^0-9]", "", text.split("·")[0])) <= max(digits, 7)
    assert "-" not in words.number(-value, digits)
    assert "e" not in text


def test_numbers_in_words():
    assert words.number(45672.831632653055) == "45,673"
    assert words.number(0.000012345) == "1.2·10⁻⁵"
    assert words.number(math.nan) == "undefined"
    assert words.in_points(0.583) == "58"
    assert words.in_points(0.0031) == "0.3"
    assert words.in_points(-0.0001) == "0"
    assert words.percent(0.999) == "99.9 %"
    assert words.percent(1.0) == "100 %"
    assert words.enumerated(list("abcdefg")) == "a, b, c and 4 more"
    assert words.trimmed(["net.conv1", "net.conv2"]) == {"net.conv1": "conv1", "net.conv2": "conv2"}
    numbered = ["net.conv.3", "net.conv.11"]  # a bare number says nothing in a sentence
    assert list(words.trimmed(numbered).values()) == ["conv.3", "conv.11"]
    assert list(words.trimmed(["0", "2.a"]).values()) == ["0", "2.a"]


@pytest.mark.parametrize(("right", "total"), [(0, 10), (5, 10), (412, 437), (437, 437)])
def test_wilson_s_interval_is_that_of_scipy(right, total):
    theirs = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert intervals.wilson(right, total) == pytest.approx((theirs.low, theirs.high))


def test_the_median_s_interval_covers_by_order_statistics():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        _, low, high = intervals.median(rng.exponential(size=31))
        inside += low <= math.log(2) <= high
    assert inside >= 0.93 * 400
    assert math.isnan(intervals.median(np.arange(5.0))[1])


def test_every_measure_has_its_own():
    missing = set(registry.names("measure")) - set(registry.names("finds"))
    assert not missing, f"no findings: {missing}"


def test_a_reading_of_no_measure_says_its_numbers_and_no_identifiers():
    frame = pd.DataFrame({"sample": [0, 1, 2], "label": [3, 4, 5], "height": [1.0, 2.0, 4.0]})
    found = findings(Reading("some_other", frame))
    assert [f.value for f in found] == ["2"]
    assert "height" in found[0].text
    assert list(Reading("some_other", frame).summary()["column"]) == ["height"]
    assert [n.name for n in numbers(Reading("some_other", frame))] == ["median height"]


def test_an_empty_reading_says_so():
    assert "Nothing" in findings(Reading("reset", pd.DataFrame()))[0].text


def test_classes_change_within_a_piece_too():
    """A network of one piece, between two of whose middles nothing changes."""
    layer = torch.nn.Linear(1, 3)
    with torch.no_grad():  # the largest: class 0 up to 0.25, class 1 up to 0.75, class 2
        layer.weight[:] = torch.tensor([[0.0], [4.0], [8.0]])
        layer.bias[:] = torch.tensor([0.0, -1.0, -4.0])
    found = ig.segments(layer, torch.zeros(1, 1), torch.ones(1, 1))
    assert len(found) == 1
    assert found.classes()["class"].tolist() == [0, 1, 2]
    assert np.allclose(found.classes()["end"], [0.25, 0.75, 1])
    assert "changes twice" in findings(found)[0].text
    assert {n.name: n.value for n in numbers(found)}["the changes of class on the line"] == 2


@pytest.mark.parametrize("outputs", [1, 2, 3, 7])
@pytest.mark.parametrize("hidden", [0, 3, 20])
def test_stretches_of_classes_are_the_networks_own(outputs, hidden):
    with torch.random.fork_rng():
        torch.manual_seed(outputs + hidden)
        parts = [torch.nn.Linear(4, hidden), torch.nn.ReLU()] if hidden else []
        net = torch.nn.Sequential(*parts, torch.nn.Linear(hidden or 4, outputs)).double()
        ends = 3 * torch.randn(2, 4, dtype=torch.float64)
    found = ig.segments(net, ends[:1], ends[1:]).classes()
    start, end, k = found["start"].to_numpy(), found["end"].to_numpy(), found["class"].to_numpy()
    assert start[0] == 0
    assert end[-1] == 1
    assert (start[1:] == end[:-1]).all()
    assert (k[1:] != k[:-1]).all()
    t = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    z = net(ends[0] + t[:, None] * (ends[1] - ends[0])).detach().numpy()
    own = (z[:, 0] > 0).astype(int) if outputs == 1 else z.argmax(1)
    away = np.abs(t.numpy()[:, None] - end).min(1) > 1e-9
    assert (own == k[np.searchsorted(end, t.numpy())])[away].all()


def test_what_is_not_complete_is_not_said_to_be_all():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 30), torch.nn.ReLU(), torch.nn.Linear(30, 30), torch.nn.ReLU(),
        torch.nn.Linear(30, 4),
    )  # fmt: skip
    plane = ig.Slice.box2d((-3, -3), (3, 3))
    with pytest.warns(IncompleteWarning):
        p = ig.partition(net, plane, max_regions=100)
    with pytest.warns(IncompleteWarning):
        b = ig.boundary(net, plane, max_pieces=5)
    assert numbers(p) == []
    assert numbers(b) == []
    said = " ".join(f.text for f in findings(p))
    assert "not cut to the end" in said
    assert "share the slice" not in said
    assert "The whole slice" not in said
    said = " ".join(f.text for f in findings(b))
    assert "What was traced of the boundary on the slice is" in said
    assert "The decision boundary on the slice is" not in said
    none = dataclasses.replace(b, table=b.table.iloc[:0])
    assert "is not known" in findings(none)[0].text
    whole = ig.boundary(net, plane)
    assert "The decision boundary on the slice is" in " ".join(f.text for f in findings(whole))
    assert len(numbers(whole)) == 3
