"""Which layers matter: put one layer back to an earlier or a random state, measure the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import Module

from isogon import context
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.arrangement.criticality import bias, correlation, interval
from isogon.measures.arrangement.layers import NORMS
from isogon.measures.arrangement.random_states import random_state
from isogon.measures.arrangement.resets import Resets
from isogon.nets import hygiene
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.origin import check_classes
from isogon.nets.sites import choose, registered
from isogon.nets.states import fitted, weight_of
from isogon.nets.unwrap import unwrap
from isogon.readings import Grid
from isogon.registry import measure
from isogon.training.snapshots import Snapshots

SHOWN = 6  # snapshots in the summary


class Reset(Grid):
    """Accuracy of a model with one layer put back, by layer and snapshot."""

    def summary(self) -> pd.DataFrame:
        """One row per layer: its drops, and the bias of its orientation.

        Columns: site, one per snapshot (its drop; at most six, evenly spread), mean_drop,
        bias (share of filters whose projection is not positive, less 1/2).
        """
        drop, names = self.arrays["drop"], list(map(str, self.coords["snapshot"]))
        places = np.unique(np.linspace(0, len(names) - 1, min(SHOWN, len(names))).round())
        frame = pd.DataFrame({"site": list(map(str, self.coords["site"]))})
        for k in places.astype(int):
            frame[f"drop, {names[k]}"] = drop[:, k]
        frame["mean_drop"] = drop.mean(1)
        frame["bias"] = [self.meta["bias"].get(site, np.nan) for site in frame["site"]]
        return frame


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
    bootstrap: int = 1000,
    reuse: bool = True,
) -> Reset:
    r"""How much accuracy is lost when one layer is put back to an earlier or a random state.

    For each selected layer and each snapshot, the layer's parameters take their values in the
    snapshot while all others stay; ``drop`` = accuracy of the model - accuracy so. A layer that
    can be reset without a loss is called ambient, one that can't critical. A module that is used
    several times, or a tensor that several layers share, is reset wherever it is used.

    What comes before a layer is computed once for all of its states (and kept batch by batch, so
    that memory does not grow with the data), with the same bits as whole passes: the graph is
    compared with the model on two samples, with each layer as it is and changed; layers where
    they differ, or whose tensors the graph does not show, are measured by whole passes
    (``meta["whole_passes"]``).

    Beside it ``meta["bias"]``: the share of a layer's filters whose projection on the all-ones
    direction is not positive, less 1/2 (see `orientation`); and ``meta["correlation"]``: for each
    snapshot Spearman's rank correlation over layers of drop and \|bias\|, with its p-value and n.

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
        bootstrap: Number of resamplings for the 95 % interval of each drop; 0 for none. Samples
            are resampled in pairs: the same ones for the model and for the model with a layer
            reset.
        reuse: Keep what comes before a layer; false makes every cell a whole pass.

    Returns:
        One row per layer and snapshot: site, snapshot, accuracy, drop (both in [0, 1]),
        drop_low and drop_high. The accuracy of the model as it is stands in
        ``meta["accuracy"]``.

    Raises:
        ModelError: A snapshot without one of the layers, or with another shape of it; a model
            that is random or depends on the batch.
        OptionError: Nothing to reset, or to reset to; ``bootstrap`` is negative.
        DataError: No samples, or labels that are no classes of the model.
    """
    if bootstrap < 0:
        raise OptionError("bootstrap is negative", got=bootstrap, expected="0 or more")
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
    names = [*given, *(f"random {i + 1}" for i in range(random))]

    def states() -> Iterator[dict[str, dict[str, Tensor]]]:
        for j, name in enumerate(names):
            state = given[name] if name in given else random_state(model, layers, seed + j, fresh)
            what = f"snapshot {name!r}"
            yield {
                path: fitted(model, state, keys, what=what, part=f"layer {path!r}")
                for path, keys in layers.items()
            }

    check_classes(model, batches)
    resets = Resets(model, batches, layers, reuse)
    right = resets.run(states(), len(names), context.progress())
    own = resets.base
    assert own is not None
    whole = float(own.mean())
    table = right.mean(2)
    arrays = {"accuracy": table, "drop": whole - table}
    if bootstrap:
        arrays["drop_low"], arrays["drop_high"] = interval(own, right, bootstrap, seed)
    biases = bias(model, list(layers))
    return Reset.of(
        "reset",
        arrays,
        {"site": list(layers), "snapshot": names},
        units=dict.fromkeys(arrays, "1"),
        meta={
            "accuracy": whole,
            "data": getattr(batches, "name", None),
            "samples": batches.count,
            "norms": norms,
            "seed": seed,
            "bias": biases,
            "correlation": correlation(
                arrays["drop"], [biases.get(p, np.nan) for p in layers], names
            ),
            "whole_passes": [p for p in layers if p not in resets.suffixes],
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
