"""Leaves of noise: images moved off the data in the kernel before walks begin at them."""

from __future__ import annotations

import torch
from torch import Tensor

from isogon.readings import Path

REPROJECT = 10  # so that clamping to the images' domain does not push a walk out of the kernel


def noise_kept(image: Tensor, noisy: Tensor, end: Tensor) -> Tensor:
    """Share of the noise that is left at the end of a walk, `[n]`.

    <end - image, noise> / |noise|^2 with noise = noisy - image: 1 where the walk leaves it alone,
    about 0 at another image without noise. NaN where there is none.

    Args:
        image: `[n, ...]` before noise was added.
        noisy: Where the walks began.
        end: Where they ended.
    """
    first, begun, last = (t.detach().cpu().double().flatten(1) for t in (image, noisy, end))
    noise = begun - first
    return ((last - first) * noise).sum(1) / (noise * noise).sum(1)


def remember(path: Path, image: Tensor) -> Path:
    """The walks of a reading, which began at noisy images, with those images and what was kept."""
    ends = (torch.from_numpy(path.arrays[name]) for name in ("start", "end"))
    image = image.detach().cpu().double().expand(path.arrays["start"].shape)
    share = noise_kept(image, *ends)
    path.arrays |= {"image": image.numpy().copy(), "noise_kept": share.numpy()}
    path.axes |= {"image": path.axes["start"], "noise_kept": ("walk",)}
    path.meta["summary"]["noise_kept"] = share.tolist()
    return path
