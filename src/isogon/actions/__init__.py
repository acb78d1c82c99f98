"""Actions on tensors: warps of images, their families, and groups acting on channels."""

from __future__ import annotations

from isogon.actions.action import Action, Affine, Brightness, Function, Identity
from isogon.actions.channels import Channels, Group
from isogon.actions.family import Family, family
from isogon.actions.groups import group

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
