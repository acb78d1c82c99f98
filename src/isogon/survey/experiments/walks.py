"""Experiments: studies that combine a measure with choices of samples, files and figures."""

from __future__ import annotations

from typing import Literal

from torch.nn import Module

from isogon import readings
from isogon.data import Batches
from isogon.registry import register
from isogon.survey.experiments.walk_study import WalkStudy

Scale = Literal["laptop", "paper", "small", "cifar"]


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
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published), ``small`` (a VGG11 of width 16
            on a zip of photographs, ``cifar10-imagefolder.zip`` in the data root) or ``cifar``
            (VGG11 on CIFAR-10).
        start: Index of the sample; random if not given.
        seed: Of the choice and of the direction.
        steps: Number of steps.
        step: Length of a step (L2, pixels in [0, 1]); 0.1 in normalised MNIST is 0.03.
        max_probability: A random start is drawn again if the model is surer than this.
        out: Folder for the reading, ``walk.gif`` (and ``walk.mp4``),
            ``strip.png`` and ``figure.png``.
    """
    study = WalkStudy("kernel_walk", model, batches, scale, seed, out)
    return study.walk(start, None, max_probability, kernel=True, steps=steps, step=step)


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
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published), ``small`` (a VGG11 of width 16
            on a zip of photographs, ``cifar10-imagefolder.zip`` in the data root) or ``cifar``
            (VGG11 on CIFAR-10).
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
    study = WalkStudy("leaf_walk", model, batches, scale, seed, out)
    return study.walk(start, end, max_probability, steps=steps, step=step, patience=patience)


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
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published), ``small`` (a VGG11 of width 16
            on a zip of photographs, ``cifar10-imagefolder.zip`` in the data root) or ``cifar``
            (VGG11 on CIFAR-10).
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
    study = WalkStudy("flip_walk", model, batches, scale, seed, out)
    options = {"steps": steps, "step": step, "patience": patience}
    return study.walk(start, end, max_probability, mirrored=True, **options)


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
        scale: ``laptop`` (digits), ``paper`` (MNIST, as published), ``small`` (a VGG11 of width 16
            on a zip of photographs, ``cifar10-imagefolder.zip`` in the data root) or ``cifar``
            (VGG11 on CIFAR-10).
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
    study = WalkStudy("noise_leaf", model, batches, scale, seed, out)
    options = {"steps": steps, "step": step, "patience": patience}
    return study.walk(start, end, max_probability, noise_steps=noise_steps, **options)
