from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isogon as ig
from isogon.errors import DataError, ModelError, OptionError
from isogon.measures.manifold.integrability import integrability
from isogon.measures.manifold.tangent import tangent
from isogon.measures.manifold.walk import walk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import slow_fisher
from nearly import assert_nearly

D, C = 12, 4


def net(act=nn.Tanh, seed=0, classes=C):
    torch.manual_seed(seed)
    layers = [nn.Linear(D, 10), act(), nn.Linear(10, 8), act(), nn.Linear(8, classes)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def points(generator):
    return torch.rand(5, D, generator=generator, dtype=torch.float64)


def slow_walk(model, x, target, kernel, step, steps, clamp):
    path = [x]
    for _ in range(steps):
        u = target - x
        part = slow_fisher.projection(model, x, u)
        u = u - part if kernel else part
        x = (x + step * u / u.norm()).clamp(*clamp)
        path.append(x)
    return torch.stack(path)


@pytest.mark.parametrize("along", ["leaf", "kernel"])
def test_is_the_slow_twin(points, along):
    model = net()
    path = walk(model, points, toward=points.roll(1, 0), along=along, steps=7, step=0.05, stop=0.0,
                clamp=(0.1, 0.8))  # fmt: skip
    for i in range(5):
        slow = slow_walk(
            model, points[i], points.roll(1, 0)[i], along == "kernel", 0.05, 7, (0.1, 0.8)
        )
        assert np.allclose(path.arrays["end"][i], slow[-1], atol=1e-11)
        rows = path.table[path.table["walk"] == i]
        moved = (slow[1:] - slow[:-1]).norm(dim=1).cumsum(0)
        assert np.allclose(rows["travelled"][1:], moved, atol=1e-11)
        assert np.allclose(rows["distance"], (points.roll(1, 0)[i] - slow).norm(dim=1))
    frames = path.arrays["frame_step"][path.arrays["frame_walk"] == 0]
    assert frames.tolist() == list(range(8))


def test_columns_and_start_row(points):
    table = walk(net(), points, along="kernel", steps=3).to_frame()
    assert list(table)[:7] == [
        "walk", "step", "distance", "travelled", "probability", "prediction", "drift",
    ]  # fmt: skip
    assert table["distance"].isna().all()
    first = table[table["step"] == 0]
    assert (first[["travelled", "drift", "departure", "divergence"]] == 0).all(axis=None)
    p = torch.softmax(net()(points), 1).max(1)
    assert np.allclose(first["probability"], p.values.detach())
    assert (first["prediction"] == p.indices.numpy()).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU]))
def test_projection_splits_a_vector(seed, act):
    model, g = net(act, seed), torch.Generator().manual_seed(seed)
    x, v = (torch.randn(3, D, generator=g, dtype=torch.float64) for _ in range(2))
    t = tangent(model, x)
    part = t.project(v)
    for i in range(3):
        assert torch.allclose(part[i], slow_fisher.projection(model, x[i], v[i]), atol=1e-10)
        # nothing of the rest changes the prediction to first order
        assert (t.rows[i] @ (v - part)[i]).abs().max() <= 1e-12 * t.rows[i].norm() * v.norm()
    assert torch.allclose(t.project(part), part, atol=1e-12)


def test_rank_deficient_models_have_smaller_leaves(points):
    model = net(classes=9)
    model[2] = nn.Linear(10, 2).double()
    model[4] = nn.Linear(2, 9).double()
    for dtype in (torch.float64, torch.float32):
        assert tangent(model.to(dtype), points.to(dtype)).rank.tolist() == [2] * 5
    dead = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    nn.init.constant_(dead[0].bias, -100.0)
    path = walk(dead, points, along="leaf", steps=4, stop=0.0)
    assert path.meta["ended"] == ["stuck"] * 5
    assert walk(dead, points, along="kernel", steps=4).meta["ended"] == ["steps"] * 5


def test_kernel_of_a_linear_model_keeps_the_prediction(points):
    model = nn.Sequential(nn.Linear(D, C)).double()
    kernel = walk(model, points, along="kernel", steps=50, step=1.0).table
    assert kernel["divergence"].max() < 1e-14
    assert kernel["departure"].max() < 1e-12
    leaf = walk(model, points, along="leaf", steps=50, step=1.0).table
    assert leaf["divergence"].max() > 1e-2


def test_drift_is_what_clamping_moved_off(points):
    model = net()
    v = torch.ones(D, dtype=torch.float64)
    path = walk(model, points[:1], direction=v, steps=1, step=2.0, clamp=(0.0, 1.0))
    part = slow_fisher.projection(model, points[0], v)
    free = points[0] + 2.0 * part / part.norm()
    moved = free.clamp(0, 1) - free
    off = moved - slow_fisher.projection(model, points[0], moved)
    assert path.table["drift"][1] == pytest.approx(float(off.norm()), rel=1e-9)
    assert walk(model, points[:1], direction=v, steps=1).table["drift"].eq(0).all()


def test_projecting_back_lowers_the_drift(points):
    model, options = net(), {"along": "kernel", "steps": 20, "step": 0.1, "clamp": (0, 1)}
    plain, back = (walk(model, points, **options, reproject=k).table for k in (0, 30))
    assert back["drift"].sum() < 0.1 * plain["drift"].sum()
    assert back["divergence"].max() < plain["divergence"].max()


def test_walks_do_not_depend_on_each_other(points):
    model, targets = net(), points.flip(0)
    batch = walk(model, points, toward=targets, steps=20, stop=0.6)
    assert len(set(batch.table.groupby("walk")["step"].max())) > 1  # they end at different steps
    for i in range(5):
        one = walk(model, points[i], toward=targets[i], steps=20, stop=0.6)
        mine = batch.table[batch.table["walk"] == i].drop(columns="walk").to_numpy()
        assert np.allclose(one.table.drop(columns="walk").to_numpy(), mine, atol=1e-12)


def test_rules_that_end_a_walk(points):
    model = net()
    near = walk(model, points, toward=points + 0.01, stop=1.0, steps=9)
    assert near.meta["ended"] == ["distance"] * 5
    assert len(near) == 5
    assert walk(model, points, steps=0).meta["ended"] == ["steps"] * 5
    swing = walk(model, points, toward=points.roll(1, 0), steps=400, step=0.1, stop=0, patience=9)
    assert swing.meta["ended"] == ["patience"] * 5
    for _, part in swing.table.groupby("walk"):
        distance = part["distance"].to_numpy()
        assert distance[-9:].min() > distance[:-9].min() - 0.001
    away = torch.randn(5, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fall = walk(model, points, direction=away, steps=200, min_probability=0.28)
    last = fall.table.groupby("walk").last()["probability"]
    assert "probability" in fall.meta["ended"]
    for reason, p in zip(fall.meta["ended"], last, strict=True):
        assert (reason == "probability") == (p < 0.28)


def test_noise_moves_the_starts_in_the_kernel(points, tmp_path):
    model, toward = net(), points.roll(1, 0)
    options = {"step": 0.05, "clamp": (0, 1)}
    noise = walk(model, points, along="kernel", steps=9, reproject=10, seed=3, **options)
    path = walk(model, points, toward=toward, noise=9, steps=6, stop=0.0, seed=3, **options)
    assert np.array_equal(path.arrays["image"], points)
    assert np.array_equal(path.arrays["start"], noise.arrays["end"])
    plain = walk(model, torch.from_numpy(noise.arrays["end"]), toward=toward, steps=6, stop=0.0,
                 **options)  # fmt: skip
    assert np.array_equal(path.arrays["end"], plain.arrays["end"])
    added = path.arrays["start"] - points.numpy()
    for i in range(5):
        moved = path.arrays["end"][i] - points[i].numpy()
        share = moved @ added[i] / (added[i] @ added[i])
        assert path.arrays["noise_kept"][i] == pytest.approx(share, abs=1e-12)
        assert path.meta["summary"]["noise_kept"][i] == path.arrays["noise_kept"][i]
    assert "noise_kept" not in plain.arrays
    path.save(tmp_path)
    both = walk(model, ig.read(tmp_path), steps=8, stop=0.0)
    assert np.array_equal(both.arrays["image"], points)
    whole = walk(model, points, toward=toward, noise=9, steps=8, stop=0.0, seed=3, **options)
    assert np.allclose(both.arrays["noise_kept"], whole.arrays["noise_kept"], rtol=0, atol=1e-12)


def test_a_linear_model_keeps_all_noise_on_its_leaf(points):
    torch.manual_seed(0)
    model = nn.Linear(D, C).double()  # kernel and leaf are the same everywhere, and orthogonal
    path = walk(model, points, toward=points.roll(1, 0), noise=9, steps=20, step=0.05, stop=0.0)
    assert np.allclose(path.arrays["noise_kept"], 1, atol=1e-12)
    bent = walk(net(), points, toward=points.roll(1, 0), noise=9, steps=20, step=0.05, stop=0.0)
    assert abs(bent.arrays["noise_kept"] - 1).max() > 1e-3


@pytest.mark.parametrize("control", ["fixed", "adaptive"])
def test_a_long_walk_can_be_continued(points, tmp_path, control):
    options = {"toward": points.flip(0), "step": 0.02, "frames": 4, "stop": 0.3,
               "control": control, "tolerance": 1e-4, "clamp": (0, 1)}  # fmt: skip
    whole = walk(net(), points, steps=40, **options)
    walk(net(), points, steps=13, **options).save(tmp_path)
    more = walk(net(), ig.read(tmp_path), steps=40, stop=0.3, patience=0)
    # walks that have ended are left out of the batch, so the others are computed in products of
    # other shapes: 40 steps of float64 rounding, each stretched by what a step stretches
    assert_nearly(more, whole, rtol=1e-9, atol=1e-11)
    kept = np.bincount(more.arrays["frame_walk"])
    assert kept.max() <= 2 * 4 + 2
    with pytest.raises(OptionError, match="continued"):
        walk(net(), integrability_as_path())


def integrability_as_path():
    from isogon.readings import Path as PathReading

    return PathReading("other")


def test_adaptive_steps_keep_to_the_leaf(points):
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(3.0)
    away = torch.randn(5, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"direction": away, "steps": 30, "step": 0.5}
    fixed = walk(model, points, **options)
    adaptive = walk(model, points, **options, control="adaptive", tolerance=5e-3)
    assert fixed.table["departure"].max() > 1e-2
    assert adaptive.table["departure"].max() <= 5e-3
    assert adaptive.table.groupby("walk")["travelled"].max().min() > 0


def test_batch_norm_in_training_mode_is_left_alone(generator):
    from isogon import nets

    torch.manual_seed(0)
    model = nets.build("cifar_vgg11_bn").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.rand(2, 3, 32, 32, generator=generator)
    path = walk(model, x[:1], toward=x[1:], steps=2, clamp=(0, 1))
    assert path.summary()["steps"].tolist() == [2]
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_float32_is_close_to_float64(points):
    exact = walk(net(), points, along="kernel", steps=30)
    single = walk(net().float(), points.float(), along="kernel", steps=30)
    assert single.arrays["frames"].dtype == np.float32
    assert np.allclose(exact.arrays["end"], single.arrays["end"], atol=1e-4)


def test_refusals(points):
    model = net()
    for options, says in (
        ({"step": 0.0}, "step"), ({"steps": -1}, "steps"), ({"along": "tangent"}, "along"),
        ({"control": "best"}, "control"), ({"clamp": (1, 0)}, "domain"),
        ({"toward": points, "direction": points}, "target or a direction"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=says):
            walk(model, points, **options)
    for start, options in (
        (points[:, :3], {}), (points[:0], {}), (points, {"toward": points[:2]}),
        (points, {"direction": points * float("nan")}), (points.long(), {}),
    ):  # fmt: skip
        with pytest.raises(DataError):
            walk(model, start, **options)


# --------------------------------------------------------------------------- integrability


def slow_residual(model, x):
    """Every bracket from explicit Hessians, one sample."""

    def f(flat, k):
        return model(flat[None])[0, k]

    count = model(x[None]).shape[1]
    g = [torch.autograd.functional.jacobian(lambda a, k=k: f(a, k), x) for k in range(count)]
    h = [torch.autograd.functional.hessian(lambda a, k=k: f(a, k), x) for k in range(count)]
    worst = 0.0
    for r in range(count):
        for i in range(count):
            for j in range(i + 1, count):
                if r not in (i, j):
                    b = (h[j] - h[r]) @ (g[i] - g[r]) - (h[i] - h[r]) @ (g[j] - g[r])
                    off = b - slow_fisher.projection(model, x, b)
                    worst = max(worst, float(off.norm() / b.norm()))
    return worst


def test_integrability_is_its_slow_twin(points):
    model = net(nn.Tanh)
    table = integrability(model, [(points, torch.arange(5))]).to_frame()
    want = [slow_residual(model, x) for x in points]
    assert np.allclose(table["residual"], want, rtol=1e-9)
    assert (table["residual"] > 1e-3).all()


@pytest.mark.parametrize("power", [-125, -60, 40])
def test_integrability_knows_no_unit_of_the_logits(points, power):
    """Brackets of logits of size 1e-38 are less than any float32; the residual is the same."""
    model = net(nn.Tanh).float()
    batches = [(points.float(), torch.arange(5))]
    want = integrability(model, batches).to_frame()
    model[-1].weight.data *= 2.0**power
    model[-1].bias.data *= 2.0**power
    found = integrability(model, batches).to_frame()
    assert np.allclose(found["residual"], want["residual"], rtol=1e-2)
    assert (want["residual"] > 1e-3).all()


def test_integrability_inside_linear_regions(points):
    table = integrability(net(nn.ReLU), [(points, torch.arange(5))]).to_frame()
    assert (table["residual"] == 0).all()
    linear = integrability(nn.Linear(D, C), [(points.float(), torch.arange(5))]).to_frame()
    assert (linear["residual"] == 0).all()


def test_functions_of_few_coordinates_are_integrable(points):
    """f = h(Ax) with A [C-1, d] of full rank: the span is that of A's rows, the same everywhere."""
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(C - 1, 8), nn.Tanh(), nn.Linear(8, C))
    model = nn.Sequential(nn.Linear(D, C - 1), head).double()
    table = integrability(model, [(points, torch.arange(5))]).to_frame()
    assert (table["bracket"] > 0).any()
    assert table["residual"].max() < 1e-8


def test_integrability_refuses_what_is_trivial(points):
    with pytest.raises(ModelError, match="3 classes"):
        integrability(net(classes=2), [(points, torch.arange(5))])
    with pytest.raises(DataError):
        integrability(net(), [])


def test_a_map_for_an_output_is_said_of_the_output():
    net = torch.nn.Conv2d(1, 2, 3)
    x = torch.rand(2, 1, 5, 5)
    with pytest.raises(
        ModelError, match=r"one row of logits per sample: got output \[1, 2, 3, 3\]"
    ):
        ig.walk(net, x, direction=x, steps=1)
