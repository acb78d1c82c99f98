"""Random small networks of which one unit, channel or padding is huge or tiny."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from isogon.cpwl.program import Program, dense
from isogon.cpwl.stages import Affine, Join, Max, relu
from reference import exact_cells as exact


class Net:
    """A random small network: as a program, and as layers of rational numbers."""

    def __init__(self, seed, kind, inputs, grain=None):
        self.rng, self.grain = np.random.default_rng(seed), grain
        self.layers, self.sizes = [], [inputs]
        if kind == "mlp":
            self.affine(6)
            self.bend()
            self.affine(5)
        elif kind == "conv":
            self.affine(8)
            self.bend()
            self.affine(6, band=3)
        elif kind == "skip":
            self.affine(5)
            self.bend()
            self.layers.append(("keep",))
            self.affine(5)
            self.bend()
            self.layers.append(("add",))
            self.affine(4)
        else:
            self.affine(7)
            if kind == "padded":
                self.layers.append(("pad", [None, *range(7), None], None))
                self.layers.append(("max", [[0, 1, 2], [3, 4, 5], [6, 7, 8]]))
            elif kind == "masked":  # of seven tokens one counts for nothing
                self.layers.append(("pad", [0, 1, 2, None, 4, 5, 6], None))
                self.layers.append(("max", [[0, 2, 3], [1, 3, 4], [3, 5, 6]]))
            elif kind == "where":
                self.layers.append(("pad", [0, None, 2, 3, None, 5, 6], -0.5))
                self.bend()
            else:
                self.layers.append(("max", [[0, 1, 2], [2, 3, 4], [4, 5, 6]]))
            self.sizes.append(7 if kind == "where" else 3)
            self.affine(4)
        self.bend()
        self.affine(2)

    def affine(self, n, band=None):
        m = self.sizes[-1]
        w, b = self.rng.standard_normal((n, m)), self.rng.standard_normal(n) / 2
        if self.grain:
            w, b = (np.round(self.grain * v) / self.grain for v in (w, b))
        if band:
            kernel = w[0, :band]
            w = np.stack([np.roll(np.r_[kernel, np.zeros(m - band)], k) for k in range(n)])
        self.layers.append(("affine", w, b))
        self.sizes.append(n)

    def bend(self):
        self.layers.append(("relu", self.sizes[-1]))

    def spoil(self, how, size):
        """One unit of one layer but the last is huge or tiny, or what pads and masks is."""
        if how == "constant":
            value = size * self.rng.choice([-1, 1])
            self.layers = [
                (*layer[:2], value) if layer[0] == "pad" else layer for layer in self.layers
            ]
            return self
        places = [k for k, layer in enumerate(self.layers) if layer[0] == "affine"][:-1]
        _, w, b = self.layers[places[self.rng.integers(len(places))]]
        u = self.rng.integers(len(b))
        if how == "bias":
            b[u] = size * self.rng.choice([-1, 1])
        elif how == "row":
            w[u], b[u] = w[u] * size, b[u] * size
        else:
            w[:, self.rng.integers(w.shape[1])] *= size
        return self

    def centre(self, at):
        """The same function around another point, up to rounding of the first layer's bias."""
        _, w, b = self.layers[0]
        b -= w @ at
        return self

    def rational(self):
        found = []
        for layer in self.layers:
            if layer[0] == "affine":
                found.append((layer[0], *(exact.rational(part.tolist()) for part in layer[1:])))
            elif layer[0] == "pad" and layer[2] is not None:
                found.append((*layer[:2], Fraction(float(layer[2]))))
            else:
                found.append(layer)
        return found

    def program(self):
        stages, name, kept, width = [], "input", "", self.sizes[0]
        for k, layer in enumerate(self.layers):
            out = f"v{k}"
            if layer[0] == "affine":
                w, b = map(torch.from_numpy, layer[1:])
                stages.append(dense(out, name, w, b))
                width = len(b)
            elif layer[0] == "relu":
                stages.append(relu(out, name, f"relu{k}"))
            elif layer[0] == "max":
                index, width = torch.tensor(layer[1]), len(layer[1])
                stages.append(
                    Max(output=out, inputs=(name,), site=f"max{k}", index=index, shape=(width,))
                )
            elif layer[0] == "pad":
                at = torch.tensor([k for k, i in enumerate(layer[1]) if i is not None])
                own = torch.tensor([i for i in layer[1] if i is not None])
                width = len(layer[1])
                value = -torch.inf if layer[2] is None else float(layer[2])
                bias = torch.full((width,), value, dtype=torch.float64)
                bias[at] = 0.0
                stages.append(
                    Affine(output=out, inputs=(name,), bias=bias, copies=True,
                           linear=lambda v, at=at, own=own, n=width: v.new_zeros(
                               len(v), n).index_copy(1, at, v[:, own]))
                )  # fmt: skip
            elif layer[0] == "keep":
                kept = name
                continue
            else:
                stages.append(Join(output=out, inputs=(name, kept), linear=torch.add,
                                   weights=lambda f: torch.add))  # fmt: skip
            name = out
        return Program(stages, (self.sizes[0],))
