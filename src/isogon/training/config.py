"""Every option of training, as one flat dataclass: the command line is derived from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from isogon.errors import OptionError, unknown

# Options that say how and where a run is carried out, not which weights come out of it:
# they may differ between a run and its continuation.
CIRCUMSTANCES = frozenset(
    (
        *("snapshot_every", "snapshot_until", "snapshot_at", "train_accuracy"),
        *("checkpoint_every", "checkpoint_seconds", "resume", "device"),
    )
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
        shuffle: Draw a new order of the samples each epoch.
        train_accuracy: Also measure loss and accuracy on all training samples, in eval mode,
            after each epoch.
        snapshot_every: Keep a checkpoint every so many epochs; 0 keeps none.
        snapshot_until: Keep a checkpoint of each epoch up to this one.
        snapshot_at: Keep a checkpoint at these fractions of training, from 0 (before the first
            step) to 1.
        checkpoint_every: Write ``last.safetensors`` every so many steps as well as after each
            epoch; 0 leaves it at epochs and seconds.
        checkpoint_seconds: Write ``last.safetensors`` whenever so many seconds have passed; 0
            leaves it at epochs and steps.
        resume: Continue from ``last.safetensors`` of the output folder if the same run left one.
        device: Where to train.
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
    schedule: Literal["constant", "step", "exponential", "linear", "cosine"] = "linear"
    lr_step: int = 30
    lr_decay: float = 0.1
    warmup: float = 0.0
    loss: Literal["auto", "cross_entropy", "mse"] = "auto"
    label_smoothing: float = 0.0
    normalize: Literal["data", "known", "none"] = "data"
    shuffle: bool = True
    train_accuracy: bool = False
    snapshot_every: int = 0
    snapshot_until: int = 0
    snapshot_at: tuple[float, ...] = ()
    checkpoint_every: int = 0
    checkpoint_seconds: float = 60.0
    resume: bool = True
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"

    def __post_init__(self) -> None:
        """Refuse values outside their domain.

        Raises:
            OptionError: Naming the option, what was got and what is expected.
        """
        # JSON and YAML give lists where the fields are tuples
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        hints = get_type_hints(type(self))
        for name in hints:
            _check_type(name, getattr(self, name), hints[name])
        for name, (test, expected) in _DOMAINS.items():
            value = getattr(self, name)
            if not all(math.isfinite(v) and test(v) for v in _numbers(value)):
                raise OptionError(f"option {name} is out of range", got=value, expected=expected)

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
    "snapshot_every": _NOT_NEGATIVE,
    "snapshot_until": _NOT_NEGATIVE,
    "snapshot_at": _FRACTION,
    "checkpoint_every": _NOT_NEGATIVE,
    "checkpoint_seconds": _NOT_NEGATIVE,
}


def _numbers(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _check_type(name: str, value: Any, hint: Any) -> None:
    from isogon.registry import _fits, _type_name

    if not _fits(value, hint):
        raise OptionError(
            f"option {name} has the wrong type", got=repr(value), expected=_type_name(hint)
        )
