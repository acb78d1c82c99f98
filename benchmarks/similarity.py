"""Similarity of representations against the matrix products that it can't do without, and peers.

Usage: python benchmarks/similarity.py [--out FILE.json] [--rows NAME,...] [--repeats N]
    [--peers FOLDER]

One process, one thread, CPU seconds; the sides take turns in each repeat, and each figure is the
median over repeats of the quotient within one. The limit of linear CKA from features is the
cheaper of its two forms, in float32: one n x n x d product per representation and one n x n sum per
pair, or one d x d x n product per representation and per pair.

FOLDER holds peers from the package index (``pip install --no-deps --target FOLDER
pytorch-cka==1.1.3 tqdm``); without it they are left out. Values stand
beside times: the
truth is float64, by the definition, U-centred.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch

import isogon as ig
from isogon.nets.load import build

MOMENTS = (
    "cka", "procrustes", "procrustes(modulo=G_relu)", "cca", "svcca", "gulp", "linear_regression",
    "bures", "hard_correlation", "soft_correlation", "eigenspace_overlap", "rsm_norm", "magnitude",
)  # fmt: skip
SAMPLES = (
    "rsa", "distance_correlation", "mutual_knn", "cknna", "jaccard", "rank_similarity",
    "second_order_cosine", "uniformity", "concentricity",
)  # fmt: skip


def seconds(work):
    """CPU seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(sides, repeats):
    """CPU seconds of each side, in turn: name -> one figure per repeat."""
    taken = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            taken[name].append(seconds(work))
    return taken


def ratio(taken, name, base):
    """Median over repeats of the quotient within one."""
    quotients = [a / b for a, b in zip(taken[name], taken[base], strict=True)]
    return round(statistics.median(quotients), 3)


def features(n, d, layers, seed):
    """Layers of features [n, d] that share a common part, float32."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
    found = {}
    for k in range(layers):
        mixed = common @ torch.randn(64, d, generator=g) / 8
        found[f"l{k}"] = mixed + torch.randn(n, d, generator=g)
    return found


def truth(x, y):
    """Unbiased linear CKA by its definition, float64."""

    def ucentred(a):
        a = a.double()
        k = a @ a.T
        k.fill_diagonal_(0)
        n = len(k)
        means = k.sum(1) / (n - 2)
        k = k - means[:, None] - means[None, :] + k.sum() / ((n - 1) * (n - 2))
        k.fill_diagonal_(0)
        return k

    k, m = ucentred(x), ucentred(y)
    return float((k * m).sum() / (k.norm() * m.norm()))


def limit(a, b):
    """The matrix products of linear CKA between all pairs, the cheaper form, float32."""
    n, d = next(iter(a.values())).shape
    pairs, sites = len(a) * len(b), len(a) + len(b)
    by_samples = sites * n * n * d + pairs * n * n
    by_channels = (sites + pairs) * n * d * d
    if by_samples < by_channels:
        grams = [x @ x.T for x in (*a.values(), *b.values())]
        for k in grams[: len(a)]:
            for m in grams[len(a) :]:
                torch.sum(k * m)
        return
    for x in (*a.values(), *b.values()):
        x.T @ x
    for x in a.values():
        for y in b.values():
            x.T @ y


def pytorch_cka(a, b):
    """Of features: all pairs at once."""
    from cka import cka_from_features  # type: ignore[import-not-found]

    return cka_from_features(list(a.values()), list(b.values())).tolist()


def from_features(n, d, layers, repeats, peers):
    """All pairs of layers of two networks, unbiased linear CKA."""
    a, b = features(n, d, layers, 1), features(n, d, layers, 2)
    found = {}

    def ours():
        found["ours"] = ig.similarity(a, b).arrays["similarity"]

    sides = {"limit": partial(limit, a, b), "isogon": ours}
    for name, work in peers.items():

        def run(work=work, name=name):
            found[name] = work(a, b)

        sides[name] = run
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    exact = truth(a["l0"], b["l0"])
    result = {
        "n": n, "d": d, "pairs": layers**2, "truth of the first pair": exact,
        "isogon": ratio(taken, "isogon", "limit"),
        "isogon, error": abs(float(found["ours"][0, 0]) - exact),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }  # fmt: skip
    for name in peers:
        result[name] = ratio(taken, name, "limit")
        result[f"{name}, value"] = float(found[name][0][0])
    return result


def two_networks(repeats):
    """ResNet-20 x ResNet-20, all pairs of 19 sites, minibatches of 128 and the whole."""
    torch.manual_seed(0)
    a, b = (build("cifar_resnet20").eval() for _ in range(2))
    x = torch.rand(512, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = [(part, torch.zeros(len(part))) for part in x.split(128)]

    @torch.no_grad()
    def forward():
        for part, _ in data:
            a(part)
            b(part)

    select = "relu"
    sides = {
        "both forward": forward,
        "minibatch CKA": partial(
            ig.similarity, a, b, data, metric="cka(minibatch=true)", sites=select, maps="flatten"
        ),
    }
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    sites = len(ig.sites(a, select, example=x[:2]))
    return {
        "sites": sites,
        "minibatch CKA": ratio(taken, "minibatch CKA", "both forward"),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }


def together(repeats):
    """All metrics of second moments against CKA alone, and every metric, for one pair."""
    a, b = features(2000, 512, 1, 1), features(2000, 512, 1, 2)
    every = (*MOMENTS, *SAMPLES, "cka(kernel=rbf)", "pwcca")
    sides = {
        "cka": partial(ig.similarity, a, b),
        "second moments": partial(ig.similarity, a, b, metric=MOMENTS),
        "every metric": partial(ig.similarity, a, b, metric=every),
    }
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    return {
        "metrics": len(every),
        "second moments": ratio(taken, "second moments", "cka"),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }


def permutations(repeats):
    """200 permutations of 361 pairs, Gram metrics, n = 1,000."""
    a, b = features(1000, 256, 19, 1), features(1000, 256, 19, 2)
    sides = {}
    for metric in ("cka", "cka(kernel=rbf)"):
        sides[metric] = partial(ig.similarity, a, b, metric=metric, maps="flatten")
        sides[f"{metric}, null"] = partial(
            ig.similarity, a, b, metric=metric, maps="flatten", null=200
        )
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    return {
        "pairs": 361,
        "cka": ratio(taken, "cka, null", "cka"),
        "cka(kernel=rbf)": ratio(taken, "cka(kernel=rbf), null", "cka(kernel=rbf)"),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", default="", help="beginnings of their names, with ;")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers = {}
    if options.peers:
        sys.path.insert(0, str(options.peers))
        peers["pytorch-cka"] = pytorch_cka
    made = {
        "features, n = 2,000": partial(from_features, 2000, 512, 4, options.repeats, peers),
        "features, n = 10,000": partial(from_features, 10_000, 512, 2, options.repeats, peers),
        "two networks": partial(two_networks, options.repeats),
        "together": partial(together, options.repeats),
        "null": partial(permutations, options.repeats),
    }
    found = {}
    for name, work in made.items():
        if options.rows and not any(name.startswith(r) for r in options.rows.split(";")):
            continue
        found[name] = work()
        print(name, json.dumps(found[name]), flush=True)
    if options.out:
        facts = {"machine": platform.machine(), "torch": torch.__version__, "rows": found}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
