"""Random states of layers: each drawn again by its own initialisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from isogon.measures.arrangement.layers import Layer, filters
from isogon.nets.redrawn import redrawn
from isogon.nets.states import load_weights

Fresh = Callable[[], Module]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers inside follow from a seed; the global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_state(
    model: Module, layers: Mapping[str, Sequence[str]], seed: int, fresh: Fresh | None
) -> dict[str, Tensor]:
    """A state dict with every layer in a random state.

    Args:
        model: The model; not changed.
        layers: Names of the tensors of each layer, by its path.
        seed: Of the random numbers.
        fresh: Makes an untrained model whose state it is; None to draw each layer by its own
            ``reset_parameters``.

    Raises:
        ModelError: A layer has none.
    """
    with seeded(seed):
        if fresh is not None:
            return dict(fresh().state_dict())
        modules, state = dict(model.named_modules()), {}
        for keys in layers.values():
            # a parametrisation's tensors are redrawn with the layer that it belongs to
            owners = (k.rpartition(".")[0].split(".parametrizations.")[0] for k in keys)
            for path in dict.fromkeys(owners):
                state |= {f"{path}.{k}": v for k, v in redrawn(modules[path], path).items()}
    return state


@torch.no_grad()
def random_masses(layers: Sequence[Layer], count: int, seed: int) -> np.ndarray:
    """Number of filters whose projection is not positive, in random states of each layer.

    Args:
        layers: The layers; their batch-norms stay as they are.
        count: How many random states.
        seed: Of the random numbers.

    Returns:
        ``[count, layers]``, int64.

    Raises:
        ModelError: A layer has no ``reset_parameters``.
    """
    found = np.empty((count, len(layers)), np.int64)
    with seeded(seed):
        for j, layer in enumerate(layers):
            for i, w in enumerate(_redraws(layer, count)):
                projection = w.sum(1)
                if layer.scale is not None:
                    projection = projection * layer.scale[:, 0].to(projection)
                found[i, j] = int((projection <= 0).sum())
    return found


def _redraws(layer: Layer, count: int) -> Iterator[Tensor]:
    """Filters [units, inputs] of so many random states of a layer."""
    module = layer.module
    computed = bool(module._forward_pre_hooks) or hasattr(module, "parametrizations")
    plain = hasattr(module, "reset_parameters") and not computed
    twin = copy.deepcopy(module)
    for _ in range(count):
        if plain:
            twin.reset_parameters()  # type: ignore[operator]
        else:
            load_weights(twin, redrawn(module, layer.site))
        w = filters(twin)
        assert w is not None
        yield w.cpu()
