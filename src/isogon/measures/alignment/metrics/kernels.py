"""CKA: centred kernel alignment, exact and unbiased, of any kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from isogon.errors import OptionError
from isogon.measures.alignment.metrics.metric import Metric
from isogon.registry import register

Kernel = Literal["linear", "rbf", "max", "median"]
Normalize = Literal["none", "channel"]


@dataclass(frozen=True)
class Alignment:
    """Options of a CKA, see `cka`."""

    kernel: str
    normalize: str
    center: bool
    drop_dead: bool
    unbiased: bool
    minibatch: bool
    sigma: float | None

    @property
    def linear(self) -> bool:
        """Whether features alone do: no matrix of samples is needed."""
        return self.kernel == "linear" and self.normalize == "none"


@register("metric")
def cka(
    kernel: Kernel = "linear",
    *,
    normalize: Normalize | None = None,
    center: bool = True,
    drop_dead: bool = True,
    unbiased: bool = True,
    minibatch: bool = False,
    sigma: float | None = None,
) -> Metric:
    """Centred kernel alignment: ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))``.

    HSIC is the unbiased one, of U-centred matrices, so that independent representations give 0 on
    average at any number of samples and width; values lie in [-1, 1] and are not clamped. Under
    permutations of the samples its standard deviation is exactly ``sqrt(2 / (n (n - 3)))`` for any
    data, which gives ``null_sd`` and ``z``.

    Args:
        kernel: ``linear``; ``rbf``; ``max`` and ``median`` over channels of ``<x_ic, x_jc>`` (the
            lower one of an even number), which permutations do not change.
        normalize: ``channel`` gives each channel norm 1 over samples and positions first, by
            default for ``max`` and ``median``, which makes them invariant to G_ReLU.
        center: Subtract the mean of each channel before it is normalised.
        drop_dead: Leave channels out that are constant, with ``normalize=channel``.
        unbiased: False for the plain HSIC of doubly centred matrices.
        minibatch: The unbiased HSIC of each batch, averaged over batches: flat memory at any number
            of samples; unbiased for numerator and denominator, slightly biased as a ratio.
        sigma: Bandwidth of ``rbf``, ``exp(-d^2 / (2 sigma^2))``; by default sigma^2 is the median
            squared distance over distinct pairs.

    Source: `kornblith2019`, `song2012`, `godfrey2022`.
    """
    if sigma is not None and (kernel != "rbf" or not sigma > 0):
        raise OptionError("sigma is the bandwidth of rbf", got=sigma, expected="more than 0, rbf")
    if minibatch and not unbiased:
        raise OptionError("minibatches need the unbiased HSIC", got="unbiased=false")
    by_channel = normalize or ("channel" if kernel in ("max", "median") else "none")
    chosen = Alignment(kernel, by_channel, center, drop_dead, unbiased, minibatch, sigma)
    if kernel in ("max", "median"):
        invariant = ("permutation", "scale")
        invariant = (*invariant, "G_relu") if by_channel == "channel" else invariant
        invariant = (*invariant, "translation") if by_channel == "channel" and center else invariant
    elif by_channel == "channel":
        invariant = ("permutation", "G_relu", "scale", "translation")
    else:
        invariant = ("permutation", "orthogonal", "scale", "translation")
    if kernel == "rbf" and sigma is not None:
        invariant = tuple(i for i in invariant if i != "scale")
    return Metric(
        "cka",
        "hsic",
        lambda x: x,
        _unused,
        bounds=(-1.0 if unbiased else 0.0, 1.0),
        invariant=invariant,
        maps="flatten",
        facts={"alignment": chosen},
    )


def _unused(*_: object) -> float:
    raise TypeError("CKA is computed for all pairs at once")
