"""Samples: a finite, indexable data set whose answers never change.

Inputs are stored as they came (uint8 images, a memory map, a store that decodes on demand)
and turned into what a model sees, pixels in [0, 1], when they are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isogon.data.labels import as_inputs, as_labels, numbers, unlabelled
from isogon.errors import DataError, OptionError
from isogon.storage import digests, modules

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Transform = Callable[[Tensor, Tensor], Tensor]
PIECE = 1024  # samples that are read at once for a digest


class Store(Protocol):
    """What holds the inputs: an array, a memory map, or an object that decodes on demand."""

    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray: ...  # and, where it has one: digest() -> str


class Samples:
    """A map-style data set: ``samples[i]`` is ``(x, y)``, ``len(samples)`` their number.

    Args:
        inputs: Array, tensor or `Store` of shape ``[N, *shape]``.
        labels: Integer class labels, or float targets, ``[N, ...]``.
        name: What the data set is called in reports.
        classes: Names of the classes, in the order of the integer labels.
        divisor: Inputs are divided by it in float32 (255 for uint8 images); None passes
            them through untouched.

    Attributes:
        shape: Shape of one input, without the sample axis.

    Raises:
        DataError: No samples, or as many labels as there are not inputs.
    """

    _digest: str | None = None

    def __init__(
        self,
        inputs: Any,
        labels: ArrayLike | Tensor,
        *,
        name: str,
        classes: Sequence[str] | None = None,
        divisor: float | None = None,
    ) -> None:
        if isinstance(inputs, np.ndarray):
            inputs = as_inputs(inputs, what=f"inputs of data set {name}")
        self._store = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
        given = isinstance(labels, Tensor)
        labels = as_labels(labels, what=f"labels of data set {name}", count=self._store.shape[0])
        self._labels = labels if given else labels.clone()
        self._index = torch.arange(len(self._labels))
        self._divisor = divisor
        self._transforms: tuple[Transform, ...] = ()
        self._keys: tuple[Any, ...] = ()
        self.name = name
        self.classes = None if classes is None else [str(c) for c in classes]
        self.shape: tuple[int, ...] = tuple(int(s) for s in self._store.shape[1:])
        if len(self._labels) != self._store.shape[0]:
            raise DataError(
                f"data set {name} has inputs and labels of different number",
                got=f"{self._store.shape[0]} inputs, {len(self._labels)} labels",
                expected="one label per input",
            )
        self._refuse_empty()

    def _refuse_empty(self) -> None:
        if len(self._index) == 0:
            raise DataError(
                f"data set {self.name} is empty",
                got="0 samples",
                expected="at least one",
                fix="Check the split and the limit.",
            )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Input and label of one sample; negative indices count from the end."""
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"sample {index} of data set {self.name} with {n} samples")
        x, y = self.take([index % n])
        return x[0], y[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Several samples at once: what a DataLoader asks for."""
        return list(zip(*self.take(indices)))

    def __repr__(self) -> str:
        return f"Samples({self.name}, {len(self)} of shape {list(self.shape)})"

    @property
    def loaded(self) -> int:
        """Number of samples in the data set as it was loaded, of which this may be a part."""
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """All labels ``[N, ...]``, without reading an input."""
        return self._labels[self._index]

    def take(self, indices: Sequence[int] | Tensor | np.ndarray | range | slice) -> tuple:
        """Inputs ``[n, *shape]`` and labels ``[n, ...]`` of the samples at ``indices``."""
        if isinstance(indices, range | slice):
            part = indices if isinstance(indices, slice) else _slice(indices)
            index = self._index[part]
        else:
            index = self._index[torch.as_tensor(indices, dtype=torch.long)]
        x = self._read(index)
        for transform in self._transforms:
            x = transform(x, index)
        return x, self._labels[index]

    def _read(self, index: Tensor) -> Tensor:
        raw = self._raw(index)
        if self._divisor is not None:
            return torch.from_numpy(raw.astype(np.float32)).div_(self._divisor)
        return torch.from_numpy(raw.copy() if np.shares_memory(raw, _base(self._store)) else raw)

    def _raw(self, index: Tensor) -> np.ndarray:
        """Inputs as they are stored."""
        rows = index.numpy()
        first = int(rows[0]) if len(rows) else 0
        if len(rows) and rows[-1] - first == len(rows) - 1 and (np.diff(rows) == 1).all():
            raw = self._store[first : first + len(rows)]  # a slice reads without a gather
        else:
            raw = self._store[rows]
        return np.ascontiguousarray(raw)

    # ------------------------------------------------------------------ content

    def digest(self) -> str:
        """Digest of all of the content: inputs and labels in their order, and the class names.

        Inputs in memory count by their values, those in files by the files' bytes, and what
        is made of them by a transformation by its ``key``; where it has none, and where a
        user's code gives the samples, every sample is read once.
        """
        if self._digest is None:
            self._digest = self._content()
        return self._digest

    def _content(self) -> str:
        if type(self) is not Samples or any(key is None for key in self._keys):
            pieces = (self.take(slice(i, i + PIECE)) for i in range(0, len(self), PIECE))
            return digests.batches(pieces, self.classes)
        mark = digests.Digest("samples", self.classes, self._divisor, self.shape, self.labels)
        if self._keys:  # a transformation may differ by place in the data set as loaded
            mark.add(self.loaded, self._keys, self._index)
        if (whole := getattr(self._store, "digest", None)) is not None:
            return mark.add(whole(), self._index).hex()
        for i in range(0, len(self), PIECE):
            raw = self._raw(self._index[i : i + PIECE])
            mark.add(raw.dtype.str).stream(raw)
        return mark.hex()

    # ------------------------------------------------------------------ derived data sets

    def _with(self, **changes: Any) -> Samples:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._digest = None
        new.__dict__.update(changes)
        new._refuse_empty()
        return new

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> Samples:
        """The samples at ``indices``, in that order, as a data set of its own (no copy)."""
        return self._with(_index=self._index[torch.as_tensor(indices, dtype=torch.long)])

    def relabelled(self, labels: Tensor, classes: Sequence[str] | None = None) -> Samples:
        """The same inputs with other labels ``[N]`` (and other class names)."""
        all_labels = torch.zeros((len(self._labels), *labels.shape[1:]), dtype=labels.dtype)
        all_labels[self._index] = labels
        names = self.classes if classes is None else [str(c) for c in classes]
        return self._with(_labels=all_labels, classes=names)

    def mapped(self, transform: Transform, *, key: Any = None) -> Samples:
        """The same samples seen through ``transform(x [n, ...], index [n]) -> x``.

        ``index`` holds each sample's position in the data set as it was loaded, so that a
        transformation can differ from sample to sample and still be the same every time.

        Args:
            transform: The transformation.
            key: What tells it from others: its name and all that decides what it does (values,
                arrays, `Samples`). Without one `digest` reads the transformed samples.
        """
        if key is not None:
            key = (key, modules.code(transform.__module__))
        transforms, keys = (*self._transforms, transform), (*self._keys, key)
        new = self._with(_transforms=transforms, _keys=keys)
        new.shape = tuple(new.take(range(1))[0].shape[1:])
        return new

    def limited(self, limit: int | None, seed: int | None = None) -> Samples:
        """The first ``limit`` samples, or a random subset where ``seed`` is given.

        Subsets of one seed are nested: the smaller is the beginning of the larger. A limit
        above the number of samples gives all of them.

        Raises:
            OptionError: A negative limit.
            DataError: A limit of 0.
        """
        if limit is not None and limit < 0:
            raise OptionError(
                f"negative limit for data set {self.name}", got=limit, expected="a positive integer"
            )
        if seed is None and limit is None:
            return self
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:limit])


class MapSamples(Samples):
    """Samples of a user's map-style data set: ``dataset[i]`` is ``(x, y)``, read on demand."""

    def __init__(self, dataset: Any, *, name: str) -> None:
        self._dataset = dataset
        self._index = torch.arange(len(dataset))
        self._transforms, self._keys = (), ()
        self._targets: Tensor | None = None
        self.name = name
        names = getattr(dataset, "classes", None)
        self.classes = [str(c) for c in names] if isinstance(names, list | tuple) else None
        self._refuse_empty()
        self.shape = tuple(self.take(range(1))[0].shape[1:])

    def take(self, indices: Sequence[int] | Tensor | np.ndarray | range | slice) -> tuple:
        """Inputs ``[n, *shape]`` and labels ``[n, ...]`` of the samples at ``indices``."""
        if isinstance(indices, range | slice):
            part = indices if isinstance(indices, slice) else _slice(indices)
            index = self._index[part]
        else:
            index = self._index[torch.as_tensor(indices, dtype=torch.long)]
        pairs = [_pair(self._dataset[int(i)], self.name) for i in index]
        try:
            x = torch.stack([p[0] for p in pairs])
            y = torch.stack([p[1] for p in pairs])
        except RuntimeError:
            shapes = [sorted({str(list(p[k].shape)) for p in pairs}) for k in (0, 1)]
            x_differ = len(shapes[0]) > 1
            raise DataError(
                f"data set {self.name} mixes {'inputs' if x_differ else 'labels'} "
                "of different shape",
                got=", ".join(shapes[not x_differ][:4]),
                expected="one shape",
                fix="Crop or resize in the data set." if x_differ else "Give one class each.",
            ) from None
        for transform in self._transforms:
            x = transform(x, index)
        return x, y if self._targets is None else self._targets[index]

    @property
    def loaded(self) -> int:
        """Number of samples in the data set as it was loaded, of which this may be a part."""
        return len(self._dataset)

    @property
    def labels(self) -> Tensor:
        """All labels ``[N, ...]``; reads every sample once where there is no ``targets``."""
        if self._targets is None:
            known = getattr(self._dataset, "targets", None)
            known = None if known is None else numbers(known)  # names there, numbers in pairs
            if known is None or len(known) != len(self._dataset):
                known = [_pair(pair, self.name)[1] for pair in map(self._at, range(len(self)))]
                known = torch.stack(known)
            self._targets = known
        return self._targets[self._index]

    def _at(self, position: int) -> Any:
        return self._dataset[int(self._index[position])]

    def relabelled(self, labels: Tensor, classes: Sequence[str] | None = None) -> Samples:
        """The same inputs with other labels ``[N]`` (and other class names)."""
        targets = torch.zeros((len(self._dataset), *labels.shape[1:]), dtype=labels.dtype)
        targets[self._index] = labels
        names = self.classes if classes is None else [str(c) for c in classes]
        return self._with(_targets=targets, classes=names)


def as_samples(found: Any, *, name: str) -> Samples:
    """What a user's function returned, as `Samples`.

    Accepts `Samples`, a pair ``(x [N, ...], y [N])`` of an array or tensor and labels (also a
    list of numbers, or None where there are none), and any map-style
    data set of pairs (``TensorDataset``, torchvision's, a list) or of inputs alone, whose
    labels are NaN.

    Raises:
        DataError: Anything else, or nothing in it.
    """
    if isinstance(found, Samples):
        return found
    if is_pair(found):
        x, y = found
        return Samples(x, unlabelled(x) if y is None else y, name=name)
    if isinstance(found, torch.utils.data.TensorDataset) and len(found.tensors) in (1, 2):
        x = found.tensors[0]
        return Samples(x, (*found.tensors, unlabelled(x))[1], name=name)
    if hasattr(found, "__len__") and hasattr(found, "__getitem__") and not isinstance(found, dict):
        return MapSamples(found, name=name)
    raise DataError(
        f"{name} is not a data set",
        got=type(found).__name__,
        expected="(x, y) tensors, a TensorDataset or a map-style data set of (x, y)",
        fix="Return one of these.",
    )


def is_pair(found: Any) -> bool:
    """Whether something is one pair of inputs and labels, and not two batches of inputs."""
    pair = isinstance(found, tuple) and len(found) == 2
    return pair and isinstance(found[0], Tensor | np.ndarray) and found[0].ndim > 0


def _pair(found: Any, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(found, Tensor | np.ndarray):
        found = (found,)
    if isinstance(found, tuple | list) and (len(found) == 1 or tuple(found[1:]) == (None,)):
        found = (found[0], torch.nan)  # without a label
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise DataError(
            f"a sample of data set {name} is not a pair",
            got=type(found).__name__,
            expected="(x, y), or x alone",
            fix="Return the input and its label.",
        )
    x, y = found
    if not isinstance(x, Tensor | np.ndarray):
        raise DataError(
            f"an input of data set {name} is not a tensor",
            got=type(x).__name__,
            expected="a tensor",
            fix="Convert it in the data set, e.g. with torchvision's ToTensor.",
        )
    x = as_inputs(x, what=f"inputs of data set {name}")
    return x, as_labels(y, what=f"labels of data set {name}")


def _slice(r: range) -> slice:
    return slice(r.start, r.stop, r.step)


def _base(store: Any) -> np.ndarray:
    return store if isinstance(store, np.ndarray) else np.empty(0)
