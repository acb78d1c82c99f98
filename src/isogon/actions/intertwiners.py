"""Intertwiner groups G_sigma: which maps of channels an activation lets through.

``G_sigma = {A invertible: sigma(A x) = phi(A) sigma(x) for some matrix phi(A) and all x}``, with
sigma applied channel by channel. For a continuous sigma that is not affine its elements are
permutations times scales: were two entries of a row other than 0, sigma would be additive up to a
constant. So what is left to ask is which numbers a have ``sigma(a x) = b sigma(x)`` for all x:
their signs, and whether every positive one does, when ``b = a^degree``.

Sources: `godfrey2022`; the residual stream: `ashkboos2024`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from isogon import registry
from isogon.actions.channels import Channels, Group, Permutations, SecondMoments
from isogon.actions.scalar import ScalarFunction
from isogon.errors import OptionError

Activation = Callable[[Tensor], Tensor]

GROUPS = {
    "invertible": ("identity",),
    "G_relu": ("relu", "leaky_relu", "rrelu", "max_pool"),
    "G_relu(degree=2)": ("relu_squared",),
    "permutations": (
        *("gelu", "sigmoid", "silu", "softplus", "elu", "selu", "celu", "relu6", "mish"),
        *("hardswish", "hardsigmoid", "log_sigmoid", "exp"),
    ),
    "signed_permutations": (
        *("tanh", "sin", "hardtanh", "erf", "atan", "asinh", "softsign", "tanhshrink", "sinh"),
        *("hardshrink", "softshrink"),
    ),
    "G_cos": ("cos", "cosh"),
    "G_abs": ("abs",),
    "G_monomial(degree=2)": ("square",),
    "G_monomial(degree=3)": ("cube",),
}
FOLDED = {"rms_norm": "orthogonal", "layer_norm": "G_layer_norm"}
UNFOLDED = {"rms_norm": "signed_permutations", "layer_norm": "permutations"}


class WithinSlopes(Permutations):
    """Permutations of channels of equal slope, times positive scales.

    Args:
        slopes: Of each channel.
    """

    def __init__(self, slopes: Sequence[float]) -> None:
        super().__init__("G_prelu", scaled=True)
        self.slopes = torch.tensor(list(slopes), dtype=torch.float64)

    def _alike(self, rows: int, columns: int) -> Tensor:
        if {rows, columns} != {len(self.slopes)}:
            raise OptionError(
                "a layer of another number of channels than there are slopes",
                got=f"{columns} and {rows} channels, {len(self.slopes)} slopes",
                expected="a slope for each channel",
            )
        return self.slopes[:, None] == self.slopes[None]

    def _best(self, moments: SecondMoments) -> Tensor:
        xy = moments.raw_xy()
        alike = self._alike(xy.shape[1], xy.shape[0])
        found = torch.zeros(xy.shape[1], xy.shape[0], dtype=torch.float64)
        for slope in self.slopes.unique():
            at = (self.slopes == slope).nonzero()[:, 0]
            part = super()._best(_Part(moments, at))
            found[at[:, None], at] = part.double()
        assert not found[~alike].any()
        return found

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        self._alike(channels, channels)
        found = torch.zeros(channels, channels, dtype=torch.float64)
        for slope in self.slopes.unique():
            at = (self.slopes == slope).nonzero()[:, 0]
            found[at[:, None], at] = super()._draw(len(at), generator)
        return found

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        across = a[~self._alike(*a.shape)]
        return super()._holds(a, tolerance) and bool(
            (across.abs() <= tolerance * a.abs().max()).all()
        )


class _Part:
    """Second moments of some of the channels."""

    def __init__(self, moments: SecondMoments, at: Tensor) -> None:
        self._moments, self._at = moments, (at[:, None], at)

    def raw_xx(self) -> Tensor:
        return self._moments.raw_xx()[self._at]

    def raw_xy(self) -> Tensor:
        return self._moments.raw_xy()[self._at]

    def raw_yy(self) -> Tensor:
        return self._moments.raw_yy()[self._at]


class KeepsMean(Group):
    """Orthogonal maps that take the vector of ones to itself or to its negative."""

    name = "G_layer_norm"

    def _best(self, moments: SecondMoments) -> Tensor:
        xy = moments.raw_xy().T.double()
        if xy.shape[0] != xy.shape[1]:
            raise OptionError(
                "streams of different width have no means in common",
                got=f"{xy.shape[1]} and {xy.shape[0]} channels",
                expected="as many on both sides",
                fix="Use the group orthogonal.",
            )
        basis = _off_ones(len(xy))
        u, _, vt = torch.linalg.svd(basis.T @ xy @ basis)
        return self._with(basis @ u @ vt @ basis.T, 1.0 if float(xy.sum()) >= 0 else -1.0)

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        basis = _off_ones(channels)
        z = torch.randn(channels - 1, channels - 1, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(z)
        sign = float(torch.randint(2, (), generator=generator)) * 2 - 1
        return self._with(basis @ (q * r.diagonal().sign()) @ basis.T, sign)

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        eye, ones = torch.eye(len(a), dtype=a.dtype), a.sum(1)
        straight = bool(((a @ a.T - eye).abs() <= tolerance * len(a)).all())
        return straight and bool(((ones - ones.mean().sign()).abs() <= tolerance * len(a)).all())

    @staticmethod
    def _with(inner: Tensor, sign: float) -> Tensor:
        return inner + sign / len(inner)


def _off_ones(channels: int) -> Tensor:
    """An orthonormal basis of the vectors of mean 0, ``[c, c - 1]``."""
    columns = torch.eye(channels, dtype=torch.float64)
    columns[:, 0] = 1.0
    return torch.linalg.qr(columns)[0][:, 1:]


# --------------------------------------------------------------------------- found numerically


def group_of(activation: Activation | nn.Module) -> Group:
    """The intertwiner group of a scalar activation, found by trying: ``s(a x) = b s(x)``.

    Tried on 1,001 numbers between -1e4 and 1e4, for a = -1 and eight positive scales between 0.03
    and 40; equal is within 1e-9 (1e-4 of an activation that computes in float32). Scales that only
    the powers of some number may have are not looked for.

    Args:
        activation: Acts on each number of a tensor alone, e.g. ``torch.sin`` or ``nn.GELU()``. A
            PReLU with a slope for each channel has the group of these slopes.

    Raises:
        OptionError: Not a function of single real numbers, random, constant, or affine with an
            offset.
    """
    if isinstance(activation, nn.PReLU) and activation.num_parameters > 1:
        return WithinSlopes(activation.weight.detach().double().tolist())
    s = ScalarFunction(activation)
    if s.affine:
        return registry.build("group", "invertible")
    degree = s.degree()
    sign = s.factor(-1.0)
    if sign is not None and abs(abs(sign) - 1) > s.tolerance:
        sign = None
    return _named(degree, sign)


def _named(degree: float | None, sign: float | None) -> Group:
    """The group with these scales and signs."""
    even = sign is not None and sign > 0
    if degree is None:
        return g_cos() if even else registry.build("group", _PLAIN[sign is not None])
    if sign is None:
        return registry.build("group", f"G_relu(degree={degree!r})")
    if even:
        return registry.build("group", f"G_abs(degree={degree!r})")
    return Permutations(
        f"G_monomial(degree={degree:g})", signed=True, scaled=True, degree=degree, even=False
    )


_PLAIN = {False: "permutations", True: "signed_permutations"}


def deviation(activation: Activation, group: Group, element: Channels, x: Tensor) -> float:
    """How far ``sigma(A x)`` is from ``phi(A) sigma(x)``, relative to the larger of the two.

    Args:
        activation: sigma.
        group: Whose phi is taken.
        element: A.
        x: ``[N, c, ...]``.
    """
    mine, theirs = activation(element(x)), group.phi(element)(activation(x))
    size = max(float(mine.abs().max()), float(theirs.abs().max()))
    return float((mine - theirs).abs().max()) / size if size else 0.0


# --------------------------------------------------------------------------- by name


@registry.group("G_cos")
def g_cos() -> Group:
    """Permutations with signs that are lost: symmetries of cosine and other even layers.

    Behind the activation there is ``phi(A) = |A|``.
    """
    return Permutations("G_cos", signed=True, even=True)


@registry.group("G_prelu")
def g_prelu(slopes: tuple[float, ...] = (0.25,)) -> Group:
    """Permutations of channels of equal slope, times positive scales: symmetries of PReLU layers.

    (Channels of slope 1 would allow signs, and slopes a and 1/a a change of places with signs;
    these are left out.)

    Args:
        slopes: Of each channel, for negative numbers; acts on as many channels.
    """
    if not slopes:
        raise OptionError("no slopes", got="()", expected="one for each channel")
    return WithinSlopes(slopes)


@registry.group("G_monomial")
def g_monomial(degree: float = 2.0) -> Group:
    """Permutations times scales other than zero: symmetries of layers with x^degree.

    Behind the activation each entry is raised to the degree: ``phi(A) = A^degree``. A degree that
    is no whole number is that of ``sign(x) |x|^degree``.

    Args:
        degree: Neither 0 nor 1.
    """
    if degree in (0, 1):
        raise OptionError(
            "x^0 and x^1 are affine",
            got=f"degree={degree:g}",
            expected="another degree",
            fix="Use the group invertible for layers without an activation.",
        )
    return Permutations(
        f"G_monomial(degree={degree:g})",
        signed=True,
        scaled=True,
        degree=degree,
        even=degree % 2 == 0,
    )


@registry.group("G_polynomial")
def g_polynomial(coefficients: tuple[float, ...] = (0.0, 1.0, 1.0)) -> Group:
    """Symmetries of layers with a polynomial: permutations, signed ones if it is odd or even.

    Of a single power x^d those of ``G_monomial``; of c x all invertible maps.

    Args:
        coefficients: Of 1, x, x^2, ...
    """
    powers = [k for k, c in enumerate(coefficients) if c]
    if powers in ([], [0], [0, 1]):
        raise OptionError(
            "a constant or affine polynomial has no group of its own",
            got=str(coefficients),
            expected="a power above 1, or c x alone",
            fix="Fold scale and offset into the next layer: the group is then invertible.",
        )
    if len(powers) == 1:
        return registry.build("group", "invertible") if powers == [1] else g_monomial(powers[0])
    if len({k % 2 for k in powers}) == 2:
        return registry.build("group", "permutations")
    return g_cos() if powers[-1] % 2 == 0 else registry.build("group", "signed_permutations")


@registry.group("G_layer_norm")
def g_layer_norm() -> Group:
    """Rotations that keep the mean up to sign: symmetries of a stream in front of LayerNorms.

    All orthogonal Q with Q 1 = 1 or -1; the gains of the norms are folded into the layers behind.
    """
    return KeepsMean()


@registry.group("G_sigma")
def g_sigma(activation: str = "relu", folded: bool = True) -> Group:
    """The symmetries that go with an activation, by its name.

    ``rms_norm`` and ``layer_norm`` are those of a residual stream in front of such norms. Any other
    activation: `isogon.group` of the function or module finds it numerically.

    Args:
        activation: relu, gelu, tanh, cos, abs, identity, square, layer_norm, ...
        folded: Whether gains and biases of norms are folded into the layers behind them; in place,
            they leave permutations (and signs in front of RMSNorm) alone.
    """
    table = {a: g for g, names in GROUPS.items() for a in names}
    table |= FOLDED if folded else UNFOLDED
    if activation not in table:
        raise OptionError(
            "no activation of that name",
            got=activation,
            expected=", ".join(table),
            fix="Pass the function itself: isogon.group(torch.sin). PReLU: G_prelu(slopes=[...]).",
        )
    return registry.build("group", table[activation])
