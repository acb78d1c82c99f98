"""Every option of training, as one flat dataclass: the command line is derived from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from isogon import hints
from isogon.errors import OptionError, unknown
from isogon.specs import Spec

# Options that say how and where a run is carried out, not which weights come out of it:
# they may differ between a run and its continuation.
CIRCUMSTANCES = frozenset(
    (
        *("snapshot_every", "snapshot_until", "snapshot_at", "train_accuracy"),
        *("checkpoint_every", "checkpoint_seconds", "resume", "resume_from", "override"),
        *("device", "strategy", "workers", "tensorboard", "log_file", "evaluate_only"),
        *("observe", "observe_every", "observe_data"),
    )
)
# What `override` takes from the options instead of from the checkpoint.
OVERRIDES = (
    *("optimizer", "lr", "momentum", "nesterov", "weight_decay", "clip"),
    *("schedule", "lr_step", "lr_decay", "warmup", "stop_patience", "stop_delta", "stop_at"),
)


@dataclass(frozen=True)
class FitConfig:
    """Options of `fit`.

    Attributes:
        epochs: Passes over the training samples.
        batch_size: Samples per optimisation step (over all devices together).
        seed: Seed of initial weights, order of samples, augmentation and dropout.
        optimizer: Update rule.
        lr: Learning rate at the peak of the schedule.
        momentum: Momentum of ``sgd``; first beta of ``adam`` and ``adamw`` is always 0.9.
        nesterov: Nesterov's momentum (``sgd`` only).
        weight_decay: Weight of the L2 penalty (decoupled for ``adamw``).
        clip: Largest gradient norm; 0 leaves gradients as they are.
        objective: ``full``; ``penalty`` minimises the L2 penalty alone (the loss counts nothing).
        schedule: Learning rate over training: ``constant``; ``step`` (times ``lr_decay``
            every ``lr_step`` epochs); ``exponential`` (times ``lr_decay`` every epoch,
            continuously); ``linear`` and ``cosine`` (to 0 at the end).
        lr_step: Epochs between two decays of ``step``.
        lr_decay: Factor of one decay.
        warmup: Epochs of linear growth from 0 before the schedule (fractions allowed).
        loss: ``cross_entropy`` for classes, ``mse`` for numbers; ``auto`` looks at the labels.
        label_smoothing: Probability mass that cross-entropy spreads over all classes.
        normalize: First layer of a model built from a spec: ``data`` measures mean and standard
            deviation per channel on the training samples, ``known`` uses the published
            constants of the data set, ``none`` feeds raw inputs. A module that is passed in is
            trained as it is.
        classes: Learn only so many of the classes (a seeded choice, relabelled 0, 1, ..., the
            same in every split).
        classes_seed: Seed of the choice of classes.
        label_noise: Share of the training labels that is replaced by another class; validation
            and test labels stay true.
        pixel_shuffle: ``one`` permutation of the pixels for all images of all splits, or a
            permutation of its own for ``each`` image.
        noise_seed: Seed of label noise and pixel permutations.
        size: Height and width that images are brought to, in pixels; as they are where not set.
        resize: How to reach ``size``: interpolate, or ``pad`` with black.
        pad: Height and width that images are brought to afterwards, centred on black: with
            ``size=112`` and ``pad=224`` they are enlarged to 112 and fill the middle of 224
            pixels. Not padded where not set.
        validation: Share of the training samples that is held out and measured after each epoch.
        stratified: Hold out the same share of every class.
        split_seed: Seed of the held-out samples.
        augment: Random transformations of each batch, in this order: ``crop(4)``, ``flip``,
            ``vertical_flip``, ``rotate(10)``, ``erase(8)``, ``noise(0.1)``.
        family: Spec of a family of transformations, applied to the training inputs.
        family_mode: Each sample under a ``random`` member of the family, or each sample under
            ``all`` members in every epoch.
        predict: What is learned: the ``label``, or which ``transformation`` of ``family`` was
            applied: its parameters, in standard units over the family, by ``mse``.
        shuffle: Draw a new order of the samples each epoch.
        train_accuracy: Also measure loss and accuracy on all training samples, in eval mode,
            after each epoch.
        stop_patience: Stop after so many epochs without a smaller loss (on the validation samples,
            else the running training loss); 0 never stops.
        stop_delta: What counts as smaller: by more than this.
        stop_at: Stop once accuracy (validation, else running) reaches this; 0 never stops.
        restarts: Where ``stop_at`` was not reached by the last epoch, begin again from the next
            seed, at most so many times; the runs are kept in ``restart-0``, ``restart-1``, ...
        snapshot_every: Keep a checkpoint every so many epochs; 0 keeps none.
        snapshot_until: Keep a checkpoint of each epoch up to this one.
        snapshot_at: Keep a checkpoint at these fractions of training, from 0 (before the first
            step) to 1.
        checkpoint_every: Write ``last.safetensors`` every so many steps as well as after each
            epoch; 0 leaves it at epochs and seconds.
        checkpoint_seconds: Write ``last.safetensors`` whenever so many seconds have passed; 0
            leaves it at epochs and steps.
        resume: Continue from ``last.safetensors`` of the output folder if the same run left one.
        resume_from: A checkpoint to go on from, with its optimiser, position and random states.
            Options that are left at their defaults are the checkpoint's; others must agree with
            it. ``epochs`` counts from the beginning.
        override: With ``resume_from``: take the options of the optimiser, the schedule and
            stopping from here and not from the checkpoint.
        evaluate_only: Train nothing; measure the checkpoint (or the untrained model).
        device: Where to train.
        devices: Number of devices (processes, on a CPU) of each node.
        nodes: Number of nodes.
        strategy: How processes are started: ``ddp`` runs the command again (or finds the
            processes that torchrun or Slurm started), ``ddp_spawn`` starts them from within a
            session.
        precision: ``32``; ``bf16`` or ``16`` compute in half precision and keep float32 weights.
        channels_last: Keep images and filters in the layout ``[N, H, W, C]`` in memory.
        workers: Processes that read samples ahead.
        tensorboard: Folder for TensorBoard (needs ``isogon[tensorboard]``).
        log_file: File that one JSON line per epoch is appended to.
        observe: A measure to run on fixed examples while training, e.g. ``data-matrix``; its
            tables go to ``observe/`` in the output folder.
        observe_every: Steps between two observations; 0 for a tenth of an epoch.
        observe_data: Spec of the examples; the first 1,000 training samples where not set.
    """

    epochs: int = 10
    batch_size: int = 32
    seed: int = 0
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = 3e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float = 0.0
    objective: Literal["full", "penalty"] = "full"
    schedule: Literal["constant", "step", "exponential", "linear", "cosine"] = "linear"
    lr_step: int = 30
    lr_decay: float = 0.1
    warmup: float = 0.0
    loss: Literal["auto", "cross_entropy", "mse"] = "auto"
    label_smoothing: float = 0.0
    normalize: Literal["data", "known", "none"] = "data"
    classes: int | None = None
    classes_seed: int = 42
    label_noise: float = 0.0
    pixel_shuffle: Literal["none", "one", "each"] = "none"
    noise_seed: int = 12345
    size: int | None = None
    resize: Literal["bilinear", "nearest", "pad"] = "bilinear"
    pad: int | None = None
    validation: float = 0.0
    stratified: bool = False
    split_seed: int = 42
    augment: tuple[str, ...] = ()
    family: Annotated[str | None, "Family"] = None
    family_mode: Literal["random", "all"] = "random"
    predict: Literal["label", "transformation"] = "label"
    shuffle: bool = True
    stop_patience: int = 0
    stop_delta: float = 0.0
    stop_at: float = 0.0
    restarts: int = 0
    train_accuracy: bool = False
    snapshot_every: int = 0
    snapshot_until: int = 0
    snapshot_at: tuple[float, ...] = ()
    checkpoint_every: int = 0
    checkpoint_seconds: float = 60.0
    resume: bool = True
    resume_from: str | None = None
    override: bool = False
    evaluate_only: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["ddp", "ddp_spawn"] = "ddp"
    precision: Literal["32", "bf16", "16"] = "32"
    channels_last: bool = False
    workers: int = 0
    tensorboard: str | None = None
    log_file: str | None = None
    observe: str | None = None
    observe_every: int = 0
    observe_data: Annotated[str | None, "Batches"] = None

    def __post_init__(self) -> None:
        """Refuse values outside their domain.

        Raises:
            OptionError: Naming the option, what was got and what is expected.
        """
        # JSON, YAML and specs give lists, nested specs and numbers where the fields are text
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "augment":
                value = (value,) if isinstance(value, str | Spec) else value
                object.__setattr__(self, "augment", tuple(str(v) for v in value))
            elif isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            elif isinstance(value, Spec) or field.name == "precision":
                object.__setattr__(self, field.name, str(value))
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        for name, (test, expected) in _DOMAINS.items():
            value = getattr(self, name)
            if not all(math.isfinite(v) and test(v) for v in _numbers(value)):
                raise OptionError(f"option {name} is out of range", got=value, expected=expected)

        if self.predict == "transformation" and self.family is None:
            raise OptionError(
                "no transformation to predict", got="no family", expected="e.g. family=rotations(8)"
            )
        if self.restarts and not self.stop_at:
            raise OptionError(
                "restarts without a target",
                got=f"restarts={self.restarts}",
                expected="stop_at, the accuracy that ends them",
            )

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON-able values."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    def trajectory(self) -> dict[str, Any]:
        """The options that decide which weights come out (all but the circumstances)."""
        return {k: v for k, v in self.as_dict().items() if k not in CIRCUMSTANCES}


def from_options(options: dict[str, Any]) -> FitConfig:
    """A config from a mapping; unknown names are refused with the nearest one.

    Raises:
        OptionError: An unknown option or a value outside its domain.
    """
    known = [f.name for f in dataclasses.fields(FitConfig)]
    for name in options:
        if name not in known:
            raise unknown("training option", name, known, error=OptionError)
    return FitConfig(**options)


_POSITIVE = (lambda v: v > 0, "more than 0")
_COUNT = (lambda v: v >= 1, "1 or more")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_FRACTION = (lambda v: 0 <= v <= 1, "between 0 and 1")
_BELOW_ONE = (lambda v: 0 <= v < 1, "at least 0 and less than 1")
_DOMAINS = {
    "epochs": _NOT_NEGATIVE,
    "batch_size": _COUNT,
    "seed": (lambda v: 0 <= v < 2**63, "an integer from 0 to 2**63 - 1"),
    "lr": _POSITIVE,
    "momentum": _BELOW_ONE,
    "weight_decay": _NOT_NEGATIVE,
    "clip": _NOT_NEGATIVE,
    "lr_step": _COUNT,
    "lr_decay": (lambda v: 0 < v <= 1, "more than 0, at most 1"),
    "warmup": _NOT_NEGATIVE,
    "label_smoothing": _BELOW_ONE,
    "classes": _COUNT,
    "label_noise": _FRACTION,
    "size": _COUNT,
    "pad": _COUNT,
    "validation": _BELOW_ONE,
    **dict.fromkeys(
        ("classes_seed", "noise_seed", "split_seed"),
        (lambda v: 0 <= v < 2**32, "an integer from 0 to 2**32 - 1"),
    ),
    "stop_patience": _NOT_NEGATIVE,
    "stop_delta": _NOT_NEGATIVE,
    "stop_at": _FRACTION,
    "restarts": _NOT_NEGATIVE,
    "devices": _COUNT,
    "nodes": _COUNT,
    "workers": _NOT_NEGATIVE,
    "observe_every": _NOT_NEGATIVE,
    "snapshot_every": _NOT_NEGATIVE,
    "snapshot_until": _NOT_NEGATIVE,
    "snapshot_at": _FRACTION,
    "checkpoint_every": _NOT_NEGATIVE,
    "checkpoint_seconds": _NOT_NEGATIVE,
}


def _numbers(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if not hints.fits(value, hint):
        raise OptionError(
            f"option {name} has the wrong type", got=repr(value), expected=hints.shown(hint)
        )
