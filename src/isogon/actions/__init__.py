"""Actions on tensors: warps of images, their families, and groups acting on channels."""

from __future__ import annotations

from typing import Any

from isogon import registry
from isogon.actions.action import Action, Affine, Brightness, Function, Identity
from isogon.actions.family import Family, family


def group(spec: Any) -> Any:
    """The group acting on channels that a spec names, e.g. ``"orthogonal"``; groups pass through.

    Raises:
        SpecError: No such group, or wrong arguments.
    """
    return registry.build("group", spec) if isinstance(spec, str) else spec


__all__ = ["Action", "Affine", "Brightness", "Family", "Function", "Identity", "family", "group"]
