"""The noun Group: from a spec, or an activation, to the group that acts on channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from isogon import registry
from isogon.actions.channels import Group
from isogon.actions.intertwiners import group_of


@registry.register(
    "noun",
    "Group",
    kinds=("group",),
    help="a group that acts on channels, see `isogon list groups`",
    typed="orthogonal",
    example="orthogonal",
)
def group(spec: str | Group | Callable[[Tensor], Tensor]) -> Group:
    """The group acting on channels that a spec names, e.g. ``"orthogonal"``; groups pass through.

    Of an activation (a function or module that acts on each number alone, e.g. ``torch.sin``) the
    group of maps that it lets through, found numerically: `isogon.actions.intertwiners.group_of`.

    Raises:
        SpecError: No such group, or wrong arguments.
        OptionError: An activation that is random, constant, or no function of single numbers.
    """
    if isinstance(spec, Group):
        return spec
    if callable(spec):
        return group_of(spec)
    return registry.build("group", spec)
