"""Numbers of peers that docs/coming-from.md quotes, beside ours on the same arrays.

Usage: python benchmarks/coming_from.py PEERS

PEERS is a folder on the path of which these lie (none is needed by isogon itself; what is missing
is left out): ``cka`` (pytorch-cka 1.1.3), ``torch_cka`` (0.21), ``repsim`` (ReSi), ``netrep``, and
``src/weight_matching.py`` of git re-basin with jax.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import math
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import isogon as ig


def features():
    """Two layers of 200 samples and 16 channels that share a common part, float64."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((200, 8))
    return tuple(
        np.maximum(common @ rng.standard_normal((8, 16)) + 0.5 * rng.standard_normal((200, 16)), 0)
        for _ in range(2)
    )


def noise():
    """20 samples of 200 channels on each side, which have nothing to do with each other."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((20, 200)), rng.standard_normal((20, 200))


def ours(x, y, metric):
    return float(ig.similarity(x, y, metric=metric).table["similarity"].iloc[0])


def single(x):
    return torch.from_numpy(x).float()


def shown(name, theirs, spec="", mine=None):
    try:
        value = f"{float(theirs()):.4f}"
    except (ArithmeticError, AssertionError, ValueError, RuntimeError) as error:
        value = f"{type(error).__name__}: {error}"[:60]
    right = "" if mine is None else f"{mine():.4f}"
    print(f"{name:58} {value:>14}   {right:>8} {spec}")


def pytorch_cka(x, y, u, v):
    from cka import cka_from_features  # type: ignore[import-not-found]

    def theirs(a, b):
        return cka_from_features([torch.as_tensor(a)], [torch.as_tensor(b)])[0, 0]

    a, b = single(x), single(y)
    shown("pytorch-cka", lambda: theirs(x, y), "cka", lambda: ours(x, y, "cka"))
    for k in (1e3, 1e4):
        shown(f"  float32, offset {k:g}, both", lambda k=k: theirs(a + k, b + k),
              "cka", lambda k=k: ours((a + k).numpy(), (b + k).numpy(), "cka"))  # fmt: skip
    shown("  float32, offset 1e4, one side", lambda: theirs(a + 1e4, b),
          "cka", lambda: ours((a + 1e4).numpy(), b.numpy(), "cka"))  # fmt: skip
    shown("  float32, a tenth of it, bias 10", lambda: theirs(0.1 * a + 10, 0.1 * b + 10),
          "cka", lambda: ours((0.1 * a + 10).numpy(), (0.1 * b + 10).numpy(), "cka"))  # fmt: skip
    shown("  float32, scale 1e15", lambda: theirs(a * 1e15, b),
          "cka", lambda: ours((a * 1e15).numpy(), b.numpy(), "cka"))  # fmt: skip
    values = [theirs(*np.random.default_rng(s).standard_normal((2, 20, 200))) for s in range(40)]
    mine = [ours(*np.random.default_rng(s).standard_normal((2, 20, 200)), "cka") for s in range(40)]
    shown("  nothing in common, mean of 40", lambda: np.mean(values), "cka", lambda: np.mean(mine))


class Stored(nn.Module):
    """Hands out rows of features by their number."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.tap = rows, nn.Identity()

    def forward(self, numbers):  # noqa: D102
        return self.tap(self.rows[numbers[:, 0].long()])


def torch_cka(x, y, u, v):
    from torch_cka import CKA  # type: ignore[import-not-found]

    def loader(count, size):
        data = torch.utils.data.TensorDataset(torch.arange(count)[:, None].float())
        return torch.utils.data.DataLoader(data, batch_size=size)

    def theirs(a, b, size=200):
        found = CKA(Stored(a), Stored(b), "a", "b", ["tap"], ["tap"])
        with contextlib.redirect_stderr(io.StringIO()):
            found.compare(loader(len(a), size))
        return found.export()["CKA"][0, 0]

    def mine(a, b, size):
        data = [(r, torch.zeros(len(r))) for (r,) in loader(len(a), size)]
        spec = "cka(minibatch=true)"
        found = ig.similarity(Stored(a), Stored(b), data, metric=spec, sites="tap")
        return float(found.table["similarity"].iloc[0])

    a, b = single(x), single(y)
    spec = "cka(minibatch=true)"
    shown("torch_cka, one batch", lambda: theirs(a, b), "cka", lambda: ours(x, y, "cka"))
    shown("  batches of 50", lambda: theirs(a, b, 50), spec, lambda: mine(a, b, 50))
    shown("  offset 100, identical", lambda: theirs(a + 100, a + 100), spec,
          lambda: mine(a + 100, a + 100, 50))  # fmt: skip
    shown("  offset 1000", lambda: theirs(a + 1000, b + 1000), spec,
          lambda: mine(a + 1000, b + 1000, 50))  # fmt: skip
    shown("  offset 1e4", lambda: theirs(a + 1e4, b + 1e4), spec,
          lambda: mine(a + 1e4, b + 1e4, 50))  # fmt: skip
    shown("  103 samples in batches of 50", lambda: theirs(a[:103], b[:103], 50), spec,
          lambda: mine(a[:103], b[:103], 50))  # fmt: skip


RESI = {
    "CKA": "cka(unbiased=false)",
    "OrthogonalProcrustesCenteredAndNormalized": "procrustes(center=true)",
    "OrthogonalAngularShapeMetricCentered": "procrustes(form=angular)",
    "ProcrustesSizeAndShapeDistance": "procrustes(form=size_and_shape, center=true)",
    "PermutationProcrustes": "procrustes(modulo=permutations, form=size_and_shape)",
    "SVCCA": "svcca",
    "PWCCA": "pwcca",
    "LinearRegression": "linear_regression",
    "HardCorrelationMatch": "hard_correlation",
    "SoftCorrelationMatch": "soft_correlation",
    "DistanceCorrelation": "distance_correlation",
    "EigenspaceOverlapScore": "eigenspace_overlap",
    "Gulp": "gulp(lam=0)",
    "JaccardSimilarity": "jaccard",
    "RankSimilarity": "rank_similarity",
    "SecondOrderCosineSimilarity": "second_order_cosine",
    "RSA": "rsa",
    "RSMNormDifference": "rsm_norm",
    "ConcentricityDifference": "concentricity",
    "MagnitudeDifference": "magnitude",
    "UniformityDifference": "uniformity",
}


def resi(x, y, u, v):
    measures = importlib.import_module("repsim.measures")

    def theirs(name, a, b):
        return getattr(measures, name)()(torch.from_numpy(a), torch.from_numpy(b.copy()), "nd")

    for name, spec in RESI.items():
        shown(f"ReSi {name}", lambda n=name: theirs(n, x, y), spec, lambda s=spec: ours(x, y, s))
    dead = x.copy()
    dead[:, 3] = 0
    for name in ("HardCorrelationMatch", "SoftCorrelationMatch", "PWCCA", "EigenspaceOverlapScore",
                 "LinearRegression", "Gulp"):  # fmt: skip
        shown(f"  one dead channel, identical: {name}", lambda n=name: theirs(n, dead, dead),
              RESI[name], lambda n=name: ours(dead, dead, RESI[n]))  # fmt: skip
    shown("  20 samples of 200 channels of noise: CKA", lambda: theirs("CKA", u, v), "cka",
          lambda: ours(u, v, "cka"))  # fmt: skip
    shown("  the same: LinearRegression", lambda: theirs("LinearRegression", u, v),
          "linear_regression(held_out=2)",
          lambda: ours(u, v, "linear_regression(held_out=2)"))  # fmt: skip
    shown("  offset 10 on y: PWCCA", lambda: theirs("PWCCA", x + 10, y + 10), "pwcca",
          lambda: ours(x + 10, y + 10, "pwcca"))  # fmt: skip


def netrep(x, y, u, v):
    metrics = importlib.import_module("netrep.metrics")
    shape = metrics.LinearMetric(alpha=1.0)
    size = metrics.LinearMetric(alpha=1.0, score_method="euclidean")
    whitened = metrics.LinearMetric(alpha=0.0)
    places = metrics.PermutationMetric()
    cka = metrics.LinearCKA()
    angular = "procrustes(form=angular)"
    shown("netrep LinearMetric(alpha=1)", lambda: shape.fit_score(x, y), angular,
          lambda: ours(x, y, angular))  # fmt: skip
    spec = "procrustes(form=size_and_shape, center=true)"
    shown("netrep ... score_method=euclidean", lambda: size.fit_score(x, y), spec,
          lambda: ours(x, y, spec))  # fmt: skip
    shown("netrep LinearMetric(alpha=0)", lambda: whitened.fit_score(x, y), "arccos of cca",
          lambda: math.acos(ours(x, y, "cca")))  # fmt: skip
    spec = "procrustes(modulo=permutations, form=angular)"
    shown("netrep PermutationMetric()", lambda: places.fit_score(x, y), spec,
          lambda: ours(x, y, spec))  # fmt: skip
    shown("netrep LinearCKA", lambda: cka.score(x, y), "arccos of cka(unbiased=false)",
          lambda: math.acos(ours(x, y, "cka(unbiased=false)")))  # fmt: skip
    shown("  noise: cosine of LinearCKA", lambda: math.cos(cka.score(u, v)), "cka",
          lambda: ours(u, v, "cka"))  # fmt: skip


class Block(nn.Module):
    """``x + B relu(A x)``."""

    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):  # noqa: D102
        return x + self.b(self.a(x).relu())


def stream(seed, blocks, width=64):
    torch.manual_seed(seed)
    body = [Block(width) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(10, width), *body, nn.Linear(width, 5))


def axes_of(blocks):
    """Which axes of which weights a permutation moves, in git re-basin's terms."""
    last = f"{blocks + 1}"
    axes = {"0.weight": ("P", None), "0.bias": ("P",)}
    axes |= {f"{last}.weight": (None, "P"), f"{last}.bias": (None,)}
    for k in range(1, blocks + 1):
        axes |= {f"{k}.a.weight": (f"Q{k}", "P"), f"{k}.a.bias": (f"Q{k}",)}
        axes |= {f"{k}.b.weight": ("P", f"Q{k}"), f"{k}.b.bias": ("P",)}
    return axes


def rebasin(*_):
    """20 permutations planted in a residual stream of 64 channels."""
    import jax  # type: ignore[import-not-found]

    module = types.ModuleType("utils")
    module.rngmix = lambda rng, x: jax.random.fold_in(rng, hash(x))  # type: ignore[attr-defined]
    sys.modules["utils"] = module
    matching = importlib.import_module("weight_matching")
    for blocks, noise in ((4, 0.0), (4, 0.3), (8, 0.0), (16, 0.0), (16, 0.3)):
        axes = axes_of(blocks)
        spec = matching.permutation_spec_from_axes_to_perm(axes)
        right = [0, 0]
        for seed in range(20):
            a = stream(seed, blocks)
            plain = copy.deepcopy(a)
            for value in plain.parameters():
                value.data += noise * value.std() * torch.randn_like(value)
            b = copy.deepcopy(plain)
            orders = {p: torch.randperm(64) for p in spec.perm_to_axes}
            for name, value in b.named_parameters():
                for axis, p in enumerate(axes[name]):
                    if p is not None:
                        value.data = value.data.index_select(axis, orders[p])
            arrays = [{n: v.detach().numpy() for n, v in m.named_parameters()} for m in (a, b)]
            perm = matching.weight_matching(jax.random.PRNGKey(seed), spec, *arrays, silent=True)
            theirs = {p: torch.tensor(np.asarray(perm[p])) for p in orders}
            sites = {"P": f"{blocks}:add#0"} | {
                f"Q{k}": f"{k}:relu#0" for k in range(1, blocks + 1)
            }
            found = ig.match(a, b).elements
            mine = {p: found[sites[p]].matrix.argmax(1) for p in orders}
            for k, side in enumerate((theirs, mine)):
                right[k] += all(torch.equal(orders[p][side[p]], torch.arange(64)) for p in orders)
        print(f"git re-basin, {blocks} blocks, noise {noise}: {right[0]} of 20, isogon {right[1]}")


def main():
    folder = Path(sys.argv[1])
    sys.path[:0] = [str(folder), str(folder / "src")]
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    data = (*features(), *noise())
    for work in (pytorch_cka, torch_cka, resi, netrep, rebasin):
        try:
            work(*data)
        except ImportError as error:
            print(f"{work.__name__}: left out ({error})")


if __name__ == "__main__":
    main()
