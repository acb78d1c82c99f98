"""Stitching two ResNet-20: against the passes over the data that can't be done without.

Usage: python benchmarks/stitch.py [--out FILE.json] [--rows fit,step,matrix] [--repeats N]
    [--samples N] [--matrix N] [--model SPEC --other SPEC --train SPEC --test SPEC]

One thread, float32 networks, CPU seconds, both sides in turn in one process; each figure is the
median over repeats.

fit: closed forms at all sites, residual blocks included, against both forward passes: the pass over
the data and the solutions; tracing, recalibration and evaluation are not in it.
step: one minibatch of training a linear stitch at each cut against the tail's forward and backward
pass alone, down to the activation that enters it.
matrix: `isogon.stitch` with by=linear, pairs=all over all cuts (--matrix samples to fit on and as
many to test on, once) against the same tails run as often on activations of the same size: each
trial once in training mode over the samples of the statistics, once in evaluation mode over the
test samples.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timing import seconds

import isogon as ig
from isogon import nets
from isogon.measures.stitching.cuts import Cuts, Pairs, paired
from isogon.measures.stitching.methods import stitch
from isogon.measures.stitching.moments import PairSums, connected
from isogon.measures.stitching.refine.course import Course, Pace
from isogon.measures.stitching.refine.kept import Kept
from isogon.measures.stitching.refine.refinable import Free
from isogon.measures.stitching.stitched_pairs import CHUNK
from isogon.measures.stitching.trials import Tail
from isogon.nets.passes import one_pass


def row(spec: str, shape: tuple[int, ...], pairs: Pairs, samples: int, repeats: int) -> dict:
    torch.manual_seed(0)
    models = {side: nets.build(spec).eval() for side in "ab"}
    x = torch.rand(samples, *shape)
    data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(128)]
    cuts = {s: Cuts(m, "activations", x[:4], s, in_block=True) for s, m in models.items()}
    chosen, _ = paired(cuts["a"].found, cuts["b"].found, pairs)
    method = stitch("linear")

    @torch.no_grad()
    def forward() -> None:
        for part, _ in data:
            for model in models.values():
                model(part)

    def fit() -> None:
        room: dict[int, torch.Tensor] = {}
        groups = [PairSums(g, room) for g in connected(chosen)]
        one_pass(models, data, groups, chunk=CHUNK)
        for group in groups:
            for pair in group.pairs:
                method.fit(group.of(*pair), torch.Generator())

    sides: dict[str, Callable[[], object]] = {"both forward passes": forward, "fit": fit}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(repeats + 1):
        for name, run in sides.items():
            spent = seconds(run)
            if k:
                taken[name].append(spent)
    median = {name: statistics.median(times) for name, times in taken.items()}
    found = {"model": spec, "pairs": len(chosen), "samples": samples, "seconds": median}
    found["of both forward passes"] = median["fit"] / median["both forward passes"]
    print(json.dumps(found), flush=True)
    return found


def step(options: argparse.Namespace) -> dict:
    """A step of training against the passes of the tail in it."""
    torch.manual_seed(0)
    models = {side: nets.build("cifar_resnet20").eval() for side in "ab"}
    x = torch.rand(128, 3, 32, 32)
    data = ig.batches([(x, torch.zeros(128, dtype=torch.long))])
    cuts = {s: Cuts(m, "activations", x[:4], s) for s, m in models.items()}
    pairs, _ = paired(cuts["a"].found, cuts["b"].found, "diagonal")
    groups = [PairSums(g) for g in connected(pairs)]
    one_pass(models, data, groups, chunk=CHUNK)
    sums = {pair: g for g in groups for pair in g.pairs}
    rows = []
    for one, two in pairs:
        tail = Tail(cuts["b"].anatomy, two)
        kept = Kept(cuts["a"], one, data)
        one_pass({"a": models["a"]}, data, [kept])
        fitted = stitch("linear").fit(sums[one, two].of(one, two), torch.Generator())
        every = torch.arange(128)
        values, labels = kept.read(every)
        value = values[0].clone().requires_grad_()

        def course(steps: int, kept=kept, two=two, tail=tail, fitted=fitted, every=every):
            pace = Pace(steps, 1e-3, 0, 128, 2, 0)  # looks cost nothing: two samples
            Course(kept, two, tail, every, pace).run(fitted, Free(fitted), lambda: None)

        def passes(tail=tail, value=value, labels=labels):
            z = tail([value], tail.fresh(), 0.1)
            loss = torch.nn.functional.cross_entropy(z, labels)
            torch.autograd.grad(loss, value)

        taken = {"step": [], "passes": []}
        for k in range(options.repeats + 1):
            six, one_step, base = (
                seconds(run) for run in (partial(course, 6), partial(course, 1), passes)
            )
            if k:
                taken["step"].append((six - one_step) / 5)
                taken["passes"].append(base)
        median = {name: statistics.median(times) for name, times in taken.items()}
        rows.append({"site": two.site.name, **median})
    total = {name: sum(r[name] for r in rows) for name in ("step", "passes")}
    found = {"of": "step", "sites": rows, "seconds": total}
    found["of the tail's forward and backward pass"] = total["step"] / total["passes"]
    print(json.dumps(found), flush=True)
    return found


def matrix(options: argparse.Namespace) -> dict:
    """All pairs of cuts against their tails."""
    a, b = (ig.load(spec) for spec in (options.model, options.other))
    train, test = (ig.batches(spec) for spec in (options.train, options.test))
    n = options.matrix
    held = [part.first(n) for part in (train, test)]
    train, test = (ig.batches(list(zip(x.split(256), y.split(256)))) for x, y in held)
    x = test.first(n)[0]
    cuts = Cuts(b, "activations", x[:4], "b")
    reading: list = []
    spent = seconds(
        lambda: reading.append(
            ig.stitch(a, b, train, test, by="linear", pairs="all", norm_samples=n)
        )
    )
    table = reading[0].to_frame()
    least = 0.0
    for cut in cuts.found:
        tail = Tail(cuts.anatomy, cut)
        head = cuts.anatomy.head(*cut.nodes)
        with torch.no_grad():
            parts = [head(p) for p in x.split(256)]

        def once(momentum: float | None, tail=tail, parts=parts) -> None:
            with torch.no_grad():
                for p in parts:
                    tail([p], tail.fresh(), momentum)

        training, evaluation = seconds(lambda: once(0.1)), seconds(lambda: once(None))
        heads = int((table["site_b"] == cut.site.name).sum())
        # stitched and floor: both; frozen: evaluation; ceiling and b's own: both; b's own frozen
        least += (2 * heads + 2) * (training + evaluation) + (heads + 1) * evaluation
    found = {
        "of": "matrix",
        "model": options.model,
        "pairs": len(table),
        "samples": [n, n],
        "seconds": spent,
        "tails alone": least,
        "of the tails alone": spent / least,
        "accuracy": reading[0].meta["accuracy"],
        "penalty": table.pivot(index="site_a", columns="site_b", values="penalty")
        .reindex(index=list(dict.fromkeys(table["site_a"])))[list(dict.fromkeys(table["site_b"]))]
        .round(4)
        .to_numpy()
        .tolist(),
    }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument("--rows", default="fit,step,matrix")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--matrix", type=int, default=2000)
    parser.add_argument("--model", default="cifar_resnet20(seed=0)")
    parser.add_argument("--other", default="cifar_resnet20(seed=1)")
    parser.add_argument("--train", default="cifar10(train)")
    parser.add_argument("--test", default="cifar10(test)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(options.out)
    chosen = options.rows.split(",")
    found = json.loads(out.read_text())["rows"] if out.is_file() else []
    found = [r for r in found if r.get("of", "fit") not in chosen]  # others stay as they were
    case = ("cifar_resnet20", (3, 32, 32))
    if "fit" in chosen:
        for pairs in ("diagonal", "all"):
            found.append({"of": "fit", **row(*case, pairs, options.samples, options.repeats)})
    if "step" in chosen:
        found.append(step(options))
    if "matrix" in chosen:
        found.append(matrix(options))
    where = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    out.write_text(json.dumps({"where": where, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
