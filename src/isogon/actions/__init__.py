"""Actions on tensors: warps of images, their families, and groups acting on channels."""

from __future__ import annotations

from isogon.actions.action import Action, Affine, Brightness, Function, Identity
from isogon.actions.channels import Channels, Group, group
from isogon.actions.family import Family, family

__all__ = [
    "Action",
    "Affine",
    "Brightness",
    "Channels",
    "Family",
    "Function",
    "Group",
    "Identity",
    "family",
    "group",
]
