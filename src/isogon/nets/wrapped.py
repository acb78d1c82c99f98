"""Specs of models within models: one of several outputs, images with the channels last."""

from __future__ import annotations

from torch import nn

from isogon import context
from isogon.nets.layout import ChannelsFirst
from isogon.nets.load import load
from isogon.nets.outputs import Output
from isogon.registry import register
from isogon.specs import Spec


@register("model")
def output(model: Spec, key: int | str, *path: int | str) -> nn.Module:
    """One of the tensors that a model returns: ``output(detector.onnx, 1)``, ``output(M, scores)``.

    Args:
        model: Spec of a model that returns a tuple, dict or dataclass.
        key: Index or name of the tensor; a name that is no single word in quotes.
        *path: The keys below that, for nested outputs: ``output(M, out, scores)``.
    """
    return Output(load(model), key, *path)


@register("model")
def channels_first(model: Spec) -> nn.Module:
    """A model of images [N, C, H, W] from one that takes [N, H, W, C], as TensorFlow's do.

    Args:
        model: Spec of a model that takes images with the channels last.
    """
    return ChannelsFirst(load(model))


@register("model", "given")
def given_model(name: str) -> nn.Module:
    """A module that the calling program handed to `isogon.survey` or `isogon.compare`.

    Args:
        name: What the program's object is called there.
    """
    return context.handed(name)
