"""`verify`: the lowered program against the model itself, at points near and far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isogon.cpwl.certificate import Certificate, Check
from isogon.cpwl.lower import lower
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import EPS, errors
from isogon.cpwl.stages import Kink
from isogon.nets.outputs import logits
from isogon.nets.states import swapped
from isogon.nets.trace import undisturbed
from isogon.nets.unwrap import unwrap

__all__ = ["verify"]

EXACT = 1e-9
SINGLE = 1e-3  # where the model itself computes in single precision on the way


@torch.no_grad()
def verify(
    model: nn.Module,
    example: Tensor,
    *,
    points: int = 64,
    program: Program | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    r"""Check that a model's lowered program computes what the model does.

    The program is compared with ``model.forward`` on float64 copies of its weights, at the
    example and at points around it: :math:`x + r s g` with :math:`g` Gaussian, :math:`s` the
    spread of the example and :math:`r` from 1/100 to 10, so that kinks are crossed. A model that
    casts to single precision itself is held to its own precision.

    Args:
        model: What was lowered; left as it was.
        example: Inputs ``[N, ...]``.
        points: Number of points.
        program: The program; by default `lower` makes it.
        generator: Source of the points; by default one with a fixed seed.

    Returns:
        Checks ``relative error`` (largest difference, relative to the size of what each output
        sums up at each point, so that no output hides behind a larger one) and ``samples
        independent`` (the program on one sample at a time against the whole batch), with the
        absolute error, the share of kink pieces visited and the sizes of the program as facts.

    Raises:
        UnsupportedOp: The model is not continuous piecewise linear (see `lower`).
    """
    program = lower(model, example) if program is None else program
    x = _nearby(example, points, generator)
    given, exact = _in_double(model, x)
    found = program.evaluate(x)
    given = given.to("cpu", torch.float64).reshape(len(given), -1)
    found = found.reshape(len(found), -1)
    size = sizes(program, x)
    error = relative = float("inf")
    if found.shape == given.shape:
        off = (found - given).abs()
        error, relative = float(off.max()), float((off / size).max())
    alone = torch.cat([program.evaluate(row[None]) for row in x[:4]]).reshape(len(x[:4]), -1)
    apart = float(((alone - found[: len(alone)]).abs() / size[: len(alone)]).max())
    kinks = {stage.site: stage for stage in program.cuts if isinstance(stage, Kink)}
    seen = total = 0
    for site, z in program.preactivations(x[:16]).items():
        if site in kinks:
            stage = kinks[site]
            pieces = stage.piece(z.reshape(-1, *program.shapes[stage.output]))
            seen += sum(int((pieces == k).any(0).sum()) for k in range(stage.pieces))
            total += stage.pieces * z.shape[1]
    return Certificate(
        f"program of {type(unwrap(model)).__name__}",
        (
            Check("relative error", relative, EXACT if exact else SINGLE),
            Check("samples independent", apart, EXACT),
        ),
        {
            "absolute error": error,
            "points": len(x),
            "precision": "float64" if exact else "the model's own casts",
            "stages": len(program.stages),
            "sites": len(program.cuts),
            "units": sum(program.units(stage) for stage in program.cuts),
            "share of pieces visited": seen / total if total else 1.0,
        },
    )


def sizes(program: Program, x: Tensor) -> Tensor:
    """The size `[N, C]` of what each output sums at each point, also in the layers before.

    That is what its rounding error is relative to.
    """
    step = max(1, program.chunk() // 4)
    parts = [list(errors(program, x[low : low + step]))[-1] for low in range(0, len(x), step)]
    return (torch.cat(parts) / EPS).clamp(min=torch.finfo(torch.float64).tiny)


def _nearby(example: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Points `[count, ...]` at the example and around it, from near to ten times its spread."""
    generator = generator or torch.Generator().manual_seed(0)
    x = example.detach().to("cpu", torch.float64)
    rows = x[torch.arange(count) % len(x)]
    spread = float(x.std()) if x.numel() > 1 else 0.0
    radius = torch.logspace(-2, 1, count, dtype=torch.float64).reshape(-1, *(1,) * (x.ndim - 1))
    noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    moved = rows + radius * (spread if spread > 0 else 1.0) * noise
    return torch.cat([x[:count], moved])[:count] if count > len(x) else x[:count]


def _in_double(model: nn.Module, x: Tensor) -> tuple[Tensor, bool]:
    """The model's logits at `x`, and whether it computed them in float64 throughout."""
    inner = unwrap(model)
    wide = {
        name: t.detach().to("cpu", torch.float64 if t.is_floating_point() else t.dtype)
        for name, t in (*inner.named_parameters(), *inner.named_buffers())
    }
    with undisturbed(inner, mute=False):
        try:
            with swapped(inner, wide, cast=False):
                found = logits(inner, x)
            return found, found.dtype == torch.float64
        except RuntimeError:  # single-precision constants inside its forward
            parameter = next(iter(inner.parameters()), x.float())
            own = x.to(parameter.device, parameter.dtype)
            return logits(inner, own), False
