"""Families: finite lists of actions, the identity first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from isogon import registry
from isogon.actions.action import Action, Affine, Function, Identity
from isogon.actions.warp import warp, warp_each
from isogon.errors import DataError, OptionError
from isogon.specs import Spec, parse


class Family:
    """A finite, labelled list of actions; the first is the identity.

    Args:
        actions: Actions or callables on batches; the identity is put first where it is missing,
            and moved there where it is not.
        name: What reports call the family; canonical text of its spec where it came from one.

    Example:
        >>> len(family("rotations(8)")), family("rotations(8)").labels[:2]
        (8, ['0°', '45°'])
    """

    def __init__(self, actions: Iterable[Action | Any], name: str = "family") -> None:
        found = [a if isinstance(a, Action) else _function(a) for a in actions]
        if not found:
            raise OptionError("a family without members", expected="at least one action")
        still = next((i for i, a in enumerate(found) if _is_identity(a)), None)
        first = Identity() if still is None else found.pop(still)
        self.actions: list[Action] = [first, *found]
        self.name = name
        self._on_maps: dict[tuple, list[Action]] = {}

    def __len__(self) -> int:
        return len(self.actions)

    def __iter__(self) -> Iterator[Action]:
        return iter(self.actions)

    def __getitem__(self, i: int) -> Action:
        return self.actions[i]

    def __repr__(self) -> str:
        return f"Family({self.name}, {len(self)} members)"

    @property
    def labels(self) -> list[str]:
        """Labels of the members."""
        return [a.label for a in self.actions]

    def __mul__(self, other: Family) -> Family:
        """Every member of this family after every member of the other, without repeats."""
        found: dict[Any, Action] = {}
        for a in self.actions:
            for b in other.actions:
                action = a.after(b)
                key = id(action)
                if isinstance(action, Affine):
                    key = tuple(np.round(np.asarray(action.matrix), 9).reshape(-1).tolist())
                found.setdefault(key, action)
        return Family(found.values(), f"product({self.name}, {other.name})")

    def orbit(self, x: torch.Tensor) -> torch.Tensor:
        """Every member on a batch: ``[N, *shape] -> [T, N, *shape]``, the batch itself first."""
        return _apply(self.actions, x)

    def undo(self, maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The inverse of each member on its feature map.

        Args:
            maps: ``[T, N, C, h, w]``, of inputs transformed by the T members.
            size: ``(H, W)`` of the inputs.

        Returns:
            ``[T, N, C, h, w]``. Inverses are those of the whole member, composed, never part
            by part.
        """
        return _apply_each(self._maps(size, maps.shape[-2:], undone=True), maps)

    def act(self, maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Each member on feature maps of untransformed inputs: ``[N, C, h, w] -> [T, N, ...]``."""
        return _apply(self._maps(size, maps.shape[-2:], undone=False), maps)

    def warps(
        self, size: Sequence[int], maps: Sequence[int], undone: bool = False
    ) -> tuple[np.ndarray, str, str] | None:
        """Members, or their inverses, on maps of a size as matrices ``[T, 3, 3]``.

        Returns:
            Matrices, padding and mode; None where not all are warps of one kind.
        """
        return _matrices(self._maps(size, maps, undone))

    def _maps(self, size: Sequence[int], maps: Sequence[int], undone: bool) -> list[Action]:
        """The members, or their inverses, on maps of a size."""
        key = (*size, *maps, undone)
        if key not in self._on_maps:
            moved = [a.on(size, maps) for a in self.actions]
            self._on_maps[key] = [a.inverse() for a in moved] if undone else moved
        return self._on_maps[key]

    def sample(self, generator: torch.Generator) -> Action:
        """A random member, each with the same probability."""
        return self.actions[int(torch.randint(len(self), (), generator=generator))]

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random member on each sample of its own: data augmentation, ``[N, *shape]``."""
        chosen = torch.randint(len(self), (len(x),), generator=generator).tolist()
        out = torch.empty_like(x)
        for t in set(chosen):
            rows = [i for i, c in enumerate(chosen) if c == t]
            out[rows] = self.actions[t](x[rows])
        return out

    def to_frame(self) -> pd.DataFrame:
        """One row per member: label, parameters and, for affine maps, the matrix in pixels."""
        rows = []
        for a in self.actions:
            row: dict[str, Any] = {"label": a.label, **a.parameters}
            matrix = np.eye(3) if isinstance(a, Identity) else getattr(a, "matrix", None)
            if matrix is not None:
                for name, value in zip("abcdef", np.asarray(matrix)[:2].reshape(-1)):
                    row[f"matrix_{name}"] = float(value)
            rows.append(row)
        return pd.DataFrame(rows)

    def facts(self) -> dict[str, Any]:
        """What a record keeps: name, labels, parameters and exact matrices."""
        matrices = [
            np.eye(3).tolist() if isinstance(a, Identity) else getattr(a, "matrix", None)
            for a in self.actions
        ]
        parameters = [a.parameters for a in self.actions]
        sampling = {(a.padding, a.mode) for a in self.actions if isinstance(a, Affine)}
        return {
            "name": self.name,
            "labels": self.labels,
            "parameters": parameters,
            "matrices": matrices,
            "sampling": sorted(sampling),
        }


@registry.register(
    "noun",
    "Family",
    kinds=("family",),
    help='a family of transformations, e.g. "rotations(16)"',
    typed="rotations(16)",
    example="rotations(4)",
    default="@family",
)
def family(spec: Any) -> Family:
    """The family of transformations that a spec names.

    Args:
        spec: Text such as ``"rotations(16)"`` or ``"product(rotations(4), scales(3))"``,
            ``"my.pkg:build()"`` (runs that code; it returns a family or a list of callables),
            a family, or a list of actions and callables.

    Returns:
        The family, identity first.

    Raises:
        SpecError: No such family, or wrong arguments.
    """
    if isinstance(spec, Family):
        return spec
    if isinstance(spec, str | Spec):
        spec = parse(spec)
        if spec.module is not None:
            found = registry.call(registry.import_object(spec), spec, what=str(spec))
        else:
            found = registry.build("family", spec)
        if not isinstance(found, Family):
            found = family(found)
        found.name = str(spec)
        return found
    if isinstance(spec, Iterable):
        return Family(spec)
    raise OptionError(
        "not a family of transformations",
        got=type(spec).__name__,
        expected="a spec, a Family, or a list of callables",
    )


# --------------------------------------------------------------------------- internals


def _apply(actions: Sequence[Action], x: torch.Tensor) -> torch.Tensor:
    """``[N, ...] -> [T, N, ...]``; warps of one kind in a single pass."""
    if matrices := _matrices(actions):
        return warp(x, *matrices)
    return torch.stack([a(x) for a in actions])


def _apply_each(actions: Sequence[Action], x: torch.Tensor) -> torch.Tensor:
    """Action t on ``x[t]``."""
    if matrices := _matrices(actions):
        return warp_each(x, *matrices)
    return torch.stack([a(part) for a, part in zip(actions, x)])


def _matrices(actions: Sequence[Action]) -> tuple[np.ndarray, str, str] | None:
    kinds = {(a.padding, a.mode) for a in actions if isinstance(a, Affine)}
    if len(kinds) != 1 or not all(isinstance(a, Affine | Identity) for a in actions):
        return None
    matrices = [np.asarray(a.matrix) if isinstance(a, Affine) else np.eye(3) for a in actions]
    return np.stack(matrices), *kinds.pop()


def _is_identity(action: Action) -> bool:
    if isinstance(action, Affine):
        return bool(np.abs(np.asarray(action.matrix) - np.eye(3)).max() < 1e-12)
    return isinstance(action, Identity) or getattr(action, "factor", None) == 1


def _function(function: Any) -> Function:
    if not hasattr(function, "__call__"):  # noqa: B004 - `callable` narrows the type too far
        raise DataError(
            "a member of a family must be callable",
            got=type(function).__name__,
            expected="an Action or a function of a batch",
        )
    return Function(function, label=getattr(function, "__name__", "function"))
