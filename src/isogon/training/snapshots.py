"""Snapshots: earlier states of a model, as training leaves them behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from isogon import registry
from isogon.errors import FileError, OptionError
from isogon.nets import load
from isogon.nets.weights import read_weights
from isogon.registry import register
from isogon.specs import WEIGHT_SUFFIXES, parse
from isogon.training.checkpoint import Checkpoint


class Snapshots(Mapping[str, dict[str, Tensor]]):
    """Earlier states of one model by name, each read when it is asked for.

    Args:
        sources: By name: a module, a state dict, or a file of weights.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._sources = dict(sources)

    @classmethod
    def of(cls, given: Any) -> Snapshots:
        """Snapshots from a mapping, a list, a folder of checkpoints, one model, or None."""
        if given is None:
            return cls({})
        if isinstance(given, Snapshots):
            return given
        if isinstance(given, str | os.PathLike):
            return snapshots(str(given))
        if isinstance(given, Module) or _is_state(given):
            return cls({"snapshot": given})
        if isinstance(given, Mapping):
            return cls({str(k): v for k, v in given.items()})
        if isinstance(given, Sequence):
            files = [Path(g).stem for g in given if isinstance(g, str | os.PathLike)]
            labels = files if len(set(files)) == len(given) else list(map(str, range(len(given))))
            return cls(dict(zip(labels, given, strict=True)))
        raise OptionError(
            "these are no snapshots",
            got=type(given).__name__,
            expected="a folder, or models, state dicts or files by name",
        )

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        source = self._sources[name]
        if isinstance(source, str | os.PathLike) and str(source).endswith(WEIGHT_SUFFIXES):
            state, meta = read_weights(Path(source))
            source = Checkpoint.load(source) if meta else state
        elif isinstance(source, str | os.PathLike):
            source = load.load(source)
        if isinstance(source, Checkpoint):
            return source.state_dict()
        return dict(source.state_dict()) if isinstance(source, Module) else dict(source)

    def when(self, name: str) -> tuple[int, int] | None:
        """Epochs and steps that a snapshot had been trained for, where its file says so."""
        source = self._sources[name]
        return (source.epoch, source.step) if isinstance(source, Checkpoint) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@register(
    "noun",
    "Snapshots",
    help="a training run's folder of snapshots, e.g. runs/cnn, or one earlier state",
    typed="trained(cnn, digits, epochs=1)",
    example="cnn(width=2, size=8)",
    default="@initial",
)
def snapshots(spec: str) -> Snapshots:
    """Snapshots from a spec: a training run's folder (or one of checkpoints), or one model.

    ``trained(cnn, digits, epochs=5, snapshot_every=1)`` names the snapshots of that run.

    Raises:
        FileError: A folder without checkpoints.
    """
    folder = Path(str(spec))
    parsed = None if folder.is_dir() else parse(spec)
    if parsed is not None and parsed.name == "trained" and "snapshot_" in " ".join(parsed.kwargs):
        from isogon.training import trained

        folder = registry.call(trained.folder, parsed, what="trained")
    if not folder.is_dir():
        return Snapshots({str(spec): load.load(spec)})
    inner = folder / "snapshots"
    files = sorted((inner if inner.is_dir() else folder).glob("*.safetensors"))
    if not files:
        raise FileError(
            f"no snapshots in {str(spec)!r}",
            got="a folder without .safetensors files",
            expected="what `isogon train --snapshot-every 1` writes",
            fix="Train with snapshots, or name another folder.",
        )
    found = {f.stem: Checkpoint.load(f) for f in files}
    order = sorted(found, key=lambda name: (found[name].step, name))
    return Snapshots({name: found[name] for name in order})


def _is_state(given: Any) -> bool:
    return isinstance(given, Mapping) and any(isinstance(v, Tensor) for v in given.values())
