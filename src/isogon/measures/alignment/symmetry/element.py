"""One weight symmetry: an order of the units of each group, and the scales of units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Element:
    """A weight symmetry.

    Attributes:
        order: For each group, ``[n]``: unit i of the image is unit ``order[i]`` of the model.
        scale: Each scale of the image.
    """

    order: list[np.ndarray]
    scale: np.ndarray

    @property
    def moved(self) -> int:
        """Number of units that are not at their own place."""
        return sum(int((o != np.arange(len(o))).sum()) for o in self.order)
