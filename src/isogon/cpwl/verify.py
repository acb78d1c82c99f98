"""`verify`: the lowered program against the model itself, at points near and far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isogon.cpwl.certificate import Certificate, Check
from isogon.cpwl.lower import lower
from isogon.cpwl.magnitudes import EPS, magnitude
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import errors
from isogon.cpwl.stages import Affine, Kink
from isogon.nets.outputs import logits
from isogon.nets.states import swapped
from isogon.nets.trace import undisturbed
from isogon.nets.unwrap import unwrap

__all__ = ["verify"]

EXACT = 1e-9
SINGLE = 1e-3  # where the model itself computes in single precision on the way
POINTS, FEWEST = 64, 8  # points by default; of a large network fewer ...
NUMBERS = 8_000_000  # ... as many as are evaluated with about so many intermediate numbers
VISITED = 16  # points at which the pieces that they visit are counted
TINY = torch.finfo(torch.float64).tiny


@torch.no_grad()
def verify(
    model: nn.Module,
    example: Tensor,
    *,
    points: int | None = None,
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
        points: Number of points; by default 64, of a network whose tensors hold more than 125,000
            numbers per input as many as are computed with 8 million numbers, 8 at least.
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
    count = affordable(program) if points is None else points
    x = _nearby(example, count, generator)
    given, exact = _in_double(model, x)
    limit = EXACT if exact else SINGLE
    found, least, visited = _evaluated(program, x)
    given = given.to("cpu", torch.float64).reshape(len(given), -1)
    error = relative = float("inf")
    if found.shape == given.shape:
        off = (found - given).abs()
        error, relative = float(off.max()), _relative(program, x, off, least, limit)
    alone = torch.cat([program.evaluate(row[None]) for row in x[:4]]).reshape(len(x[:4]), -1)
    off, first = (alone - found[: len(alone)]).abs(), slice(len(alone))
    apart = _relative(program, x[first], off, least[first], EXACT)
    return Certificate(
        f"program of {type(unwrap(model)).__name__}",
        (
            Check("relative error", relative, limit),
            Check("samples independent", apart, EXACT),
        ),
        {
            "absolute error": error,
            "points": len(x),
            "precision": "float64" if exact else "the model's own casts",
            "stages": len(program.stages),
            "sites": len(program.cuts),
            "units": sum(program.units(stage) for stage in program.cuts),
            "share of pieces visited": visited,
        },
    )


def affordable(program: Program) -> int:
    """Points that are evaluated with `NUMBERS` intermediate numbers: 64 at most, 8 at least."""
    numbers = sum(torch.Size(shape).numel() for shape in program.shapes.values())
    return min(POINTS, max(FEWEST, NUMBERS // max(numbers, 1)))


def _relative(program: Program, x: Tensor, off: Tensor, least: Tensor, limit: float) -> float:
    """Largest difference `[N, C]` of outputs relative to the size of what they sum up.

    Where it is within the limit also relative to the `least` that this size can be, that is the
    number; else the sizes themselves are computed.
    """
    bound = float((off / least.clamp(min=TINY)).max())
    return bound if bound <= limit else float((off / sizes(program, x)).max())


def _evaluated(program: Program, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Outputs `[N, C]`, what the last layer sums up in them `[N, C]`, the share of pieces visited.

    The size of what an output sums up in all layers is no less than that of the last layer.
    """
    last = summing(program)
    outputs, least = [], []
    pieces: dict[str, tuple[int, Tensor]] = {}
    step = program.chunk()
    for low in range(0, len(x), step):
        part = result = size = x[low : low + step]
        for stage, arguments, value in program.steps(part):
            if isinstance(stage, Kink) and low < VISITED:
                z = arguments[0][: VISITED - low]
                own = torch.stack([(stage.piece(z) == k).any(0) for k in range(stage.pieces)])
                seen = pieces.get(stage.output, (0, torch.zeros_like(own)))[1]
                pieces[stage.output] = own.numel(), seen | own
            if stage.output == program.output:
                result = value
            if last and stage is last[0]:
                assert isinstance(stage, Affine)
                size = magnitude(stage, *arguments)
        for stage in last[1:]:
            size = stage(size)
        outputs.append(result.reshape(len(part), -1))
        least.append(size.reshape(len(part), -1) if last else torch.zeros_like(outputs[-1]))
    total = sum(count for count, _ in pieces.values())
    met = sum(int(own.sum()) for _, own in pieces.values())
    return torch.cat(outputs), torch.cat(least), met / total if total else 1.0


def summing(program: Program) -> list[Affine]:
    """The affine stage that sums up the output, and those behind it that only reorder it.

    None where the output is that of a kink, say.
    """
    maker = {stage.output: stage for stage in program.stages}
    found: list[Affine] = []
    stage = maker.get(program.output)
    while isinstance(stage, Affine):
        found.insert(0, stage)
        if not stage.copies:
            return found
        if len(stage.inputs) != 1:
            break
        stage = maker.get(stage.inputs[0])
    return []


def sizes(program: Program, x: Tensor) -> Tensor:
    """The size `[N, C]` of what each output sums at each point, also in the layers before.

    That is what its rounding error is relative to.
    """
    step = max(1, program.chunk() // 2)
    parts = [list(errors(program, x[low : low + step]))[-1] for low in range(0, len(x), step)]
    return (torch.cat(parts) / EPS).clamp(min=TINY)


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
