"""Concepts: images with maps or labels of what is in them, category by category."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon import registry
from isogon.data.batches import Watch
from isogon.data.finite import check_inputs
from isogon.errors import DataError, OptionError
from isogon.registry import register
from isogon.specs import Spec
from isogon.storage import digests

ALONE = "concept"  # the category of a map that has none
LARGEST = 2**20  # number of a concept
Names = Sequence[str] | Mapping[Any, Any]


class Concepts:
    """Labelled images, read as often as asked.

    Args:
        source: Re-iterable of ``(images [N, C, H, W], maps)``; maps are integers ``[N, h, w]``, 0
            for none, or ``{category: maps}`` with maps ``[N, h, w]``, ``[N, k, h, w]`` (up to k
            concepts at one pixel) or labels ``[N]``, ``[N, k]`` of whole images. All maps have one
            size. Or a function that returns an iterator of them.
        names: Names of the concepts: a sequence (concept k is the k-th, from 1), a dictionary by
            number, or one of these for each category; ``source.names`` by default, else "1", "2".
        count: Number of images, where it is known; else one pass finds it.
        name: What the data is called in reports.
        digest: Of all of the content, where it is known.

    Raises:
        DataError: Data that can be read only once, is empty, or is no such pair.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterator[Any]],
        names: Names | None = None,
        *,
        count: int | None = None,
        name: str = "concepts",
        digest: Callable[[], str] | None = None,
    ) -> None:
        if not callable(source) and iter(source) is source:
            raise DataError(
                "concepts can be read only once",
                got=type(source).__name__,
                expected="something that can be iterated again",
                fix="Pass list(...) of it.",
            )
        self._source, self._count, self.name = source, count, name
        self._names = names if names is not None else getattr(source, "names", None)
        self._digest = digest
        self._watch = Watch(name)
        self._layers: list[tuple[str, int, bool]] = []  # category, layers, whether they are maps
        first = next(iter(self), None)
        if first is None:
            raise DataError(
                f"{name}: no images", got="an empty data set", expected="at least one batch"
            )
        self.example: Tensor = first[0]
        self.size: tuple[int, ...] = tuple(first[1].shape[2:])
        self.categories: list[str] = [c for c, _, _ in self._layers]
        places = [[i] * k for i, (_, k, _) in enumerate(self._layers)]
        self.layers: list[int] = [i for place in places for i in place]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images ``[n, C, H, W]`` and numbers of concepts, int32 ``[n, L, h, w]``.

        A layer l holds concepts of the category ``layers[l]``; at a pixel no two layers of a
        category hold the same one.
        """
        found = self._source() if callable(self._source) else iter(self._source)
        yield from self._watch(self._packed(found))

    def _packed(self, found: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for item in found:
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise self._wrong(
                    f"{type(item).__name__}",
                    "(images [N, C, H, W], maps)",
                    "Give pairs of images and integer maps of their concepts: [(x, maps), ...].",
                )
            x, given = item
            if not isinstance(x, Tensor | np.ndarray) or x.ndim != 4:
                shape = list(getattr(x, "shape", [])) or type(x).__name__
                raise self._wrong(shape, "images [N, C, H, W]", _as_images(x))
            x = torch.as_tensor(x)
            check_inputs(x, first=start, what=f"images of {self.name}")
            yield x, self._together(given if isinstance(given, Mapping) else {ALONE: given}, x)
            start += len(x)

    def _together(self, given: Mapping[Any, Any], x: Tensor) -> Tensor:
        """Maps and labels of all categories as one tensor."""
        parts = {str(c): self._checked(str(c), m, len(x)) for c, m in given.items()}
        layers = [
            (c, 1 if m.dim() in (1, 3) else m.shape[1], m.dim() > 2) for c, m in parts.items()
        ]
        sizes = {tuple(m.shape[-2:]) for m in parts.values() if m.dim() > 2}
        size = next(iter(sizes), tuple(x.shape[2:]))
        before = getattr(self, "size", size)
        if len(sizes) > 1 or size != before:
            raise self._wrong(
                sorted({*sizes, before}), "maps of one size", "Resize maps without mixing numbers."
            )
        if not layers or (self._layers and layers != self._layers):
            held = ", ".join(f"{c} ({k})" for c, k, _ in self._layers)
            raise self._wrong(
                ", ".join(f"{c} ({k})" for c, k, _ in layers) or "no category",
                f"the same categories in each batch: {held or 'at least one'}",
                "Give each batch all of them, 0 where nothing is marked.",
            )
        self._layers = layers
        found = [
            m.reshape(len(x), -1, 1, 1).expand(-1, -1, *size)
            if m.dim() < 3
            else m.reshape(len(x), -1, *size)
            for m in parts.values()
        ]
        for k, m in enumerate(found):
            found[k] = m = m.to(torch.int32)
            for i in range(1, m.shape[1]):  # a concept counts once at a pixel
                again = (m[:, :i] == m[:, i : i + 1]).any(1)
                if bool((again & (m[:, i] != 0)).any()):
                    found[k] = m = m.clone()
                    m[:, i][again] = 0
        return torch.cat(found, 1)

    def _checked(self, category: str, given: Any, n: int) -> Tensor:
        if not isinstance(given, Tensor | np.ndarray | list | tuple):
            raise self._wrong(
                f"{type(given).__name__} for {category}",
                "maps or labels",
                "Give integers [N, h, w], or [N] for whole images.",
            )
        m = torch.as_tensor(given)
        if m.is_floating_point() or m.is_complex() or m.dtype == torch.bool:
            raise self._wrong(
                f"{m.dtype} for {category}",
                "integers, 0 for none",
                "Number the concepts from 1 on.",
            )
        if m.dim() not in (1, 2, 3, 4) or len(m) != n or not m.numel():
            raise self._wrong(
                f"{list(m.shape)} for {category}, {n} images",
                "maps [N, h, w] or [N, k, h, w], or labels [N] or [N, k]",
                "Give one map or label to each image, k of them where concepts overlap.",
            )
        low, high = int(m.min()), int(m.max())
        if low < 0 or high > LARGEST:
            raise self._wrong(
                f"{low if low < 0 else high} in {category}",
                f"numbers from 0 to {LARGEST}",
                "Number the concepts from 1 on, 0 for none.",
            )
        return m

    def _wrong(self, got: Any, expected: str, fix: str) -> DataError:
        what = f"{self.name}: not images with concepts"
        return DataError(what, got=got, expected=expected, fix=fix)

    @property
    def count(self) -> int:
        """Number of images; where it was not given, a pass finds it."""
        if self._count is None:
            self._count = sum(len(x) for x, _ in self)
        return self._count

    def concept(self, category: str, number: int) -> str:
        """The name of a concept.

        Raises:
            DataError: The names that were given leave it out.
        """
        names = self._names
        if isinstance(names, Mapping) and category in names:
            names = names[category]
        if names is None:
            return str(number)
        if isinstance(names, Mapping):
            found = names.get(number, names.get(str(number)))
        else:
            found = names[number - 1] if number <= len(names) else None
        if found is None:
            raise DataError(
                f"{self.name}: a concept without a name",
                got=f"number {number} of {category}",
                expected=f"names for all numbers ({len(names)} are there)",
                fix="Name k stands at place k - 1; 0 is none.",
            )
        return str(found)

    def digest(self) -> str:
        """Digest of all of the content, in order; the same in batches of any size."""
        if self._digest is not None:
            return self._digest()
        mark = [digests.batches(self, None), self._layers, self._names]
        return digests.of(*mark)

    def __repr__(self) -> str:
        return f"Concepts({self.name}: {', '.join(self.categories)})"


@register(
    "noun",
    "Concepts",
    kinds=("concepts",),
    help="images with maps of concepts, see `isogon list concepts`",
    typed="shapes(n=200, size=8, grey=true)",  # as the digits of the other examples
    example="shapes(n=6, size=8, grey=True)",
)
def concepts(spec: str | Spec | Concepts | Any, *, batch_size: int | None = None) -> Concepts:
    """The concepts that a spec names, or a user's own; `Concepts` pass through.

    Args:
        spec: ``shapes(n=200)``, ``broden('folder')``, ``my.module:concepts(3)`` (runs that module),
            or whatever `Concepts` takes.
        batch_size: Images per batch, of sets that have none of their own.

    Raises:
        SpecError: No such concepts, or wrong arguments.
        DataError: Not images with concepts.
    """
    if isinstance(spec, Concepts):
        return spec
    if isinstance(spec, str | Spec):
        given = {} if batch_size is None else {"batch_size": batch_size}
        found = registry.build("concepts", spec, **given)
        return found if isinstance(found, Concepts) else Concepts(found, name=str(spec))
    if not isinstance(spec, Iterable) or isinstance(spec, Tensor | np.ndarray | Mapping):
        raise OptionError(
            "concepts can't be read",
            got=type(spec).__name__,
            expected="a spec, or a re-iterable of (images [N, C, H, W], maps)",
        )
    pair = isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], Tensor | np.ndarray)
    return Concepts([spec] if pair else spec, name="user data")


def _as_images(x: object) -> str:
    """What to do about inputs that are no images."""
    if not isinstance(x, Tensor | np.ndarray) or x.ndim < 2:
        return "Give pairs of images and integer maps of their concepts: [(x, maps), ...]."
    shape = tuple(x.shape[1:])
    back = "" if len(shape) == 1 else f"nn.Unflatten(1, {shape}), "
    return (
        "Units are compared with places in an image. Rows that are images: x.reshape(-1, C, H, W), "
        f"with model = nn.Sequential(nn.Flatten(), {back}model). Other data have no places: leave "
        "dissect out."
    )
