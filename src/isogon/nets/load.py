"""Models from specs and files.

Forms: an architecture (``cnn(width=32)``), an architecture with weights
(``resnet18(num_classes=10)@w.safetensors``, ``.pt``), a trained model (``trained(cnn, digits)``),
a checkpoint of isogon's (``last.safetensors``), an exported program (``.pt2``, ``.onnx``), and
``my.pkg:build(3)@w.pt``, the one form that **runs the user's code**.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isogon import context, registry
from isogon.data.batches import Batches
from isogon.data.samples import Samples
from isogon.errors import DependencyError, FileError, IsogonError, ModelError, SpecError, unknown
from isogon.nets import budget
from isogon.nets.facts import facts, filled
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import device_dtype
from isogon.nets.layout import ChannelsFirst
from isogon.nets.normalize import normalized
from isogon.nets.origin import marked
from isogon.nets.weights import existing, fitting, put, read_weights
from isogon.specs import PROGRAM_SUFFIXES, SUFFIXES, WEIGHT_SUFFIXES, Spec, names_code, parse
from isogon.storage import kinds

log = logging.getLogger("isogon")


def load(
    spec: str | os.PathLike | Spec | nn.Module,
    *,
    like: Samples | Batches | None = None,
    channels_last: bool | None = None,
) -> nn.Module:
    """A model in evaluation mode, from a spec or a file.

    An architecture without weights has random ones, the same at each call: `cnn(width=4)` is one
    network, `cnn(width=4, seed=1)` another (see `build` for fresh ones). Nothing is executed
    from files; ``module:name(...)`` imports and runs that module (the working directory counts
    as importable).

    Args:
        spec: See the forms above; a module is returned as it is.
        like: Data (with ``shape`` and ``classes``) that fills the architecture's arguments which
            the spec leaves open (where there are weights, only if they don't fit without).
        channels_last: True: the network takes images ``[N, H, W, C]``, as those from TensorFlow
            do, and is wrapped so that the model takes ``[N, C, H, W]``. False: it does not,
            however it begins. None: it stays as it is, and measures that warp images refuse it
            if it begins by moving the last axis to the channels.

    Returns:
        A module from raw inputs ``[N, ...]`` to logits ``[N, C]``.

    Raises:
        SpecError: The spec names nothing, or its arguments are wrong.
        FileError: A file is missing, truncated, or would execute code.
        ModelError: Weights don't fit the architecture.
    """
    if channels_last is not None:
        model = load(spec, like=like)
        if channels_last:
            return ChannelsFirst(model).train(model.training)
        model.channels_last = False  # type: ignore[assignment]  # see `isogon.nets.layout`
        return model
    if isinstance(spec, nn.Module):
        return spec
    if isinstance(spec, os.PathLike):
        spec = Spec(None, path=os.fspath(spec))
    parsed = parse(spec)
    if parsed.index is not None:
        raise SpecError("a model has no index", got=str(parsed), expected="a model's spec")
    if parsed.name is None:
        return _from_file(Path(str(parsed.path))).eval()
    if parsed.path is None:
        return _make(parsed, like).eval()
    if parsed.module is None and not registry.has("arch", parsed.name):
        _make(parsed, like)  # a name that does not exist is the better message
        raise SpecError(
            "a trained model takes no weights", got=str(parsed), expected="ARCHITECTURE@FILE"
        )
    path = existing(parsed.path)
    state, meta = read_weights(path)
    typed = Spec(parsed.name, parsed.args, parsed.kwargs, module=parsed.module)
    bare = completed(typed, meta.get("spec"))
    brought = bare != typed
    with budget.source(state, path) if brought else nullcontext():
        try:
            model = _filled(bare, None, state, path, brought=brought)
        except (ModelError, SpecError):
            if like is None:
                raise
            model = _filled(bare, like, state, path, brought=brought)
    return _normalised(model, meta, path).eval()


def build(spec: str | Spec, *, like: Samples | Batches | None = None, **fixed: Any) -> nn.Module:
    """A fresh, randomly initialised model of an architecture, in training mode.

    Args:
        spec: ``cnn(width=32)``, or ``my.pkg:build(3)``, which runs the user's code.
        like: Data (with ``shape`` without sample axis, and ``classes``): its channels, size,
            number of features and number of classes are passed where a registered architecture
            takes them and the spec does not say otherwise.
        **fixed: Further arguments to pass in the same way, e.g. ``classes=7``.

    Raises:
        SpecError: Unknown architecture or wrong arguments.
        ModelError: User code did not return a module.
    """
    spec = parse(spec)
    if spec.name is None or spec.path is not None or spec.index is not None:
        raise SpecError("not an architecture", got=str(spec), expected="NAME or NAME(arguments)")
    if spec.module is not None:
        return _user_model(spec, fixed)
    spec = filled(spec, registry.get("arch", spec.name).build, {**facts(like), **fixed})
    try:
        return registry.build("arch", spec)
    except IsogonError:
        raise
    except (
        *(ValueError, TypeError, RuntimeError, ArithmeticError),
        *(LookupError, AssertionError, AttributeError, MemoryError),
    ) as error:
        raise SpecError(
            f"{spec.name} can't be built ({error})", got=str(spec), expected="other arguments"
        ) from error


@registry.register(
    "noun",
    "Module",
    kinds=("arch", "model"),
    help='a model, e.g. "trained(cnn, digits)", "resnet18(num_classes=10)@w.pt", net.onnx',
    typed="trained(cnn, digits, epochs=5)",
    example="cnn(width=2)",
    default="@model",
)
def parse_module(
    spec: str | Spec | nn.Module, *, like: Samples | Batches | None = None
) -> nn.Module:
    """A model for a measure: loaded, in evaluation mode, with finite weights."""
    model = load(spec, like=like)
    check_finite(model)
    return model


# --------------------------------------------------------------------------- internals


def _make(spec: Spec, like: Samples | Batches | None) -> nn.Module:
    if spec.name is None:
        raise SpecError("not an architecture", got=str(spec), expected="NAME or NAME(arguments)")
    if spec.module is not None or registry.has("arch", spec.name):
        # a spec names one model: its random weights are the same each time, and nobody else's
        # random numbers change
        seed, bare = _seed_of(spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(bare, like=like)
    if registry.has("model", spec.name):
        context.typed_only("train", spec)
        return registry.build("model", spec)
    names = [*registry.names("arch"), *registry.names("model")]
    raise unknown("architecture or model", spec.name, names)


def _seed_of(spec: Spec) -> tuple[int, Spec]:
    """The seed of random weights, ``cnn(width=4, seed=1)``, and the spec without it."""
    takes = (
        inspect.signature(registry.get("arch", spec.name or "").build).parameters
        if spec.module is None
        else ("seed",)
    )
    if "seed" in takes or "seed" not in spec.kwargs:
        return 0, spec
    rest = dict(spec.kwargs)
    seed = rest.pop("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise SpecError("bad seed", got=str(spec), expected="an integer from 0")
    return seed, dataclasses.replace(spec, kwargs=rest)


def completed(typed: Spec, recorded: Any) -> Spec:
    """What a typed architecture leaves open, as a checkpoint of the same one says it.

    Only for isogon's own architectures, and only where what was typed names no code or files:
    other people's functions are never called with a file's arguments.

    Args:
        typed: Without weights.
        recorded: What the file says, of any kind; anything but a spec of the same architecture
            counts as nothing.

    Returns:
        ``typed`` itself where nothing is taken from the file; else to be built under
        `isogon.context.from_file`.
    """
    own = typed.name is not None and registry.is_own("arch", typed.name)
    if not isinstance(recorded, str) or typed.args or names_code(typed) or not own:
        return typed
    try:
        held = parse(recorded)
    except SpecError:
        return typed
    if (held.module, held.name, held.path, held.index) != (None, typed.name, None, None):
        return typed
    if "num_classes" in typed.kwargs:
        held.kwargs.pop("classes", None)
    return Spec(typed.name, held.args, {**held.kwargs, **typed.kwargs})


def _from_file(path: Path) -> nn.Module:
    path = existing(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        try:
            from isogon.nets.onnx import load_onnx
        except ImportError as error:
            raise DependencyError(
                "reading ONNX needs optional packages",
                got=str(error),
                fix="pip install 'isogon[onnx]'",
            ) from error
        return load_onnx(path)
    if suffix == ".pt2":
        from isogon.nets.pt2 import load_pt2

        return load_pt2(path)
    if suffix == ".safetensors":
        state, meta = read_weights(path)
        if isinstance(meta.get("spec"), str) and parse(meta["spec"]).module is None:
            with budget.source(state, path):
                model = _filled(parse(meta["spec"]), None, state, path, brought=True)
            return _normalised(model, meta, path)
    elif not path.name.lower().endswith(SUFFIXES):
        raise FileError(
            "not a model file",
            got=path,
            expected=f"a file ending in {', '.join((*WEIGHT_SUFFIXES, *PROGRAM_SUFFIXES))}",
        )
    elif suffix in WEIGHT_SUFFIXES and (other := kinds.foreign(path, kinds.SAVED)):
        raise other  # an architecture in front would not help
    raise SpecError(
        "a file of weights does not say what architecture they are for",
        got=path,
        expected=f"ARCHITECTURE@{path.name}",
        fix="Put the architecture in front, e.g. "
        f"'resnet18(num_classes=10)@{path.name}' or 'my.module:build()@{path.name}'.",
    )


def _filled(
    spec: Spec, like: Samples | Batches | None, state: dict[str, Any], path: Path, *, brought: bool
) -> nn.Module:
    """The architecture with weights; first by its shapes alone, where the file named it."""
    if brought:
        shapes = budget.built(lambda: _make(spec, like), state, path)
        fitting(shapes, state, source=path, what=str(spec))
    return put(_make(spec, like), state, source=path, what=str(spec))


def _normalised(model: nn.Module, meta: dict[str, Any], path: Path) -> nn.Module:
    """The model behind the normalisation that its checkpoint records, marked with its classes."""
    constants = meta.get("normalize")
    if constants is None:
        return marked(model, meta.get("classes"), str(path), meta.get("shape"))
    try:
        layer = normalized(model, constants["mean"], constants["std"])
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise FileError(
            f"the checkpoint's normalisation can't be used ({error})",
            got=path,
            expected="mean and std per channel",
            fix="It was damaged or made by hand: train again.",
        ) from error
    layer.normalize.to(*device_dtype(model))
    return marked(layer, meta.get("classes"), str(path), meta.get("shape"))


def _user_model(spec: Spec, given: dict[str, Any]) -> nn.Module:
    with registry.importable_cwd():
        log.info("running user code: %s", spec)
        builder = registry.import_object(spec)
        model = registry.call(builder, spec, what=f"{spec.module}:{spec.name}", **given)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{spec.module}:{spec.name} did not return a model",
            got=type(model).__name__,
            expected="a torch.nn.Module",
        )
    return model
