"""Taps: activations at sites, batch by batch; hooks are always removed.

A captured tensor that a later in-place operation overwrote (``ReLU(inplace=True)``) is noticed by
its version counter; the pass is then repeated with a copy at that site, and from there on the
copy is made at once. Nothing is copied where nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isogon.errors import ModelError
from isogon.nets.hygiene import preserved
from isogon.nets.sites import Site
from isogon.nets.unwrap import unwrap
from isogon.nets.watch import watched

Tap = Callable[[Tensor], tuple[Any, dict[Site, Tensor]]]


@contextmanager
def tap(model: nn.Module, sites: Iterable[Site], *, grad: bool = False) -> Iterator[Tap]:
    """Read activations at sites.

    The model is in evaluation mode inside and as it came afterwards, also after an exception; the
    user's own hooks run as always, before the tap's.

    Args:
        model: Any module.
        sites: Where to read; of `isogon.nets.sites.sites`.
        grad: Keep the autograd graph of activations and output.

    Yields:
        A function from inputs ``[N, ...]`` to what the model returns and a dict from site to
        activation ``[N, *site.shape]``, in the order of ``sites``.

    Raises:
        ModelError: A site is not reached by a forward pass.
    """
    model = unwrap(model)
    wanted, modules, operations = wanted_modules(model, sites)
    caught: dict[Site, tuple[Tensor, int | None]] = {}
    overwritten: set[Site] = set()

    def report(path: str, call: int, op: str, value: Tensor) -> None:
        site = wanted.get((path, call))
        if site is None:
            return
        value = value if grad else value.detach()
        if value.is_inference() or site in overwritten:
            caught[site] = value.clone(), None
        else:
            caught[site] = value, value._version

    def forward(x: Tensor) -> tuple[Any, dict[Site, Tensor]]:
        while True:
            caught.clear()
            with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
                output = run(x)
            stale = {
                s
                for s, (t, version) in caught.items()
                if version is not None and t._version != version
            }
            if not stale:
                break
            overwritten.update(stale)
        for site in wanted.values():
            if site not in caught:
                raise unreached(site)
        values = {site: caught[site][0] for site in wanted.values()}
        caught.clear()
        return output, values

    with (
        preserved(model),
        watched(model, report, modules=modules, operations=operations) as run,
    ):
        yield forward


def wanted_modules(
    model: nn.Module, sites: Iterable[Site]
) -> tuple[dict[tuple[str, int], Site], list[nn.Module], bool]:
    """Sites by path and call, the modules to watch, and whether operations are among them."""
    wanted = {(site.path, site.call): site for site in sites}
    paths = dict(model.named_modules())
    for (path, _), site in wanted.items():
        if path not in paths and "#" not in path:
            raise unreached(site)
    modules = [paths[path] for path, _ in wanted if path in paths]
    return wanted, modules, any(path not in paths for path, _ in wanted)


def unreached(site: Site) -> ModelError:
    """What to say of a site that no forward pass comes to."""
    return ModelError(
        "the forward pass does not reach a site",
        got=str(site),
        expected="a site of this model",
        fix="List its sites with isogon.sites(model, 'all', example=x).",
    )
