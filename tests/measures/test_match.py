"""Matching: planted elements come back, the image has b's function, differences are refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import ModelError, OptionError
from isogon.measures.alignment.matching import tensors
from isogon.measures.alignment.symmetry.assignment import Assignment
from isogon.measures.alignment.symmetry.symmetries import symmetries
from isogon.measures.alignment.symmetry.terms import balance, balanced, terms
from isogon.nets.tap import tap
from reference.planted import KINDS, Plants, Unanchored, planted, recovered
from reference.slow_match import best_of_all, objective, scale_by_search

NOISES = (0.0, 0.1, 0.3)


def gap(a, b, x):
    with torch.no_grad():
        y, z = a(x), b(x)
    return float((y - z).abs().max() / y.abs().max())


def check_plant(plants, seed, noise):
    element = plants.fill(seed, noise)
    x = torch.randn(1, *KINDS[plants.kind][1], dtype=torch.float64)
    found = ig.match(plants.a, plants.b, example=x)
    assert plants.undone(found, element), (plants.kind, seed, noise)
    assert found.meta["error"] < 1e-9
    if not noise:
        assert found.objective < 1e-6
    return found


SIGNED = ("mlp tanh", "mlp sin", "mlp abs", "mlp cos", "mlp square", "mlp cube")


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("resnet20", "vgg")])
def test_planted_elements_come_back(kind):
    """Orders, signs and sizes; five where there are signs."""
    plants = Plants(kind)
    for seed, noise in enumerate((*NOISES, 0.0, 0.3) if kind in SIGNED else NOISES):
        found = check_plant(plants, 100 + seed, noise)
        x = torch.randn(3, *KINDS[kind][1], dtype=torch.float64)
        assert gap(plants.b, found.apply(plants.b), x) < 1e-9


@pytest.mark.long
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_planted_elements_come_back(kind, noise):
    """Some minutes each for the convolutional networks at their full width."""
    plants = Plants(kind)
    for seed in range(100):
        check_plant(plants, seed, noise)


def test_ascent_from_b_as_it_is_gets_stuck_in_a_stream():
    """Off the hypothesis: without profiles the same ascent finds another optimum."""
    a, b, element = planted("residual 64", 100, 0.0, scales=0.0)
    found = symmetries(b, torch.zeros(2, 10, dtype=torch.float64))
    pairs = terms(found, tensors(a), tensors(b))
    scales = [balance([p.weight for p in pairs], [getattr(p, k) for p in pairs], found)
              for k in ("a", "b")]  # fmt: skip
    task = Assignment(found, balanced(pairs, *scales), np.random.default_rng(0))
    stuck = task.ascend(lambda: None)
    right = [(p[o] == np.arange(64)).all() for p, o in zip(element.order, task.order, strict=True)]
    assert not all(right)
    task.start()
    assert task.ascend(lambda: None) > 1.05 * stuck
    right = [(p[o] == np.arange(64)).all() for p, o in zip(element.order, task.order, strict=True)]
    assert all(right)


def test_pure_noise_is_not_recovered():
    """Off the hypothesis: where nothing of a is left in b, there is nothing to find."""
    a, _, element = planted("mlp", 0, 0.0)
    other, _, _ = planted("mlp", 1, 0.0)
    found = ig.match(a, other, example=torch.zeros(1, 10, dtype=torch.float64))
    assert not recovered(found, element)
    assert 0.5 < found.objective < found.meta["objective_before"]


def small(seed):
    spec = f"mlp(inputs=3, widths=[4, 3], classes=2, activation=gelu, seed={seed})"
    return ig.load(spec).double()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_permutations(seed):
    """Against every one of the 144 orders."""
    a, b = small(10 * seed), small(10 * seed + 1)
    least, _ = best_of_all(dict(a.state_dict()), dict(b.state_dict()), (4, 3))
    found = ig.match(a, b)
    mine = objective(dict(a.state_dict()), dict(found.apply(b).state_dict()))
    assert mine == pytest.approx(found.objective, rel=1e-9)
    assert mine == pytest.approx(least, rel=1e-9)


def test_scales_are_the_best_ones():
    torch.manual_seed(3)
    a = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    b = copy.deepcopy(a)
    first, second = tensors(a), tensors(b)
    for value in second.values():
        value.add_(0.2 * torch.randn_like(value))
    second["0.weight"][2] *= 40
    second["0.bias"][2] *= 40
    second["2.weight"][:, 2] /= 40
    found = ig.match(a, b)
    assert found.table["moved"].tolist() == [0]
    share = {k: 1 / float(v.square().mean().sqrt()) for k, v in first.items()}
    for k in range(5):
        made = tuple(
            torch.cat([n["0.weight"][k] * share["0.weight"], n["0.bias"][[k]] * share["0.bias"]])
            for n in (first, second)
        )
        read = tuple(n["2.weight"][:, k] * share["2.weight"] for n in (first, second))
        expected = scale_by_search(made, read)
        scale = float(found.elements["1"].matrix[k, k])
        assert scale == pytest.approx(expected, rel=1e-3)


def test_elements_act_on_activations():
    a, b, element = planted("resnet20", 5, 0.3)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = ig.match(a, b, example=x)
    assert recovered(found, element)
    twin = found.apply(b)
    sites = [s for s in ig.sites(b, "all", example=x) if s.name in found.elements]
    assert len(sites) == len(found.table)
    with torch.no_grad(), tap(b, sites) as read:
        _, before = read(x)
        before = {s.name: v.clone() for s, v in before.items()}
    with torch.no_grad(), tap(twin, sites) as read:
        _, after = read(x)
    for site, value in after.items():
        moved = found.elements[site.name](before[site.name])
        assert torch.allclose(moved, value, rtol=1e-9, atol=1e-9 * float(value.abs().max()))
    assert (found.table["moved"] > 0).all()


@pytest.mark.parametrize("kind", ["mlp abs", "mlp cos", "mlp cube"])
def test_elements_are_other_ones_behind_the_activation(kind):
    """``sigma(A x) = phi(A) sigma(x)``: signs are lost, sizes raised to a power."""
    plants = Plants(kind)
    element = plants.fill(3, 0.1, scales=1.0)
    x = torch.randn(5, 10, dtype=torch.float64)
    found = ig.match(plants.a, plants.b, example=x)
    assert plants.undone(found, element)
    twin = found.apply(plants.b)
    assert [name.split(":")[0] for name in found.elements] == ["1", "3", "5"]
    group = ig.group({"mlp abs": "G_abs", "mlp cos": "G_cos"}.get(kind, "G_monomial(degree=3)"))
    with torch.no_grad():
        for depth, moved in zip((1, 3, 5), found.elements.values(), strict=True):
            before, after = (net[: depth + 1](x) for net in (plants.b, twin))
            assert torch.allclose(moved(before), after, rtol=1e-9)
            front = plants.b[:depth](x)
            flips = (twin[:depth](x)[0] * front[0, moved.matrix.abs().argmax(1)]).sign()
            assert (flips < 0).any()
            assert (moved.matrix.sum(1) < 0).any() == (kind == "mlp cube")
            assert group.contains(moved)


@pytest.mark.parametrize("kind", ["mlp tanh", "mlp abs", "mlp cos"])
def test_signs_that_activations_do_not_tell_come_from_the_weights(kind):
    plants = Plants(kind)
    element = plants.fill(0, 0.05, scales=1.0)
    x = torch.randn(400, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ig.match(plants.a, plants.b, by="activations", batches=[(x, torch.zeros(400))])
    assert plants.undone(found, element)


def test_by_activations():
    a, b, element = planted("mlp", 0, 0.1)
    x = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = [(x[:600], torch.zeros(600)), (x[600:], torch.zeros(400))]
    found = ig.match(a, b, by="activations", batches=data)
    assert recovered(found, element)
    again = ig.match(a, b, by="activations", batches=[(x, torch.zeros(1000))])
    assert np.array_equal(found.arrays["order"], again.arrays["order"])
    with pytest.raises(OptionError, match="no batches"):
        ig.match(a, b, by="activations")


def test_signs_of_odd_activations_come_back():
    a, b, element = planted("mlp tanh", 3, 0.1)
    assert (element.scale < 0).any()
    found = ig.match(a, b)
    back = tensors(found.apply(b))
    for name, value in tensors(a).items():
        assert float((back[name] - value).norm() / value.norm()) < 0.15, name


def test_scales_in_front_of_batch_norm_cost_nothing_and_stay():
    torch.manual_seed(0)
    make = "mlp(inputs=6, width=8, depth=2, batch_norm=true)"
    a = ig.load(make).double()
    b = copy.deepcopy(a)
    with torch.no_grad():
        factor = torch.logspace(-1, 1, 8, dtype=torch.float64)
        b[1].weight.mul_(factor[:, None])
        b[1].bias.mul_(factor)
        b[2].running_mean.mul_(factor)
        b[2].running_var.mul_(factor**2)
    found = ig.match(a, b)
    assert found.objective < 1e-8
    assert found.table["moved"].sum() == 0
    assert torch.equal(found.apply(b)[1].weight, b[1].weight)


def test_a_match_comes_back_from_disk_and_is_applied(tmp_path):
    a, b, element = planted("mlp", 7, 0.1)
    found = ig.match(a, b)
    found.save(tmp_path / "m")
    back = ig.read(tmp_path / "m")
    assert back.equals(found)
    one, two = found.apply(b), back.apply(b)
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
    assert recovered(back, element)
    assert type(one) is type(b)
    assert list(one.state_dict()) == list(b.state_dict())
    with pytest.raises(ModelError, match="another architecture"):
        back.apply(ig.load("mlp(inputs=10, width=32, depth=3)"))


def test_a_match_of_an_earlier_version_is_applied_as_it_was_or_refused():
    """It did not say which scales are sizes and which are signs; these had another order."""

    def mixed(seed):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)]
        return nn.Sequential(*layers).double()

    a, b = mixed(0), mixed(1)
    found = ig.match(a, b)
    assert (found.arrays["scale"] < 0).any()
    held = {k: v for k, v in found.arrays.items() if k != "facts"}

    def before(scale):
        return type(found)("match", found.table, held | {"scale": scale}, meta=found.meta)

    x = torch.randn(5, 4, dtype=torch.float64)
    assert gap(b, before(held["scale"]).apply(b), x) < 1e-12
    scale = held["scale"]
    for other in (np.concatenate([scale[6:], scale[:6]]), scale[:6] * scale[6:]):
        with pytest.raises(ModelError, match=r"by an earlier version of isogon.*again"):
            before(other).apply(b)
    with pytest.raises(ModelError, match="another architecture"):
        found.apply(nn.Sequential(*(nn.ReLU() if k == 1 else m for k, m in enumerate(b))))


def test_a_model_matches_itself_and_tied_weights_stay_tied():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(8, 3))
    net[4].weight = net[2].weight
    found = ig.match(net, net)
    assert found.objective == pytest.approx(0, abs=1e-12)
    assert found.table["moved"].sum() == 0
    twin = found.apply(net)
    assert twin[4].weight is twin[2].weight
    assert twin[4].weight is not net[4].weight


def test_other_architectures_are_refused_by_the_first_difference():
    a = ig.load("mlp(inputs=6, width=8)")
    for other, says in {
        "mlp(inputs=6, width=9)": r"1\.weight: \[8, 6\] in a, \[9, 6\] in b",
        "mlp(inputs=6, width=8, depth=3)": r"5\.weight: \[10, 8\] in a, \[8, 8\] in b",
        "mlp(inputs=6, width=8, bias=false)": r"1\.bias: \[8\] in a, no such tensor in b",
        "mlp(inputs=6, width=8, activation=tanh)": r"2: relu.* in a, tanh.* in b",
    }.items():
        with pytest.raises(ModelError, match=says):
            ig.match(a, ig.load(other))
    with pytest.raises(ModelError, match="no weight symmetries"):
        ig.match(nn.Linear(3, 2), nn.Linear(3, 2))


def test_an_image_with_another_function_is_never_returned():
    """Units beside their mirror images: which of two places is which, the labels do not tell."""

    class Mirrored(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.a, self.b = nn.Linear(5, 6), nn.Linear(12, 2)

        def forward(self, x):
            h = self.a(x).relu()
            return self.b(torch.stack([h, 2 * h.flip(1)], 2).flatten(1))

    with pytest.raises(ModelError, match="another function: its graph does not tell"):
        ig.match(Mirrored(0), Mirrored(1), example=torch.zeros(1, 5))


def test_inputs_of_unknown_shape_are_asked_for():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(x[:, :3] * x[:, 3:6]).relu())

    with pytest.raises(OptionError, match="the shape of an input is not known"):
        ig.match(Wide(), Wide())
    assert len(ig.match(Wide(), Wide(), example=torch.zeros(1, 6)).table) == 1


def test_float32_images_are_within_rounding():
    a, b = Unanchored(12, 9), Unanchored(12, 9)
    found = ig.match(a, b, example=torch.randn(4, 5))
    assert found.meta["error_float64"] < 1e-9
    assert found.meta["error"] < 1e-5
    assert found.apply(b).blocks[0].a.weight.dtype == torch.float32
