"""Which layers matter: put one layer back to an earlier or a random state, measure the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Module

from isogon import context
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.nets import hygiene
from isogon.nets.accuracy import accuracy
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.redrawn import redrawn
from isogon.nets.sites import choose, registered
from isogon.nets.states import fitted, swapped, weight_of
from isogon.nets.unwrap import unwrap
from isogon.readings import Grid
from isogon.registry import measure
from isogon.training.snapshots import Snapshots

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@measure(
    cite=("zhang2022", "gamba2022"),
    cost=3.0,
    survey={"random": 3},
    example={"snapshots": "cnn(width=2, size=8)", "random": 1},
    typed={"random": 3},
)
def reset(
    model: Module,
    snapshots: Snapshots,
    batches: Batches,
    *,
    sites: str = "weights",
    random: int = 0,
    norms: bool = False,
    seed: int = 0,
    fresh: Callable[[], Module] | None = None,
) -> Grid:
    """How much accuracy is lost when one layer is put back to an earlier or a random state.

    For each selected layer and each snapshot, the layer's parameters take their values in the
    snapshot while all others stay; ``drop`` = accuracy of the model - accuracy so. A layer that
    can be reset without a loss is called ambient, one that can't critical. A module that is used
    several times, or a tensor that several layers share, is reset wherever it is used.

    Args:
        model: The trained classifier; it is not changed, not even meanwhile.
        snapshots: Its earlier states: a training run's folder, models, state dicts or files by
            name or in a list; may be empty if ``random`` is positive.
        batches: Samples (x, y) that accuracy is measured on.
        sites: Which layers, e.g. ``features.*``; ``weights``: every linear and convolution.
        random: Further resets, to so many random states of the layer.
        norms: Reset the batch-norm that directly follows a layer (in module order, with as many
            features) along with it, its statistics included.
        seed: Of the random states.
        fresh: Makes an untrained model, whose layers are the random states; by default each
            layer is drawn again by its own ``reset_parameters``.

    Returns:
        One row per layer and snapshot: site, snapshot, accuracy, drop (both in [0, 1]). The
        accuracy of the model as it is stands in ``meta["accuracy"]``.

    Raises:
        ModelError: A snapshot without one of the layers, or with another shape of it; a model
            that is random or depends on the batch.
        OptionError: Nothing to reset, or to reset to.
        DataError: No samples, or labels that are no classes of the model.
    """
    check_finite(model)
    model = unwrap(model)
    batches, given = as_batches(batches), Snapshots.of(snapshots)
    examine(model, batches.first(FEW)[0])
    chosen = [s.path for s in choose(model, registered(model), sites)]
    modules = dict(model.named_modules())
    held = [p for p in chosen if next(modules[p].parameters(), None) is not None]
    layers = {p: _keys(modules, p, norms) for p in held}
    if not layers or not (len(given) or random > 0):
        raise OptionError(
            "nothing to reset" if not layers else "nothing to reset to",
            got=f"sites={sites!r}, {len(given)} snapshots, random={random}",
            expected="layers with parameters, and snapshots or random > 0",
            fix="Choose other sites." if not layers else "Give snapshots, or set random.",
        )
    whole = accuracy(model, batches)
    names = [*given, *(f"random {i + 1}" for i in range(random))]
    table = np.empty((len(layers), len(names)))
    report, place = context.progress(), 0
    for j, name in enumerate(names):
        state = given[name] if name in given else _random(model, layers, seed + j, fresh)
        for i, (path, keys) in enumerate(layers.items()):
            what = f"snapshot {name!r}"
            values = fitted(model, state, keys, what=what, part=f"layer {path!r}")
            with swapped(model, values):
                table[i, j] = accuracy(model, batches)
            place += 1
            report(place, table.size, "reset")
    return Grid.of(
        "reset",
        {"accuracy": table, "drop": whole - table},
        {"site": list(layers), "snapshot": names},
        units={"accuracy": "1", "drop": "1"},
        meta={
            "accuracy": whole,
            "data": getattr(batches, "name", None),
            "norms": norms,
            "seed": seed,
            "dtype": hygiene.precision(model),
        },
    )


def _keys(modules: Mapping[str, Module], path: str, norms: bool) -> list[str]:
    """Names of what is reset with a layer: its own tensors, and those of its batch-norm."""
    names = list(modules)
    keys = [f"{path}.{k}" for k in modules[path].state_dict()]
    inside = f"{path}."
    after = [n for n in names[names.index(path) + 1 :] if not n.startswith(inside)][:1]
    norm = modules[after[0]] if after else None
    weight = weight_of(modules[path])
    if norms and isinstance(norm, NORMS) and weight is not None:
        follows = norm.num_features == len(weight)
        keys += [f"{after[0]}.{k}" for k in norm.state_dict() if follows]
    return keys


def _random(
    model: Module, layers: Mapping[str, list[str]], seed: int, fresh: Callable[[], Module] | None
) -> dict[str, Tensor]:
    """A state dict with every layer in a random state; the global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if fresh is not None:
            return dict(fresh().state_dict())
        modules, state = dict(model.named_modules()), {}
        for keys in layers.values():
            # a parametrisation's tensors are redrawn with the layer that it belongs to
            owners = (k.rpartition(".")[0].split(".parametrizations.")[0] for k in keys)
            for path in dict.fromkeys(owners):
                state |= {f"{path}.{k}": v for k, v in redrawn(modules[path], path).items()}
    return state
