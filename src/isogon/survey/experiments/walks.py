"""Experiments: studies that combine a measure with choices of samples, files and figures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from isogon import data, readings
from isogon.data import Batches
from isogon.errors import DataError, DependencyError, FileError, OptionError
from isogon.measures.manifold.crossings import with_regions
from isogon.measures.manifold.walk import walk
from isogon.nets import hygiene, load
from isogon.nets.outputs import logits
from isogon.registry import register
from isogon.storage import atomic, digests, modules

if TYPE_CHECKING:
    import pandas as pd


REPROJECT = 10  # so that clamping to the images' domain does not push a walk out of the kernel
CHUNK = 1000  # steps between two savings of a long walk
CROSSINGS = 5000  # of linear regions, that are looked for along a walk

# What a walk is made on where no model and data are named.
SETTINGS = {
    "laptop": ("trained(cnn, digits, epochs=10)", "digits(test)"),
    "paper": (
        "trained(medium_cnn, mnist, seed=42, epochs=10, optimizer=sgd, lr=0.01, batch_size=60,"
        " momentum=0.0, schedule=constant, normalize=known, channels_last=True)",
        "mnist(test)",
    ),
    "cifar": (
        "trained(cifar_vgg11_bn, cifar10, seed=5, epochs=20)",
        "cifar10(test)",
    ),
}
Scale = Literal["laptop", "paper", "cifar"]


@register("experiment", cite=("grementieri2022",))
def kernel_walk(
    *,
    model: Module | None = None,
    batches: Batches | None = None,
    scale: Scale = "laptop",
    start: int | None = None,
    seed: int = 0,
    steps: int = 1000,
    step: float = 0.03,
    max_probability: float = 1.0,
    out: str = "runs/kernel-walk",
) -> readings.Path:
    """Walk off an image in the kernel of G: noise grows, class and probability stay.

    Args:
        model: The classifier; trained on the data of ``scale`` if not given.
        batches: Where samples are taken from; the test set of ``scale`` if not given.
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published) or ``cifar`` (VGG11).
        start: Index of the sample; random if not given.
        seed: Of the choice and of the direction.
        steps: Number of steps.
        step: Length of a step (L2, pixels in [0, 1]); 0.1 in normalised MNIST is 0.03.
        max_probability: A random start is drawn again if the model is surer than this.
        out: Folder for the reading, ``walk.gif`` (and ``walk.mp4``),
            ``strip.png`` and ``figure.png``.
    """
    stage = _Stage("kernel_walk", model, batches, scale, seed, out)
    first = stage.choose(start, max_probability)
    direction = torch.randn(stage.image(first).shape, generator=stage.generator)
    return stage.run(
        {"start": first},
        steps=steps,
        step=step,
        origin=stage.image(first),
        direction=direction,
        along="kernel",
        reproject=REPROJECT,
    )


@register("experiment", cite=("grementieri2022",))
def leaf_walk(
    *,
    model: Module | None = None,
    batches: Batches | None = None,
    scale: Scale = "laptop",
    start: int | None = None,
    end: int | None = None,
    seed: int = 0,
    steps: int = 5000,
    step: float = 0.03,
    max_probability: float = 1.0,
    patience: int = 200,
    out: str = "runs/leaf-walk",
) -> readings.Path:
    """Walk along the data leaf from one image to another.

    Args:
        model: The classifier; trained on the data of ``scale`` if not given.
        batches: Where samples are taken from; the test set of ``scale`` if not given.
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published) or ``cifar`` (VGG11).
        start: Index of the first image; random if not given.
        end: Index of the image to reach; random if not given.
        seed: Of the choices.
        steps: Most steps.
        step: Length of a step (L2, pixels in [0, 1]); 0.1 in normalised MNIST is 0.03.
        max_probability: A random image is drawn again if the model is surer than this.
        patience: Steps without coming closer, after which the walk ends: it swings about the
            nearest point of its leaf. 0: never, as published.
        out: Folder for the reading, ``walk.gif`` (and ``walk.mp4``),
            ``strip.png`` and ``figure.png``.
    """
    stage = _Stage("leaf_walk", model, batches, scale, seed, out)
    first = stage.choose(start, max_probability)
    last = stage.choose(end, max_probability, but=first)
    return stage.run(
        {"start": first, "end": last},
        steps=steps,
        step=step,
        origin=stage.image(first),
        toward=stage.image(last),
        patience=patience,
    )


@register("experiment", cite=("grementieri2022",))
def flip_walk(
    *,
    model: Module | None = None,
    batches: Batches | None = None,
    scale: Scale = "laptop",
    start: int | None = None,
    end: int | None = None,
    seed: int = 0,
    steps: int = 5000,
    step: float = 0.03,
    max_probability: float = 1.0,
    patience: int = 200,
    out: str = "runs/flip-walk",
) -> readings.Path:
    """Walk along the data leaf from an image to a mirrored one, which is no sample of the data.

    Args:
        model: The classifier; trained on the data of ``scale`` if not given.
        batches: Where samples are taken from; the test set of ``scale`` if not given.
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published) or ``cifar`` (VGG11).
        start: Index of the first image; random if not given.
        end: Index of the image whose mirror image is to be reached; the start if not given.
        seed: Of the choice.
        steps: Most steps.
        step: Length of a step (L2, pixels in [0, 1]); 0.1 in normalised MNIST is 0.03.
        max_probability: A random image is drawn again if the model is surer than this.
        patience: Steps without coming closer, after which the walk ends: it swings about the
            nearest point of its leaf. 0: never, as published.
        out: Folder for the reading, ``walk.gif`` (and ``walk.mp4``),
            ``strip.png`` and ``figure.png``.
    """
    stage = _Stage("flip_walk", model, batches, scale, seed, out)
    first = stage.choose(start, max_probability)
    last = first if end is None else stage.choose(end, 1.0)
    return stage.run(
        {"start": first, "end": last},
        steps=steps,
        step=step,
        origin=stage.image(first),
        toward=stage.image(last).flip(-1),
        patience=patience,
    )


@register("experiment", cite=("grementieri2022",))
def noise_leaf(
    *,
    model: Module | None = None,
    batches: Batches | None = None,
    scale: Scale = "laptop",
    start: int | None = None,
    end: int | None = None,
    seed: int = 0,
    noise_steps: int = 250,
    steps: int = 10000,
    step: float = 0.03,
    max_probability: float = 1.0,
    patience: int = 200,
    out: str = "runs/noise-leaf",
) -> readings.Path:
    """Walk along a leaf of noise: first off the data in the kernel, then along the leaf there.

    Args:
        model: The classifier; trained on the data of ``scale`` if not given.
        batches: Where samples are taken from; the test set of ``scale`` if not given.
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published) or ``cifar`` (VGG11).
        start: Index of the first image; random if not given.
        end: Index of the image to walk towards; random if not given.
        seed: Of the choices and of the direction.
        noise_steps: Steps in the kernel.
        steps: Most steps along the leaf.
        step: Length of a step (L2, pixels in [0, 1]); 0.1 in normalised MNIST is 0.03.
        max_probability: A random image is drawn again if the model is surer than this.
        patience: Steps without coming closer, after which the walk ends: it swings about the
            nearest point of its leaf. 0: never, as published.
        out: Folder for the reading, ``walk.gif`` (and ``walk.mp4``),
            ``strip.png`` and ``figure.png``.
    """
    stage = _Stage("noise_leaf", model, batches, scale, seed, out)
    first = stage.choose(start, max_probability)
    last = stage.choose(end, max_probability, but=first)
    direction = torch.randn(stage.image(first).shape, generator=stage.generator)
    noisy = walk(
        stage.model,
        stage.image(first),
        direction=direction,
        along="kernel",
        steps=noise_steps,
        step=step,
        clamp=(0, 1),
        reproject=REPROJECT,
        frames=1,
    )
    return stage.run(
        {"start": first, "end": last, "noise_steps": noise_steps},
        steps=steps,
        step=step,
        origin=torch.from_numpy(noisy.arrays["end"]),
        toward=stage.image(last),
        patience=patience,
    )


class _Stage:
    """Model, samples, random choices and the folder of one experiment."""

    def __init__(
        self,
        name: str,
        model: Module | None,
        batches: Batches | None,
        scale: str,
        seed: int,
        out: str,
    ) -> None:
        if scale not in SETTINGS:
            raise OptionError("no such scale", got=repr(scale), expected=", ".join(SETTINGS))
        spec, source = SETTINGS[scale]
        self.name, self.seed, self.out = name, seed, Path(out)
        self.batches = data.as_batches(batches) if batches is not None else data.batches(source)
        self.model = load.load(spec) if model is None else model
        self.generator = torch.Generator().manual_seed(seed)
        self.draw = random.Random(seed)  # the published choices of samples, seed by seed
        self.samples = self.batches.samples

    def image(self, index: int) -> Tensor:
        """One sample [1, ...] on the model's device."""
        x = torch.as_tensor(self.samples[index][0])
        return hygiene.cast(x[None], self.model)

    def choose(self, index: int | None, most: float, but: int | None = None) -> int:
        """The index given, or a random one of a sample that the model is not too sure of."""
        count = len(self.samples)
        if index is not None:
            if not -count <= index < count:
                raise OptionError("no such sample", got=index, expected=f"0 .. {count - 1}")
            return index % count
        refused = {but} & set(range(count))
        while len(refused) < count:
            i = self.draw.randrange(count)
            if i not in refused and (most >= 1 or self._probability(i) <= most):
                return i
            refused.add(i)
        raise DataError(
            "the model is too sure of every sample",
            got=f"no probability up to {most}",
            expected="a sample to start from",
            fix="Raise --max-probability.",
        )

    def _probability(self, index: int) -> float:
        with torch.no_grad(), hygiene.preserved(self.model) as model:
            z = logits(model, self.image(index))
        z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
        return float(z.double().softmax(1).max())

    def run(
        self,
        facts: dict[str, Any],
        *,
        steps: int,
        step: float,
        origin: Tensor,
        patience: int = 0,
        **options: Any,
    ) -> readings.Path:
        """Walk in chunks that are saved, from what an interrupted run left; then draw."""
        options |= {"step": step, "clamp": (0, 1)}
        given = {"name": self.name, "seed": self.seed, **facts, "step": step}
        given["key"] = self._key(origin, options)
        path = self._left(given)
        done = 0 if path is None else max(path.table["step"].tolist())
        while path is None or (not path.complete and done < steps):
            done = min(done + CHUNK, steps)
            start: Any = origin if path is None else path
            path = walk(
                self.model,
                start,
                steps=done,
                stop=10 * step,
                patience=patience,
                **(options if path is None else {}),
            )
            path.meta |= {"experiment": given, "classes": list(self.batches.classes or [])}
            path.complete = done >= steps or path.meta["ended"] != ["steps"]
            path.save(self.out / "reading")
        path = with_regions(self.model, path, limit=CROSSINGS)
        path.meta["outcome"] = outcome(path)
        self._draw(path)
        path.save(self.out / "reading")
        return path

    def _key(self, origin: Tensor, options: dict[str, Any]) -> str:
        """Digest of all that decides the walk: network, images, options, the code that walks."""
        code = [modules.measure(f.__module__) for f in (walk, with_regions)]
        return digests.of(self.model, origin, options, code)[:24]

    def _left(self, given: dict[str, Any]) -> readings.Path | None:
        """What an earlier run of the same experiment left in the folder."""
        try:
            path = readings.read(self.out / "reading")
        except FileError:
            return None
        if not isinstance(path, readings.Path) or path.complete:
            return None
        return path if path.meta.get("experiment") == given else None

    def _draw(self, path: readings.Path) -> None:
        """The strip, the figure and, for images, the GIF."""
        from isogon import show
        from isogon.show.walk import animate, strip

        figures = {"strip.png": strip(path), "figure.png": show.draw(path)}
        for name, figure in figures.items():
            with atomic(self.out / name) as temporary:
                figure.savefig(temporary, format="png", dpi=200)
        if path.arrays["start"].ndim >= 3:
            animate(path, self.out / "walk.gif")
            try:
                animate(path, self.out / "walk.mp4")
                path.meta["video"] = "walk.gif and walk.mp4"
            except DependencyError as error:
                path.meta["video"] = f"walk.gif alone, no walk.mp4: {error}"


def outcome(path: readings.Path) -> str:
    """In a sentence, how a walk ended."""
    rows = path.table[path.table["walk"] == 0]
    first, last = rows.iloc[0], rows.iloc[-1]
    steps, ended = f"{int(last['step'])} steps", path.meta["ended"][0]
    change = f"prediction {_label(path, first)} -> {_label(path, last)}"
    if "target" not in path.arrays:
        low, high = rows["probability"].min(), rows["probability"].max()
        return (
            f"{steps} in the kernel, {last['from_start']:.3g} from the start: {change}, "
            f"probability between {low:.4f} and {high:.4f}"
        )
    far = f"{last['distance']:.3g} from the target ({first['distance']:.3g} at the start)"
    if ended == "distance":
        return f"reached the target in {steps}, {far}: {change}"
    if ended in ("patience", "stuck"):
        return (
            f"stalled after {steps}, {far}: the leaf comes no nearer here, "
            f"{last['alignment']:.2g} of what is left lies along it; {change}"
        )
    return f"ended after {steps}, {far}: {change}"


def _label(path: readings.Path, row: pd.Series) -> str:
    names, k = path.meta.get("classes") or [], int(row["prediction"])
    return f"{names[k] if k < len(names) else k} (p = {row['probability']:.3f})"
