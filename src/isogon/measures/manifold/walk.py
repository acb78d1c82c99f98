"""Walks along a leaf of a classifier, or in the kernel of its local data matrix."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from isogon import context
from isogon.data import Points, points
from isogon.data.finite import check_inputs
from isogon.errors import DataError, ModelError, OptionError
from isogon.measures.manifold.noise import REPROJECT, remember
from isogon.measures.manifold.state import Ends, Rule, Walkers, continued
from isogon.measures.manifold.tangent import Tangent, not_rows, tangent
from isogon.nets import hygiene
from isogon.nets.behaviour import examine
from isogon.nets.finite import check_finite
from isogon.nets.outputs import logits
from isogon.readings import Path
from isogon.registry import measure

SMALLEST = 1 / 256  # an adaptive step is not halved below this share of `step`


@measure(
    cite="grementieri2022",
    cost=5.0,
    survey={"start": "@class:0", "toward": "@class:1", "steps": 400, "step": 0.05, "patience": 50},
    example={"steps": 5},
    typed={"start": "digits(test)[0]", "toward": "digits(test)[1]", "patience": 50},
)
def walk(
    model: Module,
    start: Points,
    *,
    toward: Points | None = None,
    direction: Points | None = None,
    along: Literal["leaf", "kernel"] = "leaf",
    step: float = 0.1,
    steps: int = 1000,
    stop: float = 1.0,
    clamp: tuple[float, float] | None = None,
    reproject: int = 0,
    noise: int = 0,
    min_probability: float = 0.0,
    patience: int = 0,
    control: Literal["fixed", "adaptive"] = "fixed",
    tolerance: float = 1e-2,
    frames: int = 64,
    seed: int = 0,
) -> Path:
    r"""Walk from each start along the leaf through it, or in the kernel of G.

    x <- clamp(x + step u / \|u\|), where u is the projection of (target - x), or of a fixed
    direction, onto the range of the local data matrix G(x) (``along="leaf"``) or onto its
    kernel. The range is spanned by the C - 1 differences of logit gradients; its dimension is
    found by a cut-off on eigenvalues. Walks run side by side, positions are kept in float64.

    A walk ends after ``steps`` steps, within ``stop`` of its target, where the probability of
    its predicted class falls below ``min_probability``, where it has come no closer to its
    target (by a hundredth of a step) for ``patience`` steps (it then swings about the nearest
    point of its leaf), or where nothing is left to project.

    Args:
        model: Any module from [N, ...] to logits [N, C].
        start: Where to begin, [n, ...] (or one sample without its axis); or the Path of an
            earlier call, which is continued to ``steps`` steps in all: bit for bit what one
            longer walk gives. Of the other options ``stop``, ``min_probability`` and
            ``patience`` are then taken from this call, the rest from the earlier one.
        toward: Targets, [n, ...] or one for all.
        direction: Fixed directions, [n, ...] or one for all. With neither, one random normal
            direction per walk is drawn from ``seed``.
        along: The leaf, or the kernel of G.
        step: Length of a step, in units of the input; the longest one if adaptive.
        steps: Most steps per walk.
        stop: Distance to the target (L2) at which a walk ends.
        clamp: Bounds of the input domain, e.g. (0, 1) for images; numbers, or tensors that
            broadcast to a sample. None: no bounds.
        reproject: Times that a clamped step is projected back onto the subspace and clamped
            again before it is taken, which lowers the drift (alternating projections).
        noise: Steps in the kernel, in a random direction drawn from ``seed``, that lead from each
            start to where its walk begins: what follows is a leaf of noise.
        min_probability: Of the predicted class, below which a walk ends.
        patience: Steps without coming closer to the target, after which a walk ends; 0: never.
        control: ``fixed``, or ``adaptive``: a step is halved until ``departure`` is at most
            ``tolerance`` (down to step / 256), and grows again by half.
        tolerance: Largest departure of one adaptive step (L2).
        frames: About how many positions to keep per walk: they are thinned out as it goes on.
        seed: Of the random directions.

    Returns:
        One row per walk and step, step 0 being the start: walk, step, distance (L2 to the
        target; NaN without one), travelled (length of the path so far), probability (of the
        predicted class), prediction, drift (L2 of the part of the last step that clamping
        moved off the subspace), departure (L2 of the part of the last step that is off the
        subspace at the point it led to: how far the subspace has turned), from_start (L2),
        divergence (KL from the prediction at the start, nats), alignment (cosine of the angle
        between what the walk aims at and the next step: near 0 where the leaf comes no nearer).
        Arrays: start, end [n, ...]; frames [k, ...] with frame_walk and frame_step [k]; after
        ``noise`` also image [n, ...], what was given, and noise_kept [n]: which share of
        start - image is in end - image, <end - image, start - image> / |start - image|^2.

    Raises:
        ModelError: Weights that are not finite, or no row of logits per sample; a model that is
            random, depends on the batch or has no gradient.
        DataError: Starts, targets and directions whose shapes don't fit, or with NaN in them.
        OptionError: An option outside its domain.
    """
    check_finite(model)
    device, _ = hygiene.device_dtype(model)
    image: Tensor | None = None
    if isinstance(start, Path):
        state = continued(start, device)
        if "image" in start.arrays:
            image = torch.from_numpy(start.arrays["image"])
    else:
        rule = Rule(
            along, step, control, tolerance, _bounds(clamp, device), max(1, frames), reproject
        )
        _check(rule, steps, noise)
        if noise:
            off = walk(
                model,
                start,
                along="kernel",
                step=step,
                steps=noise,
                clamp=clamp,
                reproject=max(reproject, REPROJECT),
                frames=1,
                seed=seed,
            )
            image, start = (torch.from_numpy(off.arrays[k]).to(device) for k in ("start", "end"))
        state = _prepared(model, start, toward, direction, rule, seed)
    examine(model, state.x, gradient=True, softmax=True)
    ends = Ends(steps, stop, min_probability, patience)
    for ids in state.groups():
        _run(model, state, ids, ends)
    facts = {"seed": seed, "stop": stop, "min_probability": min_probability}
    found = state.reading({**facts, "dtype": hygiene.precision(model)})
    return found if image is None else remember(found, image)


def _run(model: Module, state: Walkers, ids: Tensor, ends: Ends) -> None:
    """Walk a group of walks side by side to their ends."""
    report = context.progress()
    t = _at(model, state.x[ids])
    u, alignment = _aimed(state, ids, state.x[ids], t)
    state.begin(ids, t, alignment)
    while len(keep := state.going(ids, t, ends)):
        ids, t, u, alignment = ids[keep], t.select(keep), u[keep], alignment[keep]
        free = alignment > 1e-12
        state.end(ids[~free], "stuck")
        ids, t, u = ids[free], t.select(free), _unit(u[free])
        if not len(ids):
            break
        y, drift, departure, t = _advance(model, state, ids, t, u)
        u, alignment = _aimed(state, ids, y, t)
        state.arrive(ids, y, t, drift, departure, alignment)
        report(int(state.count[ids].max()), ends.steps, "walk")


def _aimed(state: Walkers, ids: Tensor, x: Tensor, t: Tangent) -> tuple[Tensor, Tensor]:
    """What of the aims at ``x`` lies in the subspace there, and which share of their length."""
    aim = state.aim(ids, x)
    u = _part(t, aim, state.rule.along)
    whole = aim.flatten(1).norm(dim=1)
    share = u.flatten(1).norm(dim=1) / whole.clamp_min(1e-300)
    return u, share.clamp_max(1.0)


def _advance(
    model: Module, state: Walkers, ids: Tensor, t: Tangent, u: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tangent]:
    """One step of each walk: position, drift, departure, and the subspace there."""
    rule, x = state.rule, state.x[ids]
    size = state.size[ids]
    y, drift = _move(rule, t, x, u, size)
    there = _at(model, y)
    departure = _departure(there, u, size, rule.along)
    if rule.control == "adaptive":
        while True:
            bad = (departure > rule.tolerance) & (size > rule.step * SMALLEST)
            if not bad.any():
                break
            size = torch.where(bad, size / 2, size)
            y[bad], drift[bad] = _move(rule, t.select(bad), x[bad], u[bad], size[bad])
            again = _at(model, y[bad])
            there = there.replace(bad, again)
            departure[bad] = _departure(again, u[bad], size[bad], rule.along)
        grown = torch.where(departure < rule.tolerance / 4, 1.5 * size, size)
        state.size[ids] = grown.clamp_max(rule.step)
    return y, drift, departure, there


def _move(rule: Rule, t: Tangent, x: Tensor, u: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Where a step leads, and how far clamping moved it off the subspace."""
    free = x + _wide(size, x) * u
    if rule.clamp is None:
        return free, torch.zeros_like(size)
    y = torch.minimum(torch.maximum(free, rule.clamp[0]), rule.clamp[1])
    other = "kernel" if rule.along == "leaf" else "leaf"
    off = _part(t, y - free, other)
    for _ in range(rule.reproject):
        y = torch.minimum(torch.maximum(y - off, rule.clamp[0]), rule.clamp[1])
        off = _part(t, y - free, other)
    return y, off.flatten(1).norm(dim=1)


def _departure(there: Tangent, u: Tensor, size: Tensor, along: str) -> Tensor:
    """Length of the part of a step that is off the subspace at the point it led to."""
    other = "kernel" if along == "leaf" else "leaf"
    return size * _part(there, u, other).flatten(1).norm(dim=1)


def _part(t: Tangent, vectors: Tensor, along: str) -> Tensor:
    part = t.project(vectors)
    return part if along == "leaf" else vectors - part


def _at(model: Module, x: Tensor) -> Tangent:
    return tangent(model, hygiene.cast(x, model))


def _unit(u: Tensor) -> Tensor:
    return u / _wide(u.flatten(1).norm(dim=1), u)


def _wide(size: Tensor, x: Tensor) -> Tensor:
    return size.reshape(-1, *[1] * (x.dim() - 1))


# --------------------------------------------------------------------------- what was given


def _prepared(
    model: Module,
    start: Tensor,
    toward: Tensor | None,
    direction: Tensor | None,
    rule: Rule,
    seed: int,
) -> Walkers:
    if toward is not None and direction is not None:
        raise OptionError(
            "a walk has a target or a direction",
            got="both toward and direction",
            expected="one of them",
            fix="Leave one out.",
        )
    start, classes = batched(model, points(start) if isinstance(start, str) else start)
    shape = start.shape[1:]
    given = toward if toward is not None else direction
    if given is None:
        generator = torch.Generator().manual_seed(seed)
        given = torch.randn(len(start), *shape, generator=generator, dtype=torch.float64)
    given = points(given).to(start)
    if given.shape == shape:
        given = given[None]
    count = max(len(start), len(given)) if given.dim() else 0
    if given.shape[1:] != shape or {len(start), len(given)} - {1, count}:
        raise DataError(
            "starts and targets (or directions) don't fit together",
            got=f"{list(start.shape)} and {list(given.shape)}",
            expected="the same shape, or one of them for all",
        )
    start, given = start.expand(count, *shape).clone(), given.expand(count, *shape).clone()
    check_inputs(start, what="the starts")
    check_inputs(given, what="the targets" if toward is not None else "the directions")
    _, dtype = hygiene.device_dtype(model)
    kept = "float64" if dtype == torch.float64 else "float32"
    return Walkers(rule, start, given, toward is not None, classes, kept)


def batched(model: Module, start: Tensor) -> tuple[Tensor, int]:
    """Starts [n, ...] in float64 (one sample without its axis gets one), and C.

    Raises:
        DataError: They are no samples, or not ones that the model takes.
        ModelError: The model gives no row of logits per sample.
    """
    if not isinstance(start, Tensor) or start.numel() == 0 or not start.is_floating_point():
        raise DataError(
            "no starts",
            got=f"{list(start.shape)} of {start.dtype}" if isinstance(start, Tensor) else start,
            expected="real-valued samples [n, ...]",
        )
    x = hygiene.cast(start.detach(), model)
    refused: ModelError | None = None
    why = ""
    with torch.no_grad(), hygiene.preserved(model) as inner:
        for samples in (x, x[None]):
            try:
                z = logits(inner, samples[:1])
            except ModelError as error:
                refused = refused or error
                continue
            except (RuntimeError, IndexError, ValueError) as error:
                why = why or f": {str(error).splitlines()[0]}"
                continue
            if z.dim() == 2 and z.shape[1]:
                return samples.double(), max(2, z.shape[1])
            refused = refused or not_rows(z, samples[:1])
    if refused is not None:
        raise refused
    raise DataError(
        "the model does not take these starts",
        got=f"{list(start.shape)}{why}",
        expected="samples [n, ...] of the shape that the model was made for",
        fix="Give data of that shape.",
    )


def _bounds(clamp: Any, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if clamp is None:
        return None
    low, high = (torch.as_tensor(b, dtype=torch.float64, device=device) for b in clamp)
    if not bool((low < high).all()):
        raise OptionError("empty domain", got=clamp, expected="(low, high) with low < high")
    return low, high


def _check(rule: Rule, steps: int, noise: int) -> None:
    for name, value, good, expected in (
        ("step", rule.step, 0 < rule.step < float("inf"), "a positive length"),
        ("steps", steps, steps >= 0, "a number >= 0"),
        ("noise", noise, noise >= 0, "a number of steps >= 0"),
        ("along", rule.along, rule.along in ("leaf", "kernel"), "'leaf' or 'kernel'"),
        ("control", rule.control, rule.control in ("fixed", "adaptive"), "'fixed' or 'adaptive'"),
        ("reproject", rule.reproject, rule.reproject >= 0, "a number >= 0"),
        ("tolerance", rule.tolerance, rule.tolerance > 0, "a positive length"),
    ):
        if not good:
            raise OptionError(f"can't walk with this {name}", got=repr(value), expected=expected)
