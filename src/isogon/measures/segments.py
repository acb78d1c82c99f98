"""`segments`: the exact linear pieces of a network along a line between two inputs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import Module

from isogon.cpwl.certificate import Certificate
from isogon.cpwl.lower import check_outputs, program_for
from isogon.cpwl.program import Program
from isogon.data import Points, points
from isogon.errors import DataError, ModelError
from isogon.measures.partition.certificate.segments import certify_line
from isogon.measures.partition.decisions import along
from isogon.measures.partition.lines import break_points
from isogon.readings import Curve
from isogon.registry import measure

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Segments(Curve):
    """The linear pieces of a network along a line, one row per piece.

    Attributes:
        breakpoints: `[B]` positions in (0, 1) where a unit changes its piece, ascending.
        outputs: `[B + 2, C]` at start, breakpoints and end; linear in between.
        arrays: Also `ends`, the two inputs `[2, *shape]`.
        program: The network; None where the reading comes from a file (see `attach`).
    """

    row = "piece"
    program: Program | None = None
    breakpoints = property(lambda self: self.arrays["breakpoints"])
    outputs = property(lambda self: self.arrays["outputs"])

    def at(self, t: ArrayLike) -> np.ndarray:
        """Outputs `[N, C]` at positions on the line, from the pieces."""
        knots = np.concatenate([[0.0], self.breakpoints, [1.0]])
        t = np.atleast_1d(np.asarray(t, np.float64))
        return np.stack([np.interp(t, knots, column) for column in self.outputs.T], 1)

    def classes(self) -> pd.DataFrame:
        """Where each class is the largest output: a row per stretch, with start, end and class.

        Exact, also where the class changes within a piece. `start`, `end` in [0, 1] as in the
        table; one output: class 1 where it is positive.
        """
        z = self.outputs
        if z.shape[1] == 1:
            z = np.concatenate([np.zeros_like(z), z], 1)
        knots, top = np.concatenate([[0.0], self.breakpoints, [1.0]]), z.argmax(1)
        found: list[tuple[float, float, int]] = []
        for i, (x, y) in enumerate(pairwise(knots)):
            # outputs are linear on a piece: what is largest at both ends is so all along
            own = [(0.0, 1.0, int(top[i]))] if top[i] == top[i + 1] else along(z[i], z[i + 1])
            for low, high, k in own:
                start, end = (float(x + t * (y - x)) for t in (low, high))
                if found and found[-1][2] == k:
                    start = found.pop()[0]
                found.append((start, end, k))
        return pd.DataFrame(found, columns=["start", "end", "class"])

    def certify(
        self,
        points: int | None = None,
        *,
        generator: torch.Generator | None = None,
        seconds: float | None = None,
    ) -> Certificate:
        """Check the pieces against the network itself (see `certify_line.certify_line`).

        The certificate stays with the reading (`certificate`), also in a file.

        Args:
            points: Random points at which outputs are compared, beside the middle of every
                piece and both sides of every breakpoint; default: 1,000.
            generator: Source of the points; default: seed 0.
            seconds: About how long it may take: as many pieces as there is time for are looked
                at, and the certificate says how many; default: all.

        Raises:
            ModelError: The reading comes from a file and knows no network: `attach` it.
        """
        if self.program is None or "ends" not in self.arrays:
            raise ModelError(
                "segments read from disk have no network to be checked against",
                fix="Call segments.attach(model) first."
                if "ends" in self.arrays
                else "They were written without their ends: compute them again.",
            )
        found = certify_line(self, points, generator, seconds)
        self.meta["certificate"] = found.to_json()
        return found

    @property
    def certificate(self) -> Certificate | None:
        """What `certify` found last; None where it was not called."""
        return Certificate.from_json(self.meta.get("certificate"))

    def attach(self, model: Module) -> Segments:
        """Give segments that were read from disk their network again."""
        ends = torch.from_numpy(self.arrays["ends"])
        self.program, _ = program_for(model, ends, tuple(ends.shape[1:]))
        return self


@measure(
    cite="humayun2023",
    cost=7.0,
    survey={"a": "@class:0", "b": "@class:1"},
    example={"a": "digits(test)[0]", "b": "digits(test)[1]"},
    typed={"a": "digits(test)[0]", "b": "digits(test)[1]"},
)
def segments(model: Module, a: Points, b: Points) -> Segments:
    """All breakpoints of a continuous piecewise-linear network between two inputs, exactly.

    The line a + t (b - a), 0 <= t <= 1, is cut site by site where a unit reaches a knot or the
    largest entry of a maximum changes; between two breakpoints the network is affine.

    Args:
        model: Module network of piecewise-linear operations.
        a: The input at t = 0 (with or without a sample axis of length 1).
        b: The input at t = 1.

    Returns:
        One row per piece: piece, start, end, length (in input space), site and unit of the
        breakpoint at its end, slope (norm of the outputs' derivative per unit of length),
        prediction (largest output at its middle). Arrays `breakpoints`, `outputs`.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        DataError: The inputs have different shapes or are equal, or hold NaN or infinite values.
    """
    x, y = (points(p).detach().cpu().double() for p in (a, b))
    if x.shape != y.shape or torch.equal(x, y):
        raise DataError(
            "a line needs two different inputs of one shape",
            got=f"{list(x.shape)} and {list(y.shape)}" + (", equal" * torch.equal(x, y)),
        )
    for name, point in (("a", x), ("b", y)):
        wrong = int((~point.isfinite()).sum())
        if wrong:
            raise DataError(
                f"NaN or infinite values in input {name}",
                got=f"{wrong} of {point.numel()} numbers",
                expected="finite numbers",
            )
    program, shape = program_for(model, torch.stack([x, y]), tuple(x.shape))
    ends = torch.stack([x, y]).reshape(2, *shape)
    check_outputs(program, ends, "the line's ends")
    t, site, unit, outputs = break_points(program, ends)
    length = float((y - x).norm())
    names = [*program.sites, ""]
    span = np.diff(t)
    rise = np.diff(outputs, axis=0)
    middle = (outputs[1:] + outputs[:-1]) / 2
    single = outputs.shape[1] == 1
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.linalg.norm(rise, axis=1) / (span * length)
    table = pd.DataFrame(
        {
            "piece": np.arange(len(span)),
            "start": t[:-1],
            "end": t[1:],
            "length": span * length,
            "site": [names[s] for s in site[1:]],
            "unit": unit[1:],
            "slope": slope,
            "prediction": (middle[:, 0] > 0).astype(int) if single else middle.argmax(1),
        }
    )
    found = Segments(
        "segments",
        table=table,
        arrays={"breakpoints": t[1:-1], "outputs": outputs, "ends": ends.numpy()},
        axes={"breakpoints": ("breakpoint",), "outputs": ("point", "output")},
        meta={"sites": program.sites, "length": length, "dtype": "float64"},
    )
    found.program = program
    return found
