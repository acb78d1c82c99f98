"""Planted faults: each operator changed alone in a copy of the package must fail a test.

``python tests/mutants.py [-k WORD]`` copies the sources and tests, changes one place after
another and runs the tests named beside it until one fails. A fault that no test finds, or
whose place is gone, is printed, and the exit code is 1. 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "plans", "examples", "docs", "benchmarks", "pyproject.toml", "README.md")

CERTIFY = "measures/partition/certificate/certify.py"
CHECKS = "tests/measures/test_certificate_checks.py"
RUN = "survey/running/run.py"


@dataclass(frozen=True)
class Fault:
    """One place of the package, what it is changed to, and the tests that must find it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # what pytest is asked for


def _unchecked(check: str, measured: str) -> Fault:
    """A check of the certificate that always passes."""
    old, new = f'"{check}", {measured},', f'"{check}", 0.0,'
    return Fault(f"certificate: {check}", CERTIFY, old, new, (CHECKS,))


FAULTS = [
    _unchecked("finished", "left"),
    _unchecked("euler", "abs(euler - 1)"),
    _unchecked("area", "error"),
    _unchecked("orientation", "-smallest"),
    _unchecked("convex", "bend"),
    _unchecked("watertight", "one_sided + loose"),
    _unchecked("distinct", "p.finished.sum() - distinct"),
    _unchecked("edges", "int((~own).sum())"),
    _unchecked("located", "lost"),
    _unchecked("patterns", "bad"),
    _unchecked("decided", "share"),
    _unchecked("outputs", "gap"),
    _unchecked("neighbours", "gap"),
    Fault(
        "certificate: boundary",
        "measures/partition/certificate/boundary.py",
        'found.check("boundary", wrong, 0, note)',
        'found.check("boundary", 0, 0, note)',
        (f"{CHECKS}::test_only_this_check_fails[boundary]",),
    ),
    Fault(
        "certificate: complete",
        CERTIFY,
        '"complete",\n        wrong,',
        '"complete",\n        0,',
        (CHECKS,),
    ),
    Fault(
        "a fingerprint without its data",
        RUN,
        "digests.of(content(found), references",
        "digests.of(references",
        ("tests/survey",),
    ),
    Fault(
        "a session's key without the data that shapes a model",
        RUN,
        "None if like is None else content(like), seed",
        "None, seed",
        ("tests/survey",),
    ),
    Fault(
        "a record of a file that changed",
        RUN,
        "if held is None or not untouched(held.files):",
        "if held is None:",
        ("tests/survey",),
    ),
    Fault(
        "frozen restores True",
        "nets/surgery.py",
        "p.requires_grad_(requires_grad)",
        "p.requires_grad_(True)",
        ("tests/nets",),
    ),
    Fault(
        "exponent of the pilot's density",
        "survey/whole/defaults.py",
        "(REGIONS / count) ** 0.5",
        "(REGIONS / count) ** 1.0",
        ("tests/survey",),
    ),
    Fault(
        "a measure thrown away at its last report",
        "survey/whole/survey.py",
        "time.monotonic() > end and (total is None or done < total)",
        "time.monotonic() > end",
        ("tests/survey",),
    ),
    Fault(
        "snapshot_at rounds down",
        "training/run.py",
        "{round(f * self.steps) for f",
        "{int(f * self.steps) for f",
        ("tests/training",),
    ),
    Fault(
        "the loss of several processes counts what fills a batch",
        "training/run.py",
        "self._loss(output, y)[:counted]",
        "self._loss(output, y)",
        ("tests/training",),
    ),
    Fault(
        "gradients of several processes are not averaged",
        "training/run.py",
        "losses.sum() * (self.fabric.world_size / count)",
        "losses.sum() / count",
        ("-m", "long", "tests/training/test_options.py", "-k", "two_processes_are_one"),
    ),
]


def copied(folder: Path) -> None:
    """The sources and all that tests read, and a link to what lies beside them."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "_build", "gallery")
            shutil.copytree(source, folder / "isogon" / name, ignore=ignored)
        elif source.exists():
            (folder / "isogon").mkdir(exist_ok=True)
            shutil.copy(source, folder / "isogon" / name)
    if (ROOT.parent / "shared").exists():
        (folder / "shared").symlink_to(ROOT.parent / "shared")


def found(fault: Fault, root: Path) -> str | None:
    """The test that fails with the fault planted; None: none does."""
    path = root / "src" / "isogon" / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(
            f"{fault.name}: {text.count(fault.old)} places in {fault.file} that read {fault.old!r},"
            " 1 expected; say in tests/mutants.py where it is now."
        )
    path.write_text(text.replace(fault.old, fault.new))
    try:
        surroundings = {**os.environ, "PYTHONPATH": str(root / "src")}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*command, *fault.tests], cwd=root, env=surroundings, capture_output=True, text=True
        )
    finally:
        path.write_text(text)
    if run.returncode == 0:
        return None
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode != 1 or not failed:
        raise SystemExit(f"{fault.name}: the tests did not run\n{run.stdout}\n{run.stderr}")
    return failed[0].split(" - ")[0].removeprefix("FAILED ")


def main() -> None:
    """Plant the faults one after another and say which test finds each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", metavar="WORD", default="", help="only faults whose name holds it")
    word = parser.parse_args().k
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for fault in FAULTS:
            if word not in fault.name:
                continue
            start = time.monotonic()
            test = found(fault, Path(folder) / "isogon")
            survived += test is None
            seconds = time.monotonic() - start
            print(f"{fault.name}: {test or 'SURVIVED'} ({seconds:.0f} s)", flush=True)
    sys.exit(survived > 0)


if __name__ == "__main__":
    main()
