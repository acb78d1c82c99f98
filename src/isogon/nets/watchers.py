"""Watchers: what a pass over data gives activations to, and how they name what they want."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from isogon.nets.sites import Site
from isogon.stats.wrappers import feed

if TYPE_CHECKING:
    from isogon.stats.base import Stat


# What is not a site of the graph, and is asked for in the same way.
INPUT = Site("<input>")  # as the model gets it: on its device, in its dtype, under the orbit
OUTPUT = Site("<output>")  # the tensor in the model's output
LOGITS = Site("<logits>")  # that before a trailing softmax, [n, C]

Key = Site | tuple[str, Site]  # the second form where there are several models
Models = nn.Module | Mapping[str, nn.Module]


class Viewer(Protocol):
    """What takes in activations, chunk by chunk, in one pass."""

    @property
    def sites(self) -> Collection[Key]:
        """What it wants: sites, `INPUT`, `OUTPUT`, `LOGITS`; of several models ``(name, site)``."""
        ...

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk.

        Args:
            values: By site, ``[n, *site.shape]``, under an orbit ``[n, T, *site.shape]``, of
                every model for the same samples. They are the model's own tensors: not to be
                changed, and copied where they are kept.
            labels: ``[n]``.
            rows: Which samples of the data these are, int64 ``[n]``.
        """
        ...


class Watcher(Viewer, Protocol):
    """One that says whether it wants another pass, can be shared out, and gives a result."""

    def again(self) -> bool:
        """At the end of a pass: whether another one is wanted, for which all is made ready."""
        ...

    def share(self) -> Self:
        """A watcher for another share of the data, that knows what the passes before found."""
        ...

    def merge(self, other: Self) -> Self:
        """Take in what the watcher of another share has seen in this pass."""
        ...

    def result(self) -> Any:
        """What was found."""
        ...


@runtime_checkable
class Reducer(Viewer, Protocol):
    """A viewer of many sites at once that needs something smaller than what lies there.

    It is asked for that as soon as a site is reached, while the values are in the cache, and
    nothing else is kept until `update` gets what it made, for all sites.
    """

    @property
    def keeps_nan(self) -> bool:
        """Whether a NaN in a value is a NaN in what is made of it: then only that is looked at."""
        ...

    def reduced(self, key: Key, value: Tensor) -> Tensor:
        """What `update` is to be given in place of a site's value, as it would be given."""
        ...


class Orbit(Protocol):
    """Transformations of inputs, such as an `isogon.actions.Family`."""

    def __len__(self) -> int:
        """T, for each input."""
        ...

    def orbit(self, x: Tensor, /) -> Tensor:
        """Inputs ``[n, ...]`` under each of them, ``[T, n, ...]``."""
        ...


class Once:
    """What watchers that need one pass have in common."""

    def again(self) -> bool:
        """One pass is enough."""
        return False


class PerSample(Once):
    """A watcher that computes something of the inputs themselves, a chunk at a time.

    Args:
        compute: From inputs ``[n, ...]`` and labels ``[n]`` to whatever they give; runs the model
            itself where it needs to, gradients included.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Any]) -> None:
        self.sites, self.compute = (INPUT,), compute
        self.found: list[tuple[int, Any]] = []

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Compute it."""
        with torch.enable_grad():
            self.found.append((int(rows[0]), self.compute(values[INPUT], labels)))

    def share(self) -> PerSample:
        """The same, empty."""
        return PerSample(self.compute)

    def merge(self, other: PerSample) -> PerSample:
        """Take in what another one has computed."""
        self.found += other.found
        return self

    def result(self) -> list[Any]:
        """What was computed, in the order of the samples."""
        return [value for _, value in sorted(self.found, key=lambda f: f[0])]


class Of(Once):
    """A watcher that feeds a statistic with the values of one site, or of several in their order.

    Args:
        sites: The site, or a tuple of keys: two of them make a pair.
        make: Makes the statistic; ``update`` takes as many tensors as there are sites, and labels
            and rows if it is one of the wrappers of `isogon.stats`.

    Attributes:
        stat: The statistic.

    Example:
        >>> from isogon.nets.passes import all_passes
        >>> from isogon.stats import CrossMoments, Moments, Pair
        >>> import torch
        >>> net, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.rand(4, 2)
        >>> a, b = Of(Site("0"), Moments), Of((Site("0"), Site("1")), lambda: Pair(CrossMoments()))
        >>> all_passes(net, [(x, torch.zeros(4))], [a, b])
        4
        >>> a.result().mean.shape, b.result().xy.shape
        (torch.Size([3]), torch.Size([3, 3]))
    """

    def __init__(self, sites: Site | tuple[Key, ...], make: Callable[[], Stat]) -> None:
        one = isinstance(sites, Site) or isinstance(sites[0], str)
        self.sites: tuple[Key, ...] = (sites,) if one else tuple(sites)  # type: ignore[arg-type]
        self.make = make
        self.stat = make()

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Feed the statistic."""
        feed(self.stat, *(values[site] for site in self.sites), labels=labels, rows=rows)

    def share(self) -> Of:
        """The same, empty."""
        return Of(self.sites, self.make)

    def merge(self, other: Of) -> Of:
        """Merge the statistics."""
        self.stat.merge(other.stat)
        return self

    def result(self) -> Any:
        """The statistic's result."""
        return self.stat.compute()
