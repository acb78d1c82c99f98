"""From specs and from whatever a caller has to `Samples` and `Batches`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon import context, registry
from isogon.data.batches import Batches, DataLike, SourceBatches
from isogon.data.derived import as_call, with_split
from isogon.data.labels import unlabelled
from isogon.data.samples import Samples, as_samples, is_pair
from isogon.errors import DataError, SpecError
from isogon.specs import Spec

Points = Tensor  # a noun: inputs [n, *shape], given on the command line as a data spec


def samples(
    spec: str | Spec | Samples, *, split: str | None = None, root: str | os.PathLike | None = None
) -> Samples:
    """The data set that a spec names.

    Args:
        spec: ``digits``, ``mnist(test, 512)``, ``imagefolder('photos.zip')``,
            ``my.module:data(3)`` (runs that module), ``arrays.npz``, or a folder of images.
        split: The split to take where the spec does not say which.
        root: Folder of the data sets; None: that of `isogon.context.data_root`.

    Raises:
        SpecError: The spec names no data set, or wrong arguments.
        DataError: Nothing in it.
        FileError: Its files are missing or damaged.
    """
    if isinstance(spec, Samples):
        return spec
    spec = as_call(spec)
    with context.use(data_root=root):
        if spec.module is not None:
            found = _user(spec)
            found = found.samples if isinstance(found, Batches) else found
        else:
            if split is not None:
                spec = with_split(spec, split, only_open=True)
            found = as_samples(registry.build("dataset", spec), name=str(spec))
    if spec.index is None:
        return found
    if not -len(found) <= spec.index < len(found):
        raise SpecError(
            "no such sample",
            got=f"[{spec.index}] of {found.name}",
            expected=f"an index below {len(found)}",
            fix="Choose another index or split.",
        )
    return found.subset([spec.index % len(found)])


@registry.register(
    "noun",
    "Batches",
    kinds=("dataset",),
    help='data with labels, e.g. "digits(test)", "mnist(test, 512)"',
    typed="digits(test)",
    example="digits(test, 12)",
    default="@data",
)
def batches(
    spec: str | Spec | Samples | Any,
    *,
    batch_size: int = 256,
    root: str | os.PathLike | None = None,
    workers: int = 0,
) -> Batches:
    """Batches of the data set that a spec names.

    Args:
        spec: ``digits(test)``, ``mnist(test, 512)`` (the first 512), ``mnist(test, 512,
            seed=0)`` (a seeded subset), ``mnist(test)[3]`` (one sample),
            ``my.module:data(3)`` (runs that module), ``arrays.npz``, a folder of images; or
            anything that `as_batches` takes.
        batch_size: Samples per batch; the last may be smaller.
        root: Folder of the data sets; None: that of `isogon.context.data_root`.
        workers: Processes that read ahead.

    Returns:
        Re-iterable of ``(x [n, *shape], y [n])``; images ``[n, C, H, W]`` in [0, 1].

    Raises:
        SpecError: The spec names no data set, or wrong arguments.
        DataError: Nothing in it.
        FileError: Its files are missing or damaged.
    """
    if not isinstance(spec, str | Spec | Samples):
        return as_batches(spec)  # a loader, or batches already
    if not isinstance(spec, Samples):
        spec = as_call(spec)
        if spec.module is not None and spec.index is None:
            with context.use(data_root=root):
                found = _user(spec)
            if isinstance(found, Batches):
                return found
            spec = found
    return Batches(samples(spec, root=root), batch_size, workers=workers)


def as_batches(source: DataLike) -> Batches:
    """Batches from whatever a caller has: a spec, `Samples`, or a re-iterable of ``(x, y)``.

    Args:
        source: `Batches` (returned as they are), a spec, `Samples`, a map-style data set, one
            pair ``(x [N, ...], y [N])`` of a tensor or array and labels (or None), or any
            re-iterable of such pairs. Inputs alone (a tensor ``[N, ...]``, or a re-iterable of
            them) have no labels: measures that read labels say so.

    Raises:
        DataError: Empty, readable only once, different on a second pass, or not pairs.
    """
    if isinstance(source, Batches):
        return source
    if isinstance(source, str | Spec | Samples):
        return batches(source)
    if isinstance(source, Tensor | np.ndarray) and source.ndim > 1:
        source = (source, unlabelled(source))
    mapped = isinstance(source, torch.utils.data.Dataset) and hasattr(source, "__len__")
    if is_pair(source) or mapped:
        return Batches(as_samples(source, name="user data"))
    if not isinstance(source, Iterable):
        raise DataError(
            "batches can't be read",
            got=type(source).__name__,
            expected="a re-iterable of (x, y) tensors",
            fix="Pass a DataLoader, a list of (x, y), or a spec such as 'digits(test)'.",
        )
    return SourceBatches(source)


def sample(spec: str | Spec | Tensor) -> Tensor:
    """One input, without a sample axis: ``mnist(test)[3]`` gives ``[1, 28, 28]``.

    Raises:
        SpecError: The spec names no sample, or several.
    """
    found = points(spec) if not isinstance(spec, Tensor) else spec[None]
    if len(found) != 1:
        raise SpecError(
            "one sample wanted",
            got=f"{spec} with {len(found)} samples",
            expected="SPEC[i], e.g. mnist(test)[3]",
        )
    return found[0]


@registry.register(
    "noun",
    "Points",
    kinds=("dataset",),
    help='samples without labels, e.g. "digits(test)[3]" or "digits(test, 16)"',
    typed="digits(test, 16)",
    example="digits(test, 2)",
    default="@points",
)
def points(spec: str | Spec | Tensor | np.ndarray) -> Tensor:
    """Inputs ``[n, *shape]`` of the samples that a data spec names, labels dropped."""
    if not isinstance(spec, str | Spec):
        return torch.as_tensor(spec)
    found = batches(spec)
    return found.first(found.count)[0]


def _user(spec: Spec) -> Samples | Batches:
    """What a user's function gives: a data set, or batches such as a DataLoader's."""
    builder = registry.import_object(spec)
    found = registry.call(builder, spec, what=f"{spec.module}:{spec.name}")
    if isinstance(found, Batches):
        return found
    if isinstance(found, Iterable) and not hasattr(found, "__getitem__"):
        return SourceBatches(found, name=str(spec))
    return as_samples(found, name=str(spec))
