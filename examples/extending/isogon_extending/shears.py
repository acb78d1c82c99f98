"""A family of transformations: horizontal shears of images."""

from __future__ import annotations

import numpy as np

from isogon.actions import Affine, Family
from isogon.registry import family


@family()
def shears(count: int = 5, low: float = -0.4, high: float = 0.4) -> Family:
    """Horizontal shears x -> x + k y about the image's centre; the identity comes first.

    Args:
        count: Number of factors, evenly spaced.
        low: Smallest factor k (pixels to the right per pixel down).
        high: Largest factor.
    """
    members = []
    for k in np.linspace(low, high, count).round(12).tolist():
        matrix = ((1.0, k, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        members.append(Affine(matrix, label=f"shear {k:g}", parameters={"shear": k}))
    return Family(members, "shears")
