"""Similarity of representations against the matrix products that it can't do without, and peers.

Usage: python benchmarks/similarity.py [--out FILE.json] [--rows 'NAME;...'] [--repeats N]
    [--peers FOLDER]

One process, one thread, CPU seconds; the sides take turns in each repeat, and each figure is the
median over repeats of the quotient within one. The limit of linear CKA from features is the
cheaper of its two forms, in float32: one n x n x d product per representation and one n x n sum per
pair, or one d x d x n product per representation and per pair.

FOLDER holds peers from the package index (``pip install --no-deps --target FOLDER
pytorch-cka==1.1.3 tqdm``); without it they are left out. Values stand beside times: `error` is the
gap to float64, by the definition, U-centred. Rows that take minutes (`long stream`) are run where
``--rows`` names them; all others together take about three minutes with ``--repeats 1``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import torch
from similarity_parts import features, ratio, truth, ucentred
from timing import in_turn, seconds

import isogon as ig
from isogon.measures.alignment.permutations import SampleOrders
from isogon.measures.alignment.products import half_gram
from isogon.nets.load import build

MOMENTS = (
    "cka", "procrustes", "procrustes(modulo=G_relu)", "cca", "svcca", "gulp", "linear_regression",
    "bures", "hard_correlation", "soft_correlation", "eigenspace_overlap", "rsm_norm", "magnitude",
)  # fmt: skip
SAMPLES = (
    "rsa", "distance_correlation", "mutual_knn", "cknna", "jaccard", "rank_similarity",
    "second_order_cosine", "uniformity", "concentricity",
)  # fmt: skip


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
        "error": abs(float(found["ours"][0, 0]) - exact),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }  # fmt: skip
    for name in peers:
        result[name] = ratio(taken, name, "limit")
        result[f"{name}, error"] = abs(float(found[name][0][0]) - exact)
    return result


def unbiased(x):
    """U-centred linear matrix of one batch, flat, float64, by its definition."""
    k = x.double().flatten(1)
    k = k - k.mean(0)
    return ucentred(k).flatten()


@torch.no_grad()
def batch_matrices(model, names, x):
    """The same of each of some modules' outputs, ``[names, n * n]``."""
    held, modules = {}, dict(model.named_modules())

    def keep(name):
        return lambda _, inputs, output: held.update({name: unbiased(output)})

    hooks = [modules[n].register_forward_hook(keep(n)) for n in names]
    model(x)
    for hook in hooks:
        hook.remove()
    return torch.stack([held[n] for n in names])


def two_networks(repeats, peers, sizes=(512, 2048)):
    """ResNet-20 x ResNet-20, all pairs of 19 sites, minibatches of 128: fixed and per image."""
    torch.manual_seed(0)
    a, b = (build("cifar_resnet20").eval() for _ in range(2))
    select, metric = "relu", "cka(minibatch=true)"
    x = torch.rand(max(sizes), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = [s.name for s in ig.sites(a, select, example=x[:2])]
    result = {"sites": len(names), "images": list(sizes)}

    @torch.no_grad()
    def forward(data):
        for part, _ in data:
            a(part)
            b(part)

    @torch.no_grad()
    def peer(data):
        from cka import compute_cka  # type: ignore[import-not-found]

        loader = [part for part, _ in data]
        return compute_cka(a, b, [loader], layers=names, device="cpu", progress=False)

    taken = {}
    for size in sizes:
        data = [(part, torch.zeros(len(part))) for part in x[:size].split(128)]
        sides = {
            "both forward": partial(forward, data),
            "isogon": partial(ig.similarity, a, b, data, metric=metric, sites=select),
        }
        if peers:
            sides["pytorch-cka"] = partial(peer, data)
        if size == min(sizes):
            for work in sides.values():
                work()
        taken[size] = in_turn(sides, repeats)
    first, last = (
        {k: statistics.median(v) for k, v in taken[size].items()} for size in (sizes[0], sizes[-1])
    )
    span = sizes[-1] - sizes[0]
    forward_each = (last["both forward"] - first["both forward"]) / span
    each = (last["isogon"] - first["isogon"]) / span
    result |= {
        name: ratio(taken[sizes[-1]], name, "both forward")
        for name in last
        if name != "both forward"
    }
    result["isogon, per image"] = round(each / forward_each, 3)
    result["isogon, fixed, in images' forward"] = round(
        (first["isogon"] - each * sizes[0]) / forward_each
    )
    result["seconds"] = {k: round(v, 3) for k, v in last.items()}
    values = [batch_matrices(model, names, x[:128]) for model in (a, b)]
    sizes_of = [v.norm(dim=1) for v in values]
    exact = values[0] @ values[1].T / torch.outer(*sizes_of)
    found = ig.similarity(a, b, [(x[:128], torch.zeros(128))], metric=metric, sites=select)
    result["error"] = float(abs(found.arrays["similarity"] - exact.numpy()).max())
    return result


def symmetric_half(repeats):
    """What the matrices of minibatches take at least: half of n x n x d products, float32."""
    sizes = [16 * 32 * 32] * 7 + [32 * 16 * 16] * 6 + [64 * 8 * 8] * 6
    rows = [torch.randn(128, d) for d in sizes]

    def work():
        for x in (*rows, *rows):
            half_gram(x)

    work()
    return statistics.median(seconds(work) for _ in range(repeats)) / 128


def together(n, double, repeats):
    """All metrics of second moments against CKA alone, for one pair."""
    a, b = features(n, 512, 1, 1), features(n, 512, 1, 2)
    if double:
        a, b = ({k: v.double() for k, v in side.items()} for side in (a, b))
    sides = {
        "cka": partial(ig.similarity, a, b, maps="positions"),
        "second moments": partial(ig.similarity, a, b, metric=MOMENTS),
    }
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    return {
        "n": n, "features": "float64" if double else "float32", "metrics": len(MOMENTS),
        "second moments": ratio(taken, "second moments", "cka"),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }  # fmt: skip


def every_metric(repeats):
    """CPU seconds of all metrics of one pair, n = 2,000, d = 512."""
    a, b = features(2000, 512, 1, 1), features(2000, 512, 1, 2)
    every = (*MOMENTS, *SAMPLES, "cka(kernel=rbf)", "pwcca")
    found = {}

    def work():
        found["single"] = ig.similarity(a, b, metric=every).arrays["similarity"]

    work()
    taken = [seconds(work) for _ in range(repeats)]
    doubles = ({k: v.double() for k, v in side.items()} for side in (a, b))
    exact = ig.similarity(*doubles, metric=every).arrays["similarity"]
    gap = abs(found["single"] - exact).max((1, 2)) / abs(exact).max((1, 2)).clip(1)
    return {
        "metrics": len(every),
        "seconds": round(statistics.median(taken), 3),
        "relative gap between float32 and float64 features": float(gap.max()),
    }


def permutations(metric, repeats):
    """200 permutations of 361 pairs, Gram metrics, n = 1,000."""
    a, b = features(1000, 256, 19, 1), features(1000, 256, 19, 2)
    sides = {
        "values": partial(ig.similarity, a, b, metric=metric, maps="flatten"),
        "null": partial(ig.similarity, a, b, metric=metric, maps="flatten", null=200),
    }
    for work in sides.values():
        work()
    taken = in_turn(sides, repeats)
    return {
        "pairs": 361, "permutations": 200,
        "null": ratio(taken, "null", "values"),
        "seconds": {k: round(statistics.median(v), 3) for k, v in taken.items()},
    }  # fmt: skip


@cache
def permuted_values():
    """Largest gap between values under permutations and their definition, float64."""
    x, y = features(1000, 256, 1, 1)["l0"], features(1000, 256, 1, 2)["l0"]
    k, m = (ucentred(v.double()) for v in (x, y))
    drawn = SampleOrders(1000, 50, torch.Generator().manual_seed(0))
    found = drawn.inner([k.float()], [m.float()], symmetric=True)[:, 0, 0]
    exact = torch.stack([(k * m[o][:, o]).sum() for o in drawn.orders()])
    return float((found - exact).abs().max() / (k.norm() * m.norm()))


def memory(*options):
    """A stream in a process of its own, see similarity_stream.py."""
    script = Path(__file__).with_name("similarity_stream.py")
    done = subprocess.run(
        [sys.executable, str(script), *map(str, options)], capture_output=True, check=True
    )
    return json.loads(done.stdout)


FLOOR = """The matrices of 38 sites are 0.3 of the multiplications of both forward passes (half of
128 x 128 x 376,832 per batch, as they are symmetric, against 2 x 128 x 40.8 million), and the same
for any estimator of HSIC without error: 1.25 would need them faster than the convolutions, at
whose rate they are 0.30.
`products` is what they take here as a share of the forward passes."""
DECOMPOSED = """Two eigendecompositions and four sets of singular values of 512 x 512 matrices and
two assignments: about 0.2 s per pair whatever n is, against products of 0.02 s per 1,000 samples;
and float64 throughout, where CKA alone takes float32 features as they are. The ratio falls with
n."""
FLOOR, DECOMPOSED = (" ".join(note.split()) for note in (FLOOR, DECOMPOSED))


def rows(options, peers):
    """What is measured: row -> what, against, the key of the ratio, target, work."""
    count, forward = options.repeats, "both forward passes"
    again = partial(memory, "--width", 256, "--sites", 32)
    return {
        "features, n = 2,000": (
            "linear CKA from features, 16 pairs, d = 512", "its matrix products", "isogon", 1.3,
            partial(from_features, 2000, 512, 4, count, peers),
        ),
        "features, n = 10,000": (
            "linear CKA from features, 4 pairs, d = 512", "its matrix products", "isogon", 1.3,
            partial(from_features, 10_000, 512, 2, 1, peers),
        ),
        "two networks": (
            "minibatch CKA, ResNet-20 x ResNet-20, 361 pairs, batch 128", forward, "isogon", 1.25,
            lambda: with_floor(two_networks(count, peers), count),
        ),
        "together, n = 2,000": (
            "13 metrics of second moments, d = 512", "CKA alone", "second moments", 1.3,
            lambda: together(2000, False, count) | {"note": DECOMPOSED},
        ),
        "together, n = 50,000": (
            "13 metrics of second moments, d = 512", "CKA alone", "second moments", 1.3,
            lambda: together(50_000, True, 1) | {"note": DECOMPOSED},
        ),
        "every metric": (
            "24 metrics of one pair, n = 2,000, d = 512", "CPU seconds", "seconds", 2.0,
            partial(every_metric, count),
        ),
        **{
            f"null, {metric}": (
                "200 permutations of 361 pairs, n = 1,000, d = 256", "values alone", "null", 1.5,
                lambda m=metric: permutations(m, count) | {"error": permuted_values()},
            )
            for metric in ("cka", "cka(kernel=rbf)", "rsa", "distance_correlation", "mutual_knn")
        },
        "memory, 50,000 x 512": (
            "added peak MB of a stream of 50,000 samples, one pair", "MB", "added_mb", 200,
            partial(memory, "--samples", 50_000, "--width", 512),
        ),
        "stream, 20,000": (
            "peak of a stream, 32 pairs (diagonal), d = 256", "MB", "added_mb", None,
            partial(again, "--samples", 20_000),
        ),
        "stream, 80,000": (
            "the same of four times the samples", "MB", "added_mb", None,
            partial(again, "--samples", 80_000),
        ),
    }  # fmt: skip


def long_rows():
    """Minutes each: only where ``--rows`` names them."""
    again = partial(memory, "--width", 256, "--sites", 32)
    return {
        "long stream, 1,000,000, diagonal": (
            "peak of a stream, 32 pairs (diagonal), d = 256", "MB", "added_mb", None,
            partial(again, "--samples", 1_000_000),
        ),
        "long stream, 100,000, all pairs": (
            "peak of a stream, 1,024 pairs, d = 256", "MB", "added_mb", None,
            partial(again, "--samples", 100_000, "--pairs", "all"),
        ),
    }  # fmt: skip


def with_floor(found, repeats):
    """Beside a comparison of networks what its products alone take."""
    forward = found["seconds"]["both forward"] / found["images"][-1]
    return found | {"products": round(symmetric_half(repeats) / forward, 3), "note": FLOOR}


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
    chosen = rows(options, peers)
    if options.rows:
        names = tuple(options.rows.split(";"))
        chosen = {k: v for k, v in (chosen | long_rows()).items() if k.startswith(names)}
    found = {}
    for name, (what, against, key, target, work) in chosen.items():
        load = round(os.getloadavg()[0], 2)
        facts = work()
        found[name] = {
            "what": what, "against": against, "ratio": facts[key], "target": target,
            "machine load": load, **facts,
        }  # fmt: skip
        print(name, json.dumps(found[name]), flush=True)
        if options.out:
            facts = {"machine": platform.machine(), "torch": torch.__version__, "rows": found}
            options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
