"""The data of a trained model: what it learned from, what was held out, what tests it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from isogon import context
from isogon.data import Samples, derived
from isogon.errors import DataError, FileError, OptionError, SpecError
from isogon.registry import dataset
from isogon.specs import ModelSpec, Spec, parse
from isogon.training import feeds
from isogon.training.checkpoint import Checkpoint
from isogon.training.config import FitConfig, from_options

# The options that make other samples out of those that the data's spec names.
ALTERING = ("classes", "pixel_shuffle", "size", "predict")
_READ = (*ALTERING, "classes_seed", "noise_seed", "resize", "validation", "stratified")
_READ += ("split_seed", "label_noise", "family", "seed")


@dataset()
def data_of(
    checkpoint: ModelSpec,
    split: Literal["train", "val", "test"] = "test",
    limit: int | None = None,
    *,
    seed: int | None = None,
) -> Samples:
    """The data that a model was trained on, altered as its training did, for any split.

    Choice of classes, pixel permutation, size, held-out part and label noise (of ``train``) are
    those of the run: ``data_of(runs/last.safetensors, test)``, ``data_of(trained(cnn, digits,
    classes=3), train)``.

    Args:
        checkpoint: A checkpoint of isogon's, ``ARCHITECTURE@CHECKPOINT``, or ``trained(...)``
            (which is not trained for this).
        split: ``train``, ``val`` (the samples that were held out), or ``test``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.

    Raises:
        SpecError: Not a trained model.
        DataError: The run had no such samples, or its data had no spec.
    """
    spec = parse(checkpoint)
    data, options = _recorded(spec)
    config = from_options({k: v for k, v in options.items() if k in _READ})
    if spec.path is None:
        sets = feeds.resolve(data, config)
    else:
        try:
            with context.from_file(spec.path, data=True):
                sets = feeds.resolve(data, config)
        except SpecError as error:
            raise SpecError(
                error.problem,
                got=error.got,
                expected="a data set of isogon's own, without paths",
                fix=f'If you trust it, type the data yourself: "{_views(data, config, split)}".',
            ) from error
    found = {"train": sets.train, "val": sets.validation, "test": sets.test}[split]
    if found is None:
        raise DataError(
            f"the training of {checkpoint} had no {split} samples",
            got=f"data {data}",
            expected="held-out samples" if split == "val" else "a data set with a test split",
            fix="Choose another split, or name the data yourself.",
        )
    return found.limited(limit, seed)


def data_spec(model: str | Spec, split: str = "test") -> Spec:
    """The shortest spec of a trained model's data: its data set's, or `data_of` of the model.

    Raises:
        SpecError: Not a trained model.
        DataError: Its data had no spec.
        FileError: Its checkpoint can't be read.
    """
    spec = parse(model)
    data, options = _recorded(spec)
    other = (*ALTERING, "validation", "label_noise") if split != "test" else ALTERING
    plain = FitConfig()
    if split == "val" or any(options.get(k, getattr(plain, k)) != getattr(plain, k) for k in other):
        return Spec("data_of", (spec if spec.name == "trained" else str(spec.path), split))
    if split == "test":
        return derived.with_split(derived.without_limit(derived.as_call(data)), "test")
    return derived.with_split(data, split, only_open=True)


def _views(data: Spec, config: FitConfig, split: str) -> Spec:
    """The same data by name: what to type where a file may not say it."""
    found = derived.with_split(data, split)
    if config.classes is not None:
        found = Spec("classes", (found, config.classes), {"seed": config.classes_seed})
    if config.pixel_shuffle != "none":
        found = Spec("shuffled", (found, config.pixel_shuffle), {"seed": config.noise_seed})
    if config.size is not None:
        found = Spec("resized", (found, config.size), {"how": config.resize})
    return found


def _recorded(spec: Spec) -> tuple[Spec, dict[str, Any]]:
    """Spec of the data and options of the training that a model's spec stands for."""
    if spec.name == "trained" and spec.module is None and spec.path is None:
        kwargs = dict(spec.kwargs)
        places = dict(zip(("arch", "data"), spec.args))
        data = kwargs.pop("data", places.get("data"))
        kwargs.pop("arch", None)
        if not isinstance(data, str | Spec):
            raise SpecError("no data", got=str(spec), expected="trained(ARCHITECTURE, DATA)")
        return parse(data), kwargs
    if spec.path is None:
        raise SpecError(
            "not a trained model",
            got=str(spec),
            expected="a checkpoint of isogon's, ARCHITECTURE@CHECKPOINT, or trained(...)",
            fix="Name the data yourself.",
        )
    context.typed_only("open a file", spec)
    found = Checkpoint.load(Path(spec.path).expanduser())
    text = found.meta.get("data")
    if not isinstance(text, str):
        raise DataError(
            "the checkpoint does not name its data",
            got=f"{spec.path}: trained on data that were passed in",
            expected="a spec",
            fix="Name the data yourself.",
        )
    try:
        config = from_options(found.meta["config"])
    except OptionError as error:
        raise FileError(
            f"the checkpoint's options can't be used ({error.problem})",
            got=spec.path,
            expected="what a run of isogon writes",
            fix="It was damaged, made by hand, or is of another version.",
        ) from error
    return parse(text), {k: getattr(config, k) for k in FitConfig.__dataclass_fields__}
