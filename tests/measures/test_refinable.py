"""Sets of maps that stitches are trained in: theorems about their steps, and literal twins."""

from __future__ import annotations

import pytest
import torch

import reference.slow_polytope as slow
from isogon.measures.stitching.maps import AffineMap, Assignment
from isogon.measures.stitching.methods import stitch
from isogon.measures.stitching.refine import polytope, refinable
from isogon.measures.stitching.refine.relaxed import Birkhoff, Turns, Wreath, softsort
from isogon.stats import CrossMoments

BOTH = Turns(share=1.0)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def inside(n, seed=0):
    """A doubly stochastic matrix."""
    return polytope.sinkhorn(normal(n, n, seed=seed))


def off(p):
    """How far rows and columns are from sums of 1, and entries below 0."""
    sums = torch.cat([p.sum(0), p.sum(1)])
    return max(float((sums - 1).abs().max()), float(-p.min()))


def descend(mapping, x, y, steps=300, lr=1e-2):
    """Train a map on the squared error of all samples."""
    for k in range(steps):
        for p in mapping.parameters():
            p.grad = None
        loss = (mapping(x) - y).square().sum() / len(x) + mapping.cost()
        loss.backward()
        mapping.update(k, steps, lr, 1 - k / steps)
    return mapping


def birkhoff(order, turns=BOTH, **options):
    given = {"rate": 0.05, "strength": 0.0, "by": "tangent", "rounding": "hungarian"}
    given |= {"softness": 0.3, "generator": torch.Generator().manual_seed(0), **options}
    return Birkhoff(Assignment(torch.as_tensor(order)), turns, **given)


# ------------------------------------------------------------------------ the polytope


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tangent_is_the_projection_by_the_constraints_spelled_out(n):
    g = normal(n, n)
    assert torch.allclose(polytope.tangent(g), slow.tangent(g), atol=1e-12)
    twice = polytope.tangent(polytope.tangent(g))
    assert torch.allclose(twice, polytope.tangent(g), atol=1e-12)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_nearest_doubly_stochastic_matrix(n):
    """No vertex lies on the outer side: ``<Y - P, V - P> <= 0``; Dykstra finds the same."""
    y = inside(n) + normal(n, n, seed=1)
    assert off(polytope.nearest(y)) < 1e-12
    p = polytope.nearest(y, 5000)
    assert off(p) < 1e-12
    order = polytope.hungarian(y - p)  # the worst vertex
    assert ((y - p) * (polytope.permutation_matrix(order) - p)).sum() < 1e-7
    assert torch.allclose(p, slow.nearest(y), atol=1e-6)
    assert torch.allclose(polytope.nearest(y), p, atol=1e-3), "in few rounds, nearly"
    assert torch.allclose(polytope.nearest(p), p, atol=1e-7)
    other = inside(n, 3)
    worst = polytope.permutation_matrix(polytope.hungarian(y - other))
    assert ((y - other) * (worst - other)).sum() > 1e-3, "the test tells others apart"


@pytest.mark.parametrize("step", [polytope.tangent_step, polytope.mirror_step])
def test_steps_stay_on_the_polytope_and_find_the_assignment(step):
    n, gradient = 12, normal(12, 12, seed=2)
    p, values = torch.full((n, n), 1 / n, dtype=torch.float64), []
    length = 0.2 if step is polytope.tangent_step else 1.0
    for _ in range(120):
        p = step(p, gradient, length)
        assert off(p) < 1e-12
        values.append(float((p * gradient).sum()))
    best = polytope.hungarian(-gradient)
    assert polytope.hungarian(p).equal(best)
    assert values[-1] == pytest.approx(float(gradient[torch.arange(n), best].sum()), abs=0.05)
    assert (torch.tensor(values).diff() < 1e-6).all()
    assert step(p, torch.ones(n, n, dtype=torch.float64), length).equal(p), "nothing to go down"


@pytest.mark.parametrize("round_off", ["hungarian", "monotone"])
def test_roundings_are_permutations_and_keep_permutations(round_off, generator):
    def rounded(p):
        if round_off == "hungarian":
            return polytope.hungarian(p)
        return polytope.monotone(p, generator)

    for seed in range(5):
        order = torch.randperm(9, generator=generator)
        assert rounded(polytope.permutation_matrix(order)).equal(order)
        assert rounded(inside(9, seed)).sort().values.equal(torch.arange(9))
    near = 0.9 * polytope.permutation_matrix(order) + 0.1 * inside(9)
    assert polytope.hungarian(near).equal(order)


def test_monotone_rounding_is_at_random():
    p = inside(9)
    orders = {tuple(polytope.monotone(p, torch.Generator().manual_seed(s), 1)) for s in range(9)}
    assert len(orders) > 3
    many = polytope.monotone(p, torch.Generator().manual_seed(0), 200)
    one = polytope.monotone(p, torch.Generator().manual_seed(0), 1)
    value = lambda order: p[torch.arange(9), order].sum()  # noqa: E731
    assert value(one) < value(many) <= value(polytope.hungarian(p))


# ------------------------------------------------------------------------ relaxed permutations


@pytest.mark.parametrize("by", ["tangent", "mirror"])
def test_birkhoff_finds_a_planted_permutation_and_its_scales(by):
    x = normal(200, 6).relu()
    order, scale = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([1.0, 2, 0.5, 1, 3, 1]).double()
    y = x[:, order] * scale
    found = birkhoff(torch.arange(6), by=by, rate=0.03 if by == "tangent" else 1.0)
    settled = descend(found, x, y).settled()
    assert settled.order.equal(order)
    assert torch.allclose(settled.scale, scale, rtol=0.05)
    assert off(found.matrix.detach()) < 1e-6
    wrong = descend(birkhoff(torch.arange(6), by=by), x, -y).settled()
    assert (wrong(x) + y).square().mean() > 0.5 * y.square().mean(), "positive scales can't"


def test_the_extra_term_draws_to_vertices():
    sizes = []
    for strength in (0.0, 20.0):
        found = birkhoff(range(5), strength=strength, softness=0.6, rounding="relaxed")
        found = descend(found, normal(50, 5), normal(50, 5, seed=1))
        sizes.append(float(found.matrix.detach().square().sum()))
    assert sizes[0] < 4.5
    assert sizes[1] == pytest.approx(5, abs=1e-3)
    cost = birkhoff(range(4), strength=3.0, softness=0.0).cost()
    assert float(cost) == -3.0


def test_softsort_by_definition_and_in_the_limit():
    s = torch.tensor([0.3, 2.0, -1.0, 1.0], dtype=torch.float64)
    down = s.sort(descending=True).values
    for i in range(4):
        row = torch.stack([(-(down[i] - s[j]).abs() / 0.7).exp() for j in range(4)])
        assert torch.allclose(softsort(s, 0.7)[i], row / row.sum())
    assert torch.allclose(
        softsort(s, 1e-3), polytope.permutation_matrix(torch.tensor([1, 3, 0, 2]))
    )


def test_wreath_recovers_neighbours_that_were_exchanged_and_their_scales():
    x = normal(300, 6).relu()
    order = torch.tensor([4, 1, 0, 3, 5, 2])
    scale = torch.tensor([1.0, 0.5, 2, 1, 1, 1.5]).double()
    y = x[:, order] * scale
    start = order[[0, 2, 1, 3, 5, 4]]
    found = Wreath(Assignment(start), BOTH, rate=0.05, temperature=0.5)
    assert found.settled().order.equal(start)
    settled = descend(found, x, y, steps=400, lr=3e-3).settled()
    assert settled.order.equal(order)
    assert torch.allclose(settled(x), settled.scale * x[:, order])
    found.fixed = True
    assert torch.allclose(found(x), settled(x)), "what is trained is what it settles on"
    descend(found, x, y)
    assert torch.allclose(found.settled().scale, scale, rtol=1e-2)


def test_what_is_trained_when():
    x, y = normal(60, 4), normal(60, 4, seed=1)

    def trace(turns):
        mapping, seen = birkhoff([0, 1, 2, 3], turns), []
        last = mapping.matrix.detach().clone(), mapping.log.detach().clone()
        for k in range(8):
            loss = (mapping(x) - y).square().mean()
            live = [p for p in mapping.parameters() if p.requires_grad]
            for p, g in zip(live, torch.autograd.grad(loss, live)):
                p.grad = g
            mapping.update(k, 8, 1e-2, 1.0)
            now = mapping.matrix.detach().clone(), mapping.log.detach().clone()
            seen.append("".join(n for n, a, b in zip("ps", last, now) if not a.equal(b)))
            last = now
        return seen, mapping

    both, mapping = trace(Turns(share=0.5))
    assert both[:3] == ["ps"] * 3
    assert both[4:] == ["s"] * 4
    assert mapping.matrix.detach().equal(polytope.permutation_matrix(mapping.rounded()))
    assert trace(Turns(hold=2, share=1))[0][:3] == ["p", "p", "ps"]
    assert trace(Turns(alternate=2, share=1))[0][:7] == ["p", "p", "s", "s", "p", "p", "s"]
    assert trace(Turns(scaled=False, share=1))[0][:7] == ["p"] * 7


# ------------------------------------------------------------------------ sets of matrices


def test_the_proximal_step_is_the_soft_threshold():
    """``argmin_u (u - w)^2 / 2 + t |u|``, by search."""
    w = normal(7)
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    for t in (0.0, 0.3, 2.0):
        best = grid[((grid - w[:, None]).square() / 2 + t * grid.abs()).argmin(1)]
        assert torch.allclose(refinable.soft(w, t), best, atol=1e-4)


def test_lasso_settles_where_the_lasso_does():
    """``gradient = -strength sign(W)`` where W is not 0, ``|gradient| <= strength`` where it is."""
    x = normal(400, 5)
    y = x @ normal(3, 5, seed=1).T + 0.1 * normal(400, 3, seed=2)
    strength = 1.5
    start = AffineMap(torch.linalg.lstsq(x, y).solution.T)
    lasso = descend(refinable.Lasso(start, strength), x, y, steps=4000)
    w = lasso.settled().weight.detach().requires_grad_()
    ((x @ w.T - y).square().sum() / len(x)).backward()
    zero = w == 0
    assert 0 < zero.sum() < 15
    assert (w.grad[zero].abs() <= strength * 1.02).all()
    assert torch.allclose(w.grad[~zero], -strength * w[~zero].sign(), rtol=0.03)
    assert lasso.penalty() == pytest.approx(strength * float(w.detach().abs().sum()))
    nothing = descend(refinable.Lasso(start, 1e6), x, y, steps=5).settled()
    assert (nothing.weight == 0).all()
    assert (descend(refinable.Lasso(start, 0.0), x, y, steps=5).settled().weight != 0).all()


def test_every_set_is_left_by_no_step():
    x, y = normal(80, 4), normal(80, 4, seed=1)
    start = AffineMap(normal(4, 4, seed=2), normal(4, seed=3))
    turned = refinable.Rotation(AffineMap(torch.linalg.qr(start.weight.detach())[0]))
    w = descend(turned, x, y, steps=20).settled().weight
    assert torch.allclose(w @ w.T, (w @ w.T)[0, 0] * torch.eye(4).double(), atol=1e-9)
    assert not torch.allclose(w, turned.inner.weight.new_tensor(0.0))
    low = descend(refinable.LowRank(start, 2), x, y, steps=20).settled()
    assert torch.linalg.matrix_rank(low.weight) == 2
    element = Assignment(torch.tensor([2, 0, -1, 1]), torch.tensor([1.0, 2, 0, 3]))
    scaled = descend(refinable.Scales(element), x, y, steps=20).settled()
    assert scaled.order.equal(element.order)
    assert (scaled.scale[[0, 1, 3]] > 0).all()
    assert scaled.scale[2] == 0
    assert not torch.allclose(scaled.scale, element.scale)
    assert element.scale.tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize(
    "spec", ["linear", "low_rank(3)", "orthogonal", "G_relu", "lasso", "birkhoff", "wreath"]
)
def test_training_starts_from_the_closed_form(spec):
    """Exactly the fitted map, but for what is softened; on vectors as on maps."""
    x, y = normal(50, 5).relu(), normal(50, 5, seed=1).relu()
    given = stitch(spec)
    fitted = given.fit(CrossMoments().update(x, y).compute(), torch.Generator())
    assert given.train is not None
    begun = given.train(fitted, torch.Generator().manual_seed(0))
    assert torch.allclose(begun.settled()(x), fitted(x))
    maps = x.reshape(10, 5, 5).float()
    assert torch.allclose(begun.settled()(maps), fitted(maps), atol=1e-6)
    if spec not in ("birkhoff", "wreath"):
        assert torch.allclose(begun(x), fitted(x))
    assert torch.allclose(begun(maps)[:, :, 0], begun(maps[:, :, 0]), atol=1e-6)
