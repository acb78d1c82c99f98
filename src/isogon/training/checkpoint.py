"""Checkpoints: one safetensors file that holds a model and all that resuming needs.

Format (``format`` 1):

- tensors ``model.<name>``: the state of the architecture, under its own names;
- tensors ``optimizer.<parameter number>.<name>``: state of the optimiser;
- tensors ``random.<generator>``: states of the random generators that the model may draw from
  (``torch``, ``cuda``, ``numpy``, ``python``);
- metadata ``isogon``: one JSON object with ``format``; ``spec`` (the architecture, with every
  argument that the data decided; null for a module that was passed in); ``normalize`` (null, or
  ``mean`` and ``std`` per channel: a `Normalize` layer goes before the architecture);
  ``data`` (spec), ``data_digest``, ``shape`` (of one sample), ``classes``, ``samples`` (their
  number); ``initial`` (digest of a start that did not come from the seed); ``code`` (digest of a
  user's source of the architecture, or null); ``config`` (options of training); ``seed``;
  ``epoch`` (complete ones), ``step`` (updates made), ``batch`` (batches done of the epoch that
  has begun); ``metrics`` (latest), ``history`` (one row per epoch); ``state`` (numbers of
  optimiser and loop); ``versions``.

A reader needs ``spec``, ``normalize`` and the tensors under ``model.`` to have the model back.
A spec that imports code, opens a file, trains or downloads is never built because a file says so.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon import storage
from isogon.errors import FileError, ModelError
from isogon.nets.fitting import check_fits
from isogon.nets.origin import marked
from isogon.nets.states import load_weights
from isogon.specs import Spec, parse
from isogon.training.state import isolated

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
KEY = "isogon"
MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."
_TYPES: dict[str, Any] = {
    "spec": (str, type(None)),
    "normalize": (dict, type(None)),
    "shape": list,
    "classes": list,
    "config": dict,
    "epoch": int,
    "step": int,
    "batch": int,
    "metrics": dict,
    "history": list,
    "state": dict,
}


@dataclass
class Checkpoint:
    """A trained (or half-trained) model with the state of its training.

    Attributes:
        weights: State of the architecture by name.
        meta: The JSON metadata that the module's docstring lists.
        optimizer: Tensors of the optimiser's state by ``<parameter number>.<name>``.
        random: States of random generators, uint8 or int64 tensors.
        path: The file it was read from or last written to.
        template: The module that was trained, where it was passed in as one.
        typed: Whether ``spec`` was given to this process, and not brought by a file.
    """

    weights: dict[str, Tensor]
    meta: dict[str, Any]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)
    path: Path | None = None
    template: nn.Module | None = field(default=None, repr=False)
    typed: bool = field(default=False, repr=False)

    @property
    def spec(self) -> str | None:
        """Spec of the architecture; None where a module was passed in."""
        return self.meta["spec"]

    @property
    def epoch(self) -> int:
        """Complete epochs."""
        return self.meta["epoch"]

    @property
    def step(self) -> int:
        """Optimisation steps made."""
        return self.meta["step"]

    @property
    def metrics(self) -> dict[str, float]:
        """The latest metrics by name."""
        return self.meta["metrics"]

    @property
    def history(self) -> Any:
        """Metrics of every epoch: a data frame with one row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.meta["history"])

    def model(self, arch: Spec | None = None) -> nn.Module:
        """A fresh model with these weights, in eval mode, from raw inputs to logits.

        Args:
            arch: The architecture as somebody typed it, which is then built in place of what
                the file says; code of the user's own is run only so.

        Raises:
            ModelError: No spec to build from, or the weights belong to another architecture.
            SpecError: The file's spec names more than an architecture of isogon's own.
        """
        with isolated():  # building draws initial weights
            net = copy.deepcopy(self.template) if self.template is not None else self._build(arch)
        load_state(net, self.weights, what=self.spec or type(net).__name__)
        net = with_normalization(net, self.meta["normalize"])
        source = None if self.path is None else str(self.path)
        return marked(net, self.meta["classes"], source, self.meta["shape"]).eval()

    def state_dict(self) -> dict[str, Tensor]:
        """The state of `model`, without building the architecture: it may be code of the user's."""
        from isogon.nets.normalize import Normalize

        constants = self.meta["normalize"]
        if constants is None:
            return dict(self.weights)
        layer = Normalize(constants["mean"], constants["std"]).state_dict()
        inner = {f"model.{k}": v for k, v in self.weights.items()}
        return {f"normalize.{k}": v for k, v in layer.items()} | inner

    def _build(self, arch: Spec | None) -> nn.Module:
        from isogon import nets
        from isogon.nets import budget

        if arch is not None:
            return nets.build(arch)
        if self.spec is not None and self.typed:
            return nets.build(self.spec)
        where = self.path or "FILE.safetensors"
        if self.spec is None or parse(self.spec).module is not None:
            raise ModelError(
                "this checkpoint's model comes from code outside isogon",
                got=self.spec or "a module that was passed to fit",
                expected="a registered architecture",
                fix=f"Name the code yourself: 'my.module:build()@{where}'.",
            )
        # Shapes first, on no device: a small file must not make us allocate a huge model.
        shapes = budget.built(lambda: nets.build(self.spec), self.weights, where)
        check_state(shapes, self.weights, what=self.spec)
        with budget.source(self.weights, where):
            return nets.build(self.spec)

    def save(self, path: str | os.PathLike) -> Checkpoint:
        """Write one safetensors file, atomically.

        Raises:
            FileError: The file can't be written; an existing one is as it was.
        """
        tensors: dict[str, Tensor] = {}
        for prefix, group in (
            (MODEL, self.weights),
            (OPTIMIZER, self.optimizer),
            (RANDOM, self.random),
        ):
            tensors |= {prefix + k: v.detach().cpu().contiguous() for k, v in group.items()}
        text = json.dumps({"format": FORMAT, **storage.plain(self.meta)})
        storage.write_tensors(path, tensors, {KEY: text})
        self.path = Path(path)
        return self

    @staticmethod
    def load(path: str | os.PathLike) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            FileError: Not there, damaged, or not one of isogon's checkpoints.
        """
        tensors, metadata = storage.read_tensors(path, framework="pt")
        groups: dict[str, dict[str, Tensor]] = {MODEL: {}, OPTIMIZER: {}, RANDOM: {}}
        for name, value in tensors.items():
            prefix = name.split(".", 1)[0] + "."
            if prefix in groups:
                groups[prefix][name[len(prefix) :]] = value
        return Checkpoint(
            groups[MODEL],
            _metadata(path, metadata),
            groups[OPTIMIZER],
            groups[RANDOM],
            path=Path(path),
        )


def _metadata(path: str | os.PathLike, metadata: dict[str, str]) -> dict[str, Any]:
    """The checked metadata of a checkpoint file."""
    try:
        meta = json.loads(metadata[KEY])
        version = meta.pop("format")
    except (KeyError, ValueError, RecursionError, AttributeError, TypeError) as error:
        raise FileError(
            f"{str(path)!r} is not a checkpoint of isogon",
            got=f"metadata {', '.join(metadata) or 'none'}",
            expected=f"a safetensors file with the metadata key {KEY!r}",
            fix=f"Load bare weights into an architecture: 'ARCH(...)@{path}'.",
        ) from error
    if version != FORMAT:
        raise FileError(
            f"{str(path)!r} was written by another version of isogon",
            got=f"format {version}",
            expected=f"format {FORMAT}",
            fix="Update isogon.",
        )
    for key, kind in _TYPES.items():
        value = meta.get(key)
        good = key in meta and isinstance(value, kind) and not isinstance(value, bool)
        if kind is int:
            good = good and 0 <= value < 2**63
        if key == "normalize" and isinstance(value, dict):
            good = good and all(_all(value.get(k), int | float) for k in ("mean", "std"))
        if key == "history":
            good = good and _all(value, dict)
        if not good:
            raise FileError(
                f"{str(path)!r} is not a valid checkpoint",
                got=f"{key} = {value!r}",
                expected="what a run of isogon writes",
                fix="It was damaged or made by hand: train again.",
            )
    return meta


def _all(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) for v in values)


def with_normalization(net: nn.Module, constants: dict[str, list[float]] | None) -> nn.Module:
    """``net`` behind a `Normalize` layer of these constants (None: ``net`` itself)."""
    from isogon.nets.normalize import normalized as behind

    return net if constants is None else behind(net, constants["mean"], constants["std"])


def check_state(net: nn.Module, weights: dict[str, Tensor], *, what: str) -> None:
    """Refuse weights whose names or shapes are not those of ``net``.

    Raises:
        ModelError: Naming the first tensors that differ.
    """
    problem = f"the weights belong to another architecture than {what}"
    check_fits(net, weights, source="weights", what=what, problem=problem, counters=True)


def load_state(net: nn.Module, weights: dict[str, Tensor], *, what: str) -> None:
    """Copy ``weights`` into ``net`` after `check_state`."""
    check_state(net, weights, what=what)
    load_weights(net, weights)
