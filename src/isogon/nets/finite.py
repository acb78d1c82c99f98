"""Numbers that are not numbers: in weights, in inputs, and where they first come up inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isogon.errors import DataError, ModelError
from isogon.nets.hygiene import preserved
from isogon.nets.unwrap import unwrap
from isogon.nets.watch import watched


@torch.no_grad()
def check_finite(model: nn.Module) -> None:
    """Refuse what is no model that computes: weights that are not there, or not numbers.

    A buffer may hold infinities, as masks do; running statistics may not.

    Raises:
        ModelError: Not a module, TorchScript, weights that are not made yet (lazy modules, the
            meta device), or the first parameter or buffer with a NaN or an infinity.
    """
    check_whole(model)
    masks = {name for name, _ in model.named_buffers() if not name.endswith(("_mean", "_var"))}
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        if not t.is_floating_point():
            continue
        wrong = t.isnan() if name in masks else ~t.isfinite()
        if bool(wrong.any()):
            raise ModelError(
                f"weights hold NaN or infinity in {name!r}",
                got=f"{int(wrong.sum())} of {t.numel()} values",
                expected="finite weights",
                fix="Retrain, or load an earlier checkpoint.",
            )


def check_whole(model: object) -> None:
    """Refuse what can't be looked into or has no weights yet, with the reason.

    Raises:
        ModelError: Not a module, TorchScript, a lazy module that never ran, or weights on the
            meta device.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            "not a model",
            got=f"a {type(model).__name__}",
            expected="a torch.nn.Module",
            fix="Write it as a module whose forward(x) computes it."
            if callable(model)
            else "Pass the module, or load it with isogon.load.",
        )
    if isinstance(unwrap(model), torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module can't be looked into",
            got=type(model).__name__,
            expected="the torch.nn.Module that it was made from",
            fix="Pass the original module, with these weights: "
            "module.load_state_dict(scripted.state_dict()).",
        )
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(t):
            raise ModelError(
                "the model's lazy layers have no weights yet",
                got=f"{name!r} is not initialised",
                expected="a model that ran once",
                fix="Run it on one batch first: model(x).",
            )
        if t.device.type == "meta":
            raise ModelError(
                "the model's weights are on the meta device: they have shapes, but no values",
                got=repr(name),
                expected="weights in memory",
                fix="Build the model outside torch.device('meta'), or fill it: "
                "model.to_empty(device='cpu'), then load_state_dict.",
            )


def not_finite(model: nn.Module, x: Tensor, rows: Tensor, what: str) -> DataError:
    """The error for outputs that are not finite: names the first site where it happens.

    Args:
        model: The model.
        x: Inputs ``[n, ...]`` that are finite themselves.
        rows: Which of the samples, bool ``[n]``.
        what: What is not finite.
    """
    places = rows.nonzero()[:, 0].tolist()
    site = first_site(model, x[rows][:4]) if places else None
    where = f"; the first site where it happens is {site}" if site else ""
    return DataError(
        f"{what} are not finite",
        got=f"{len(places)} of {len(rows)} samples, the first at place {places[0]}{where}",
        expected="finite numbers",
        fix="Look for inputs far outside the model's domain, or a model that overflows on them.",
    )


@torch.no_grad()
def first_site(model: nn.Module, x: Tensor) -> str | None:
    """Name of the first site whose output is not finite; None where all are (or can't be seen)."""
    found: list[str] = []

    def report(path: str, call: int, op: str, value: Tensor) -> None:
        if not found and value.is_floating_point() and not bool(value.isfinite().all()):
            name = path or "model"
            found.append(f"{op} {f'{name}:{call}' if call else name!r}")

    try:
        with preserved(model) as model, watched(model, report) as run:
            run(x)
    except Exception:  # only a hint for the message is lost
        return None
    return found[0] if found else None


def check_outputs(model: nn.Module, x: Tensor, z: Tensor) -> None:
    """Refuse outputs that are NaN or +inf (-inf is a class that is ruled out).

    Raises:
        DataError: Names the first site where it happens.
    """
    bad = z.isnan() | z.isposinf()
    if bool(bad.any()):
        raise not_finite(model, x, bad.reshape(len(z), -1).any(1), "the model's outputs")
