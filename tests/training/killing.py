"""Trains a small network over and over, killing it; prints the outcome as JSON.

A process of its own that imports everything once and forks a child per attempt, so that
an attempt costs its training time and not the import of torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from isogon.training import Checkpoint, FitConfig, fit

ARCH = "mlp_bn(width=32, bottleneck=8, depth=1)"  # dropout and batch-norm
CONFIG = FitConfig(
    epochs=3,
    batch_size=32,
    checkpoint_every=2,
    augment=("crop(1)", "flip", "noise(0.05)"),
    label_noise=0.1,
    validation=0.2,
    stratified=True,
    weight_decay=1e-3,
    snapshot_every=1,
)


def attempt(out: Path, config: FitConfig) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fit(ARCH, "digits", config=config, out=out)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(folder: str, kills: int, seed: int, workers: int = 0) -> None:
    config = dataclasses.replace(CONFIG, workers=workers)
    torch.set_num_threads(1)
    fit(ARCH, "digits", config=FitConfig(epochs=0))  # imports what is imported late
    root, rng = Path(folder), random.Random(seed)
    began = time.monotonic()
    _, status = os.waitpid(attempt(root / "calm", CONFIG), 0)
    whole = time.monotonic() - began
    assert status == 0, "the undisturbed run failed"
    steps, done = [], 0
    while done < kills:
        pid = attempt(root / "killed", config)
        time.sleep(rng.uniform(0.02, 0.3 * whole))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        last = root / "killed" / "last.safetensors"
        found = Checkpoint.load(last) if last.exists() else None
        if os.WIFSIGNALED(status):
            done += 1
            steps.append(found.step if found else 0)
        elif found and found.epoch == CONFIG.epochs:
            # it finished before the tenth kill: begin again, the count goes on
            for file in sorted((root / "killed").rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
    _, status = os.waitpid(attempt(root / "killed", config), 0)
    assert status == 0, "the last run failed"
    print(json.dumps({"steps": steps, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
