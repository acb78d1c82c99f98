"""Random draws keyed by (seed, epoch, sample): no state to save, any order, any worker.

A counter-based generator: each number is a mixing function of its key (the finaliser of
SplitMix64, Steele et al. 2014), so the draws for sample 17 in epoch 3 are the same whichever
batch, process or continuation asks for them, and on every version of torch.
"""

from __future__ import annotations

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)

# purposes: two uses of one key never see the same numbers
ORDER, AUGMENT, SPLIT, NOISE, MODEL = range(5)


def uniform(
    indices: np.ndarray | range, count: int = 1, *, seed: int, epoch: int = 0, purpose: int = 0
) -> np.ndarray:
    """Uniform numbers in [0, 1) for samples.

    Args:
        indices: Sample numbers, integers `[N]`.
        count: Numbers per sample.
        seed: Seed of the run.
        epoch: Epoch (0 for what does not change over epochs).
        purpose: Which stream of the run: one of the constants of this module.

    Returns:
        float64 array `[N, count]`.
    """
    return (bits(indices, count, seed=seed, epoch=epoch, purpose=purpose) >> np.uint64(11)) * (
        2.0**-53
    )


def bits(
    indices: np.ndarray | range, count: int = 1, *, seed: int, epoch: int = 0, purpose: int = 0
) -> np.ndarray:
    """Random 64-bit words for samples: uint64 `[N, count]`, keyed as in `uniform`."""
    # arrays throughout: unlike scalars they wrap around without a warning
    key = np.zeros(1, np.uint64)
    for part in (seed, purpose, epoch):
        key = _mix(key + _GAMMA + _mix(np.full(1, part, np.uint64) + _GAMMA))
    rows = _mix(key ^ _mix(np.asarray(indices).astype(np.uint64) + _GAMMA))
    columns = (np.arange(count) + 1).astype(np.uint64) * _GAMMA
    return _mix(rows[:, None] + columns[None, :])


def random_order(n: int, *, seed: int, epoch: int = 0, purpose: int = ORDER) -> np.ndarray:
    """A random order of ``0 .. n-1``: int64 `[n]`."""
    words = bits(np.arange(n), seed=seed, epoch=epoch, purpose=purpose)[:, 0]
    return words.argsort(kind="stable")


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _M1
    z = (z ^ (z >> np.uint64(27))) * _M2
    return z ^ (z >> np.uint64(31))
