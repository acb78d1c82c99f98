"""Matching: the image of a network under its own weight symmetries that lies closest to another."""

from __future__ import annotations

import copy
import warnings
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import Module

from isogon import context
from isogon.actions.channels import Channels
from isogon.data import Batches, as_batches
from isogon.errors import ModelError, OptionError
from isogon.measures.alignment.architectures import check_same, example_of
from isogon.measures.alignment.correlations import correlations
from isogon.measures.alignment.symmetry.closest import Closest, closest
from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.symmetries import Symmetries, symmetries
from isogon.measures.alignment.symmetry.units import UNIT
from isogon.nets.behaviour import examine
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import cast, device_dtype, precision, preserved
from isogon.nets.outputs import logits
from isogon.nets.unwrap import unwrap
from isogon.readings import Reading
from isogon.registry import measure

EXACT = 1e-9  # relative difference of outputs in float64 above which the graph has misled us


class Match(Reading):
    """The element of b's weight symmetries that brings it closest to a: one row per site."""

    row = "site"

    @property
    def elements(self) -> dict[str, Channels]:
        """What happens to channels: the image's activation is ``elements[site](that of b)``."""
        found, at = {}, 0
        for site, size in zip(self.table["site"], self.table["channels"], strict=True):
            source = self.arrays["source"][at : at + size]
            matrix = torch.zeros(size, size, dtype=torch.float64)
            matrix[torch.arange(size), torch.from_numpy(source.copy())] = torch.from_numpy(
                self.arrays["factor"][at : at + size].copy()
            )
            found[str(site)] = Channels(matrix, f"match at {site}")
            at += size
        return found

    @property
    def objective(self) -> float:
        """Mean squared difference of a's weights and the image's, over a's mean squares.

        Of those weights that the symmetries reach; the others are as they are.
        """
        return float(self.meta["objective"])

    @property
    def element(self) -> Element:
        """The order of the units of each group, and all scales."""
        ends = np.cumsum(self.meta["groups"]).astype(int)[:-1] if self.meta["groups"] else []
        parts = np.split(self.arrays["order"], ends) if self.meta["groups"] else []
        return Element(list(parts), self.arrays["scale"])

    def apply(self, b: nn.Module) -> nn.Module:
        """The image of b: a copy of the same class with the same names, and the same function.

        Args:
            b: The model that was matched, or another one of its architecture. It is not changed.

        Raises:
            ModelError: Another architecture, or a match that an earlier version of isogon saved
                whose scales can't be told from one another.
        """
        shape = self.meta["shape"]
        device, dtype = device_dtype(unwrap(b))
        kind = torch.int64 if self.meta["integers"] else dtype
        found = symmetries(b, torch.zeros(2, *shape, dtype=kind, device=device))
        if list(found.groups) != self.meta["groups"]:
            raise ModelError(
                "a match of another architecture",
                got=f"groups of {list(found.groups)[:8]} units",
                expected=f"groups of {self.meta['groups'][:8]} units",
            )
        if not self._numbered_as(found):
            before = "facts" not in self.arrays
            raise ModelError(
                "a match by an earlier version of isogon, which numbered scales otherwise"
                if before
                else "a match of another architecture",
                got=f"{len(self.arrays['scale'])} scales",
                expected=f"{len(found.facts)}: {_signs(found.facts)} of them signs",
                fix="Match the two models again." if before else "Pass a model of that one.",
            )
        return image(b, found, self.element)

    def _numbered_as(self, found: Symmetries) -> bool:
        """Whether the scales are those of a model, by what each of them is.

        That was not kept at first: then by what they do to the channels of every site.
        """
        if "facts" in self.arrays:
            return np.array_equal(self.arrays["facts"], found.facts)
        if len(found.facts) != len(self.arrays["scale"]):
            return False
        sites = [s.name for s in found.sites]
        if sites != list(self.table["site"]):
            return False
        factors = [np.zeros(0), *(s.factor(self.arrays["scale"]) for s in found.sites)]
        return np.allclose(np.concatenate(factors), self.arrays["factor"], rtol=1e-9, atol=0)

    def summary(self) -> pd.DataFrame:
        """Per site how many channels there are, how many moved, and how far the weights are."""
        return self.table.copy()


@measure(
    cite=("ainsworth2023", "entezari2022", "godfrey2022"),
    cost=9.0,
    survey={"b": "@twin"},
    example={"b": "cnn(width=2, seed=1)"},
    typed={"b": "trained(cnn, digits, epochs=5, seed=1)"},
)
def match(
    a: Module,
    b: Module,
    *,
    by: Literal["weights", "activations"] = "weights",
    batches: Batches | None = None,
    example: Tensor | None = None,
) -> Match:
    """The image of b under its own weight symmetries that lies closest to a.

    Hidden units can be permuted, and scaled where the activation allows it, without a change of
    the function; which axes of which weights move together is read off the traced graph. The
    assignment of each group of units is linear when all others are kept: these are solved in turn,
    from a start that no permutation changes (a unit's weights sorted along axes whose order is not
    known yet). Scales that the activation lets through (ReLU, absolute values, powers) are fitted,
    signs (tanh, cosine, absolute values, powers) chosen. In front of a batch-norm scales cost
    nothing, and the image keeps those of b.

    Args:
        a: The model that stays.
        b: Another one of the same architecture; neither is changed.
        by: ``weights``: least squared difference of the weights; ``activations``: largest sum of
            correlations of the units, scales again by the weights.
        batches: Inputs, for ``activations``.
        example: Inputs ``[N, ...]`` that show the shape, where neither batches nor the model do.

    Returns:
        One row per site: site, channels, moved (those that are not at their own place), objective
        (mean squared difference of the weights that touch them, in units of the mean square of
        each of a's). ``apply(b)`` gives the image; ``meta["error"]`` is the largest relative
        difference of its outputs from those of b, ``meta["error_float64"]`` the same in float64.

    Raises:
        ModelError: Different architectures, a graph that does not tell the symmetries, or an image
            with another function.
        OptionError: ``activations`` without batches, or inputs of unknown shape.
    """
    for model in (a, b):
        check_finite(model)
    if by == "activations" and batches is None:
        raise OptionError(
            "activations are of inputs",
            got="no batches",
            expected="batches",
            fix="Pass batches, or match by weights.",
        )
    batches = None if batches is None else as_batches(batches)
    check_same(a, b)
    x = cast(example_of(a, batches, example), unwrap(a))
    for model in (a, b):
        examine(model, x)
    check_same(a, b, x)
    found = symmetries(b, x)
    if not found.groups and not len(found.facts):
        raise ModelError(
            f"the graph of {type(unwrap(b)).__name__} shows no weight symmetries",
            got="no units that can change places",
            expected="hidden layers",
        )
    gains = None
    if by == "activations":
        assert batches is not None
        gains = correlations(a, b, batches, found, x)
    report, count = context.progress(), iter(range(10**9))
    best = closest(
        found,
        tensors(a),
        tensors(b),
        gains=gains,
        report=lambda: report(next(count), None, "match"),
    )
    return _reading(found, best, x, b, by)


def _signs(facts: np.ndarray) -> int:
    return int((facts & UNIT != 0).sum())


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    model = unwrap(model)
    return {k: v.detach() for k, v in [*model.named_parameters(), *model.named_buffers()]}


@torch.no_grad()
def image(b: nn.Module, found: Symmetries, element: Element) -> nn.Module:
    """A copy of a model with its weights permuted and scaled."""
    twin = copy.deepcopy(b)
    held = dict([*unwrap(twin).named_parameters(), *unwrap(twin).named_buffers()])
    for name, value in found.applied(element, tensors(b)).items():
        held[name].copy_(value)
    return twin


def _reading(found: Symmetries, best: Closest, x: Tensor, b: nn.Module, by: str) -> Match:
    sources, factors, rows = [], [], []
    for site, objective in zip(found.sites, best.by_site, strict=True):
        source = np.arange(site.size)
        for group, slots in site.slots.items():
            source[slots] = slots[best.element.order[group]]
        sources.append(source)
        factors.append(site.factor(best.element.scale))
        moved = int((source != np.arange(site.size)).sum())
        rows.append((site.name, site.size, moved, objective))
    errors = _errors(b, found, best.element, x)
    return Match(
        "match",
        pd.DataFrame(rows, columns=["site", "channels", "moved", "objective"]),
        {
            "order": np.concatenate([np.zeros(0, int), *best.element.order]),
            "scale": best.element.scale,
            "facts": found.facts.astype(np.int64),
            "source": np.concatenate([np.zeros(0, int), *sources]),
            "factor": np.concatenate([np.zeros(0), *factors]),
        },
        meta={
            "objective": best.objective,
            "objective_before": best.before,
            "by": by,
            "groups": list(found.groups),
            "shape": list(x.shape[1:]),
            "integers": not x.is_floating_point(),
            "dtype": precision(b),
            **errors,
        },
    )


def _errors(b: nn.Module, found: Symmetries, element: Element, x: Tensor) -> dict[str, float]:
    """How far the image's outputs are from b's, relative to the largest one.

    At the example and at random inputs.
    """
    if x.is_floating_point():  # an example may be all zeros, which tells nothing
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        x = torch.cat([x, drawn])
    errors = {"error": _gap(b, image(b, found, element), x)}
    exact = errors["error"]
    if precision(b) != "float64":
        try:
            double = copy.deepcopy(unwrap(b)).double()
            exact = _gap(double, image(double, found, element), x)
        except RuntimeError:  # a forward that makes float32 tensors of its own
            exact = 0.0 if errors["error"] < 1e-4 else errors["error"]
    errors["error_float64"] = exact
    if not exact <= EXACT:
        raise ModelError(
            "the image of the model has another function: its graph does not tell its symmetries",
            got=f"outputs that differ by {exact:.1e} of the largest",
            expected=f"at most {EXACT:.0e} in float64",
        )
    if errors["error"] > 1e-3:
        warnings.warn(
            f"rounding in {precision(b)} changes the outputs of the image by {errors['error']:.1e}",
            UserWarning,
            stacklevel=4,
        )
    return errors


@torch.no_grad()
def _gap(b: nn.Module, twin: nn.Module, x: Tensor) -> float:
    outputs = []
    for model in (b, twin):
        with preserved(model) as inner:
            outputs.append(logits(inner, cast(x, inner)).double())
    size = float(outputs[0].abs().max())
    return float((outputs[0] - outputs[1]).abs().max()) / size if size else 0.0
