"""Random SIGKILLs over every command that goes on: nothing is lost, readings are bitwise equal.

Usage: python benchmarks/reliability_kills.py [--out FILE.json] [--kills N] [--only KIND,...]
    [--seed N]

Each kind of work (a sweep inline, a sweep on processes, a training, a survey) is first done
undisturbed. Then it is begun again and again in another folder with a cache of its own, and
killed at a random moment of its duration, N times in all; when it comes to its end in between,
everything is compared and a new folder is taken. Of a sweep on processes every other kill meets
one of the processes of the pool instead of the parent. Checked after each kill: what was done
before is still done, and was not begun again; a killed parent's processes have ended within ten
seconds. Checked at each end: exit code 0, all jobs done, and every file of every
reading (for training: every weight and metric) equal to the undisturbed run's, byte by byte.

Work runs in children that are forked from a process that has imported everything, so that the
kills meet work and not imports (the processes of a pool import for themselves).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from isogon.cli import main as isogon
from isogon.survey.running.sweep import Sweep
from isogon.training import Checkpoint

PLAN = """
axes: {seed: [0, 1, 2]}
model: trained(cnn(width=2), digits, epochs=3, seed={seed}, checkpoint_every=4)
batches: digits(test, 64)
measures: [orientation, data-matrix]
figures:
  - draw: {}
    where: {measure: orientation}
"""
MODEL, DATA = "trained(cnn(width=2), digits, epochs=3, checkpoint_every=4)", "digits(test, 64)"
SWEEP = ("sweep", "plan.yaml", "--out", "out", "--retry")
WORK = {
    "sweep inline": SWEEP,
    "sweep processes": (*SWEEP, "--on", "processes", "--workers", "2"),
    "train": ("train", "--arch", "mlp_bn(width=32, bottleneck=8, depth=1)", "--data", "digits",
              "--epochs", "6", "--checkpoint-every", "3", "--snapshot-every", "1", "--out", "out"),
    "survey": ("survey", MODEL, "--batches", DATA, "--out", "out", "--only",
               "[orientation,data-matrix,invariance,integrability]"),
}  # fmt: skip
LIMIT = 10.0  # seconds that the processes of a killed parent may live on


@dataclass
class Found:
    """What the kills of one kind of work did."""

    kills: int = 0
    pool_kills: int = 0
    ends: int = 0
    lost: list[str] = field(default_factory=list)
    begun_again: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    outlived: list[float] = field(default_factory=list)
    seconds: float = 0.0


def start(folder: Path, words: tuple[str, ...]) -> int:
    """Run a command in a child; its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["ISOGON_CACHE"] = str(folder / "cache")
        log = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = isogon(words)
        sys.stdout.flush()
    finally:
        os._exit(code)


def fresh(root: Path, name: str) -> Path:
    """A new folder with the plan in it."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "plan.yaml").write_text(PLAN)
    return folder


def content(folder: Path, kind: str) -> dict[str, str]:
    """Every number that the work is for, as digests by name."""
    out = folder / "out"
    if kind == "train":
        found = {}
        for path in sorted(out.rglob("*.safetensors")):
            held = Checkpoint.load(path)
            name = path.relative_to(out).as_posix()
            for key, value in (held.weights | held.optimizer).items():
                found[f"{name}:{key}"] = hashlib.sha256(value.numpy().tobytes()).hexdigest()
            rows = [{k: v for k, v in r.items() if k != "seconds"} for r in held.meta["history"]]
            found[f"{name}:history"] = json.dumps(rows)
        return found
    files = sorted(out.glob("records/[!.]*/reading/**/*"))  # with a dot: never finished
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.is_file()
    }


def finished(folder: Path, kind: str) -> dict[str, int]:
    """What is done, with the number of attempts that it took (steps, for a training)."""
    out = folder / "out"
    if kind.startswith("sweep"):
        if not (out / "plan.json").is_file():
            return {}
        return {s.id: s.attempts for s in Sweep.read(out).states() if s.state == "done"}
    if kind == "train":
        return {p.name: 1 for p in out.glob("snapshots/epoch-*.safetensors")}
    return {p.parent.name: 1 for p in out.glob("records/[!.]*/record.json")}


def children(pid: int) -> list[int]:
    """Processes of the pool of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            words = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"spawn_main" in words and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: Callable[[], bool], seconds: float) -> float:
    """Wait until something is so; the seconds that took, or more than allowed."""
    began = time.monotonic()
    while not what() and time.monotonic() - began < seconds:
        time.sleep(0.02)
    return time.monotonic() - began


def killed(pid: int, rng: random.Random, whole: float, found: Found, *, crew: bool) -> int | None:
    """Kill the work, or one process of its pool, at a random moment; its exit code if it ended."""
    end = time.monotonic() + rng.uniform(0, whole)
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    workers = children(pid)
    if crew and workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
        found.pool_kills += 1
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    found.kills += 1
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        seconds = until(lambda: not any(map(lives, workers)), 3 * LIMIT)
        if workers:
            found.outlived.append(seconds)
        return None
    return code


def disturbed(kind: str, root: Path, kills: int, seed: int) -> Found:
    """Do the work undisturbed, then kill it over and over."""
    rng, found = random.Random(f"{kind} {seed}"), Found()
    began = time.monotonic()
    calm = fresh(root, "calm")
    _, status = os.waitpid(start(calm, WORK[kind]), 0)
    if status:
        raise SystemExit(f"the undisturbed {kind} failed:\n{(calm / 'log').read_text()}")
    whole, wanted = time.monotonic() - began, content(calm, kind)
    folder, before = fresh(root, "disturbed"), {}
    last = False
    while not last:
        last = found.kills >= kills
        pid = start(folder, WORK[kind])
        if last:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            crew = kind == "sweep processes" and found.kills % 2 == 1
            code = killed(pid, rng, whole, found, crew=crew)
        now = finished(folder, kind)
        found.lost += [f"{kind}: {n}" for n in before if n not in now]
        found.begun_again += [f"{kind}: {n}" for n, k in before.items() if now.get(n, k) != k]
        before = now
        if code != 0 and not last:
            continue  # killed; or a job failed with its process, which --retry repeats
        found.ends += 1
        if code != 0:
            found.failed.append(f"{kind}: exit code {code}: {(folder / 'log').read_text()[-400:]}")
        have = content(folder, kind)
        found.different += [n for n in wanted.keys() | have.keys() if wanted.get(n) != have.get(n)]
        folder, before = fresh(root, "disturbed"), {}
    found.seconds = time.monotonic() - began
    return found


def row(found: Found) -> dict:
    """The figures of one kind."""
    return {
        "kills": found.kills,
        "of these, of one process of the pool": found.pool_kills,
        "ended and compared": found.ends,
        "lost": len(found.lost),
        "begun again": len(found.begun_again),
        "files or tensors that differ": len(found.different),
        "failures": len(found.failed),
        "seconds until the pool of a killed parent had ended, at most": round(
            max(found.outlived, default=0.0), 2
        ),
        "seconds": round(found.seconds, 1),
    }


def main() -> int:
    """Print one line per kind and keep all of it in a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(Path(__file__).with_name("kills.json")))
    parser.add_argument("--kills", type=int, default=25, help="of each kind")
    parser.add_argument("--only", default=",".join(WORK), help=", ".join(WORK))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, dict] = {}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        warm = fresh(Path(folder), "warm")  # what is imported late is imported, and compiled, here
        os.environ["ISOGON_CACHE"] = str(warm / "cache")
        here = os.getcwd()
        os.chdir(warm)
        for kind in options.only.split(","):
            words = WORK["sweep inline" if kind == "sweep processes" else kind]
            if isogon([*words, "--quiet"]):
                raise SystemExit(f"{kind} failed")
            shutil.rmtree(warm / "out", ignore_errors=True)
        os.chdir(here)
        for kind in options.only.split(","):
            found = disturbed(
                kind, Path(folder) / kind.replace(" ", "-"), options.kills, options.seed
            )
            kinds[kind] = row(found)
            print(json.dumps({kind: kinds[kind]}), flush=True)
            for problem in (found.lost + found.begun_again + found.different + found.failed)[:10]:
                print("   ", problem, file=sys.stderr)
            bad = found.lost or found.begun_again or found.different or found.failed
            good = good and not bad and max(found.outlived, default=0.0) <= LIMIT
    where = {"torch": torch.__version__, "machine": platform.machine(), "seed": options.seed}
    total = {"kills": sum(k["kills"] for k in kinds.values()), "all well": good}
    Path(options.out).write_text(
        json.dumps({"where": where, "total": total, "kinds": kinds}, indent=1) + "\n"
    )
    print(json.dumps(total))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
