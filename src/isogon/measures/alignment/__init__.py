"""Alignment: how alike two networks are inside, up to the symmetries of their activations."""

from __future__ import annotations

from isogon.measures.alignment.similarity import similarity

__all__ = ["similarity"]
