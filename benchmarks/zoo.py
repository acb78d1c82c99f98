"""Every measure on networks that nobody here wrote: right, refused, or a fault.

    python benchmarks/zoo.py [--onnx FOLDER] [--facenet FOLDER] [--only NAME] [--out FILE [--rest]]

Networks: those of timm, torchvision and transformers that are installed (random weights, batch-norm
statistics of one pass), facenet-pytorch in a folder of its own (``pip install --target FOLDER
--no-deps facenet-pytorch``), and a folder of ONNX files, e.g. the small ones of the verification
competition (github.com/stanleybak/vnncomp2021). What comes out of a network and a measure:

- ``right``: a number of the reading was computed again without isogon (`zoo_checks`), and agrees;
- ``ran``: the reading came, and there was nothing to compare it with;
- ``refused``: an error of isogon, whose sentence is kept;
- ``fault``: another exception, a number that is wrong, a certificate that fails, or too long.

Measures of two networks take the network and a second initialisation, up to LARGE parameters.
``--out`` keeps what the file holds of what is not tried again; with ``--rest`` only those
are tried that it does not hold.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import zoo_networks
from zoo_checks import ONE, TWO, Trial
from zoo_inside import Wrong
from zoo_networks import Case

import isogon as ig
from isogon.errors import IsogonError

LIMIT = 60  # seconds of processor time of one measure on one network
LARGE = 3_000_000
MARKS = {"right": "+", "ran": "o", "refused": "-", "fault": "F", "left out": "."}
# what differs between sentences of one kind: names, sizes, numbers
SPECIFIC = r"got .*?(?=, expected)|'[^']*'|\[[^]]*\]|\(and [^)]*\)|\(off by.*|[\d.,-]+"
Row = dict[str, str | float]


def out_of_time(*_: object) -> None:
    raise TimeoutError(f"took more than {LIMIT} s")


def outcome(trial: Trial, name: str) -> tuple[str, str]:
    """What comes out of one measure, and what there is to say about it."""
    signal.signal(signal.SIGPROF, out_of_time)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        said = (ONE | TWO)[name](trial)
    except IsogonError as error:
        return "refused", str(error) + followed(trial, name, str(error))
    except Wrong as error:
        return "fault", f"wrong: {error}"
    except TimeoutError as error:
        return "fault", str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "fault",
            f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}",
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ("right" if said else "ran"), said


def followed(trial: Trial, name: str, says: str) -> str:
    """What comes of the fix that a sentence names, where it names `ig.piecewise`."""
    if "ig.piecewise(" not in says:
        return ""
    try:
        other = copy.copy(trial)
        other.model = ig.piecewise(trial.model, knots=16, example=trial.x)
        ONE["segments"](other)
    except (IsogonError, Wrong) as error:
        return f" [the fix: {error}]"
    return " [the fix works]"


def loaded(trial: Trial) -> tuple[str, str]:
    """An ONNX network against onnxruntime, on the same inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(trial.case.file))
    entry = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in entry.shape]
    x = trial.x
    if x.dim() == 4 and list(x.shape[1:]) != shape[1:]:  # loaded with channels first
        x = x.permute(0, 2, 3, 1)
    rows = [session.run(None, {entry.name: own.numpy().reshape(shape)})[0] for own in x]
    wanted = torch.stack([torch.from_numpy(r).flatten() for r in rows])
    size = wanted.abs().max().clamp_min(1e-12)  # some answer 0 everywhere
    off = float((trial.out.reshape(wanted.shape) - wanted).abs().max() / size)
    return ("right" if off < 1e-4 else "fault"), f"outputs of onnxruntime, off by {off:.1g}"


def tried(case: Case, names: list[str]) -> Iterator[Row]:
    """One row per measure of a network."""

    def row(name: str, verdict: str, says: str, start: float) -> Row:
        taken = round(time.perf_counter() - start, 2)
        return {
            "network": case.name,
            "measure": name,
            "verdict": verdict,
            "says": says,
            "seconds": taken,
        }

    start = time.perf_counter()
    try:
        trial = Trial(case)
        if case.file is not None:
            yield row("load", *loaded(trial), start)
    except Exception as error:
        mine = isinstance(error, IsogonError)
        says = str(error) if mine else f"{type(error).__name__}: {error}"
        yield row("load", "refused" if mine else "fault", says, start)
        return
    large = sum(p.numel() for p in trial.model.parameters()) > LARGE
    for name in names:
        start = time.perf_counter()
        if name in TWO and large:
            yield row(name, "left out", f"more than {LARGE:,} parameters", start)
        else:
            yield row(name, *outcome(trial, name), start)


def apart(case: Case, names: list[str]) -> list[Row]:
    """`tried` in a process of its own, so that none can take another's time or memory with it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        warnings.simplefilter("ignore")
        with os.fdopen(write, "w") as lines:
            for row in tried(case, names):
                lines.write(json.dumps(row) + "\n")
                lines.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        rows = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    if status:
        done = {r["measure"] for r in rows}
        lost = next((n for n in names if n not in done), "load")
        says = f"the process ended with status {status}"
        rows.append(
            {
                "network": case.name,
                "measure": lost,
                "verdict": "fault",
                "says": says,
                "seconds": 0.0,
            }
        )
    return rows


def cases(options: argparse.Namespace) -> Iterator[Case]:
    yield from zoo_networks.of_timm()
    yield from zoo_networks.of_torchvision()
    yield from zoo_networks.of_transformers()
    if options.facenet:
        yield from zoo_networks.of_facenet(options.facenet)
    if options.onnx:
        yield from zoo_networks.of_onnx(options.onnx)


def summary(rows: list[Row]) -> None:
    """Refusals and faults: a sentence of each kind, and where it came; then verdicts by group."""
    for verdict in ("refused", "fault"):
        said: dict[str, list[Row]] = {}
        for r in rows:
            if r["verdict"] == verdict:
                kind = re.sub(SPECIFIC, "", str(r["says"]))
                said.setdefault(" ".join(kind.split()), []).append(r)
        print(f"\n{verdict}:")
        for own in said.values():
            networks = list(dict.fromkeys(str(r["network"]) for r in own))
            measures = ", ".join(dict.fromkeys(str(r["measure"]) for r in own))
            print(f"  {len(own)} x {own[0]['says']}\n      {measures}: {', '.join(networks[:6])}")
    groups(rows)


def groups(rows: list[Row]) -> None:
    """By group of networks, how many there are and how often each verdict came."""
    verdicts = [v for v in MARKS if v != "left out"]
    print("\n| networks | tried |", " | ".join(verdicts), "|\n|---|---|" + "---|" * len(verdicts))
    for group in dict.fromkeys(str(r["network"]).split()[0] for r in rows):
        own = [r for r in rows if str(r["network"]).startswith(f"{group} ")]
        count = Counter(str(r["verdict"]) for r in own)
        tried = len({r["network"] for r in own})
        print(f"| {group} | {tried} |", " | ".join(str(count[v]) for v in verdicts), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--onnx", type=Path, help="folder of .onnx and .onnx.gz files")
    parser.add_argument("--facenet", type=Path, help="folder that holds facenet_pytorch")
    parser.add_argument("--only", default="", help="networks whose name begins with this")
    parser.add_argument("--measures", nargs="*", default=[*ONE, *TWO])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true", help="only show what --out holds")
    parser.add_argument("--rest", action="store_true", help="only networks that --out lacks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    kept: list[Row] = []
    if options.out and options.out.exists():
        kept = json.loads(options.out.read_text())
    if options.table:
        return summary(kept)
    print(" ".join(f"{n[:4]:>4}" for n in options.measures))
    for case in cases(options):
        if not case.name.startswith(options.only):
            continue
        if options.rest and any(r["network"] == case.name for r in kept):
            continue
        found = apart(case, options.measures)
        rows += found
        by = {r["measure"]: MARKS[str(r["verdict"])] for r in found}
        taken = sum(float(r["seconds"]) for r in found)
        marks = " ".join(f"{by.get(n, ' '):>4}" for n in options.measures)
        print(f"{marks}  {case.name} {by.get('load', '')} ({taken:.0f} s)", flush=True)
        if options.out:
            done = {(r["network"], r["measure"]) for r in rows}
            whole = [*(r for r in kept if (r["network"], r["measure"]) not in done), *rows]
            lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in whole)
            options.out.write_text(f"[\n{lines}\n]\n")
    summary(rows)


if __name__ == "__main__":
    main()
