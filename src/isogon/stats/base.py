"""What every streaming statistic has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch

from isogon.errors import DataError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Stat(Protocol):
    """A statistic of a stream that can be merged with one of another part of it."""

    def update(self, *x: Any, **coords: Any) -> Self:
        """Take in a batch, of as many tensors as the statistic is of."""
        ...

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        ...

    def compute(self) -> Any:
        """The result so far."""
        ...


class Stored(Stat, Protocol):
    """A statistic that can be written down and go on elsewhere."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes back."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the statistic that gave the state."""
        ...


S = TypeVar("S", bound=Stored)


def all_reduce(stat: S, group: ProcessGroup | None = None) -> S:
    """Merge a statistic over all processes of a group; the whole in each of them.

    Args:
        stat: The statistic of this process's share.
        group: A process group; the default one where not given.

    Returns:
        A statistic of the same kind, the same in every process; ``stat`` itself where no
        processes are connected.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return stat
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, _to(stat.state_dict(), torch.device("cpu")), group=group)
    whole = type(stat).__new__(type(stat)).load_state_dict(states[0])
    for state in states[1:]:
        whole.merge(type(stat).__new__(type(stat)).load_state_dict(state))
    return whole


def merged_moments(
    n_a: int,
    mean_a: torch.Tensor,
    m2_a: torch.Tensor,
    n_b: int,
    mean_b: torch.Tensor,
    m2_b: torch.Tensor,
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Count, mean and sum of squared deviations of two parts together (Chan et al. 1983)."""
    if n_b == 0:
        return n_a, mean_a, m2_a
    if n_a == 0:
        return n_b, mean_b, m2_b
    n = n_a + n_b
    delta = mean_b - mean_a
    mean = mean_a + delta * (n_b / n)
    return n, mean, m2_a + m2_b + delta.square() * (n_a * (n_b / n))


def batch_moments(x: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sum of squared deviations along an axis, in float64, in two passes."""
    x = x.double()
    mean = x.mean(dim)
    return mean, (x - mean.unsqueeze(dim)).square().sum(dim)


def check_shape(got: torch.Size | tuple, expected: torch.Size | tuple, what: str) -> None:
    """Refuse a batch whose units are not those of the earlier ones."""
    if tuple(got) != tuple(expected):
        raise DataError(
            f"{what} changes its shape within a stream",
            got=tuple(got),
            expected=tuple(expected),
            fix="Give batches of one shape, or a statistic to each shape.",
        )


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {k: _to(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(v, device) for v in value)
    return value
