"""Today's code against an earlier checkout, case by case in turn: is any row slower?

    git worktree add ../before COMMIT
    python benchmarks/paired.py --before ../before [--rows partition,manifold,invariance]
        [--oracles ../shared/oracles/partition/cases] [--data ../shared/data] [--repeats 7]

Two processes, one per checkout, each with one thread; a case is run in one and then in the other,
the order turned round at each repeat, so that a machine whose speed drifts is fair to both. The
figure of a row is the median of the quotients within a repeat (CPU seconds of now by before), with
the least and the largest; both sides must give the same fingerprint (regions, traces, means).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROWS = ("partition", "manifold", "invariance")
LONG = 0.3  # CPU seconds of one turn at least
Case = Callable[[], float]  # runs, and returns a fingerprint


def partition_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Random networks, tables of weights, convolutional networks."""
    import partition as rows  # the script beside this one: networks and slices
    import torch

    from isogon.cpwl.lower import lower
    from isogon.measures.partition.measure import partition
    from isogon.measures.partition.slices import Slice
    from isogon.nets.load import build

    square = Slice.box2d([-1, -1], [1, 1])
    cases = [
        ("2-64x4-10 random", rows.random_mlp([2, 64, 64, 64, 64, 10]), square),
        ("2-128x3-10 random", rows.random_mlp([2, 128, 128, 128, 10]), square),
    ]
    if options.oracles:
        for name in ("w64", "acas11", "bunny2_4x32", "toy16"):
            cases.append((name, *rows.table(options.oracles / f"{name}.npz")))
    for spec, shape, radius in (
        ("cnn", (1, 28, 28), 0.12),
        ("resnet18(num_classes=10)", (3, 32, 32), 0.02),
    ):
        torch.manual_seed(0)
        x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        program = lower(build(spec).eval(), x[:2])
        cases.append((spec, program, Slice.anchors(*x, radius=radius)))
    for name, program, plane in cases:
        yield name, lambda program=program, plane=plane: len(partition(program, plane))


def manifold_cases(_options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Data matrices and steps in the kernel."""
    import torch

    import isogon as ig
    from isogon.nets.load import build

    for spec, shape, count in (
        ("small_cnn(log_softmax=True)", (1, 28, 28), 256),
        ("medium_cnn(log_softmax=True)", (1, 28, 28), 64),
        ("cifar_vgg11_bn(log_softmax=True)", (3, 32, 32), 8),
    ):
        g = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        model = build(spec).double().eval()
        x = torch.rand(count, *shape, dtype=torch.float64, generator=g)
        batches = [(x, torch.zeros(count, dtype=torch.long))]

        def matrix(model=model, batches=batches) -> float:
            return float(ig.data_matrix(model, batches).table["trace"].mean())

        yield f"data matrix, {spec}", matrix
        if count > 64:
            continue
        v = torch.randn(shape, dtype=torch.float64, generator=g)

        def steps(model=model, x=x[:8], v=v) -> float:
            ig.walk(model, x, direction=v, along="kernel", steps=3, frames=1)
            return 0.0

        yield f"kernel steps, {spec}", steps


def invariance_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Every one-pass statistic of every activation, and the same of the maps moved back."""
    import torch

    import isogon as ig
    from isogon.nets.load import build

    moments = ("variance", "squared", "anova")
    family = ig.family("rotations(24)")
    colours = f"imagefolder('{options.data}/cifar10-imagefolder.zip', test, 48)"
    for name, spec, data in (
        ("simple_conv", "simple_conv(32)", "mnist(test, 48)"),
        ("vgg16d", "vgg16d(32)", "mnist(test, 48)"),
        ("resnet18", "resnet18(num_classes=10)", colours),
    ):
        torch.manual_seed(0)
        net = build(spec).eval()
        batches = list(ig.batches(data, batch_size=48, root=options.data))

        def one(net=net, batches=batches) -> float:
            ig.invariance(net, batches, family, measures=moments)
            return 0.0

        def moved(net=net, batches=batches) -> float:
            ig.equivariance(net, batches, family, measures=moments)
            return 0.0

        yield f"invariance, {name}", one
        yield f"equivariance, {name}", moved


def serve(options: argparse.Namespace) -> None:
    """One side: a case's name a line in; its CPU seconds and fingerprint a line out."""
    import torch

    torch.set_num_threads(1)
    makers = {
        "partition": partition_cases,
        "manifold": manifold_cases,
        "invariance": invariance_cases,
    }
    # what is printed by the code under test must not reach the parent's protocol
    out, sys.stdout = sys.stdout, sys.stderr
    for row in options.rows.split(","):
        for name, case in makers[row](options):
            case()  # kernels compiled, libraries touched
            start = time.process_time()
            case()
            # caches warm again after the other side's turn
            times = 1 + int(LONG / max(1e-4, time.process_time() - start))
            print(json.dumps({"case": name}), file=out, flush=True)
            for line in sys.stdin:
                if line.strip() == "next":
                    break
                start = time.process_time()
                for _ in range(times):
                    mark = case()
                taken = (time.process_time() - start) / times
                print(json.dumps({"seconds": taken, "mark": mark}), file=out, flush=True)
    print(json.dumps({"case": None}), file=out, flush=True)


def side(root: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    """The process of one checkout; the cases are this script's own on both sides."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--rows", options.rows]
    command += ["--data", str(options.data.resolve())]
    if options.oracles:
        command += ["--oracles", str(options.oracles.resolve())]
    cache = options.caches.resolve() / root.resolve().name
    inherited = os.environ | {"PYTHONPATH": str(root.resolve() / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=inherited | {"XDG_CACHE_HOME": str(cache)},
    )  # fmt: skip


def told(process: subprocess.Popen[str], line: str | None = None) -> dict:
    """A line to a side, and its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"a side ended: exit status {process.wait()}")
    return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of the earlier commit")
    parser.add_argument("--rows", default=",".join(ROWS), help=", ".join(ROWS))
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--caches", type=Path, default=Path(tempfile.gettempdir(), "isogon-paired"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    here = Path(__file__).resolve().parents[1]
    sides = {"now": side(here, options), "before": side(options.before, options)}
    commit = subprocess.run(
        ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    where = {"machine": platform.machine(), "before": commit, "repeats": options.repeats}
    found, order = [], list(sides)
    names = [told(process)["case"] for process in sides.values()]
    while names[0] is not None:
        if names[0] != names[1]:
            raise SystemExit(f"the sides differ in their cases: {names}")
        taken: list[dict[str, float]] = []
        marks = set()
        for _ in range(options.repeats):
            answers = {which: told(sides[which], "run") for which in order}
            taken.append({which: a["seconds"] for which, a in answers.items()})
            marks |= {a["mark"] for a in answers.values()}
            order.reverse()
        ratios = [t["now"] / t["before"] for t in taken]
        row = {
            "case": names[0],
            "now by before": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "largest": round(max(ratios), 3),
            "now s": round(statistics.median(t["now"] for t in taken), 4),
            "same": max(marks) - min(marks) <= 1e-9 * max(1.0, max(map(abs, marks))),
        }
        found.append(row)
        print(json.dumps(row), flush=True)
        options.out.write_text(json.dumps({"where": where, "rows": found}, indent=1) + "\n")
        names = [told(process, "next")["case"] for process in sides.values()]
    slower = [row["case"] for row in found if row["now by before"] > 1.1]
    print(f"{len(found)} rows, slower by more than 10 %: {', '.join(slower) or 'none'}")


if __name__ == "__main__":
    main()
