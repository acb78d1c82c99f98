"""Weight symmetries: which axes of which weights can be permuted and scaled together."""

from __future__ import annotations

from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.symmetries import Symmetries, symmetries

__all__ = ["Element", "Symmetries", "symmetries"]
