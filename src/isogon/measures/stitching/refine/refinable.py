"""Maps of channels that are trained within their set: free, sparse, of a rank, turned, scaled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from isogon.measures.stitching.maps import AffineMap, Assignment

BETA2, TINY = 0.999, 1e-8  # of Adam
RELATIVE = 10.0  # learning rate of logarithms of scales: entries of a matrix are about a tenth


class Refinable(nn.Module):
    """A map of channels ``[n, p, ...]`` to ``[n, q, ...]`` on its way through a set of maps.

    What a set of maps has to say: its parameters and its map (`forward`), how one step goes and
    how it is brought back into the set (`update`, `project`), what is added to the loss (`cost`),
    and which map of the set it stands for (`settled`).
    """

    _adam: torch.optim.Adam | None = None

    def adam(self) -> torch.optim.Adam:
        """Adam over all parameters that it takes steps of, made once."""
        if self._adam is None:
            self._adam = torch.optim.Adam(self.moved(), betas=(0.9, BETA2), eps=TINY)
        return self._adam

    def moved(self) -> list[nn.Parameter]:
        """The parameters that Adam moves."""
        return list(self.parameters())

    def update(self, k: int, steps: int, lr: float, factor: float) -> None:
        """One step along the gradients that lie on the parameters.

        Args:
            k: Its number, from 0.
            steps: Number of all steps.
            lr: Learning rate.
            factor: What the schedule makes of every rate now.
        """
        steps_of = self.adam()
        for group in steps_of.param_groups:
            group["lr"] = lr * factor
        steps_of.step()
        with torch.no_grad():
            self.project(lr * factor)

    def project(self, lr: float) -> None:
        """Back into the set; by default nothing leaves it."""

    def cost(self) -> Tensor | float:
        """What is added to the loss that steps go down."""
        return 0.0

    def penalty(self) -> float:
        """What is added to the loss of the settled map when it is compared with others."""
        return 0.0

    def settled(self) -> nn.Module:
        """The map of the set that it stands for now, as a module of its own."""
        raise NotImplementedError(type(self).__name__)


class Free(Refinable):
    """Any linear map with or without an offset.

    Args:
        start: Where it begins; copied.
    """

    def __init__(self, start: AffineMap) -> None:
        super().__init__()
        self.inner = copy.deepcopy(start)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        return self.inner(x)

    def settled(self) -> nn.Module:
        """The same, copied."""
        return copy.deepcopy(self.inner).requires_grad_(False)


class Rotation(Free):
    """A scaled matrix with orthonormal rows or columns: each step is projected on these.

    The nearest one to ``W = U S V^T`` is ``mean(S) U V^T``.
    """

    def project(self, lr: float) -> None:
        """The polar factor, times the mean of the singular values."""
        w = self.inner.weight
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        w.copy_(s.mean() * (u @ vt))


class Lasso(Free):
    """A linear map whose entries are shrunk: ``loss + strength sum |W_ij|``, by proximal steps.

    A step of Adam moves entry ij by ``-h_ij m_ij``, with ``h_ij = lr / (sqrt(v_ij) + 1e-8)``; the
    proximal step in the same metric, ``W_ij -> soft(W_ij, h_ij strength)``, follows, so that the
    fixed points are those of the lasso: ``|gradient| <= strength`` where an entry is 0.

    Args:
        start: Where it begins; copied.
        strength: Of the penalty, in nats per unit of the matrix; offsets are free.
    """

    def __init__(self, start: AffineMap, strength: float) -> None:
        super().__init__(start)
        self.strength = strength

    def project(self, lr: float) -> None:
        """The proximal step."""
        w = self.inner.weight
        held = self.adam().state[w]
        v = held["exp_avg_sq"] / (1 - BETA2 ** float(held["step"]))
        w.copy_(soft(w, self.strength * lr / (v.sqrt() + TINY)))

    def penalty(self) -> float:
        """``strength sum |W_ij|``: steps take it in by `project`."""
        return self.strength * float(self.inner.weight.detach().abs().sum())


class LowRank(Refinable):
    """A linear map ``U V`` of a rank at most.

    Args:
        start: Where it begins.
        rank: The rank.
    """

    def __init__(self, start: AffineMap, rank: int) -> None:
        super().__init__()
        u, s, vt = torch.linalg.svd(start.weight.detach(), full_matrices=False)
        root = s[:rank].sqrt()
        self.left = nn.Parameter(u[:, :rank] * root)
        self.right = nn.Parameter(root[:, None] * vt[:rank])
        self.bias = None if start.bias is None else nn.Parameter(start.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        flat = x.flatten(2) if x.dim() > 2 else x[:, :, None]
        found = self.left.to(x.device, x.dtype) @ (self.right.to(x.device, x.dtype) @ flat)
        if self.bias is not None:
            found = found + self.bias.to(x.device, x.dtype)[:, None]
        return found.reshape(len(x), -1, *x.shape[2:])

    def settled(self) -> nn.Module:
        """The product."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return AffineMap((self.left @ self.right).detach(), bias).requires_grad_(False)


class Scales(Refinable):
    """Positive scales of assigned channels; the assignment stays as it is.

    ``scale_i = start_i exp(10 t_i)``: what is trained is t, so that scales stay positive; a step
    changes them by about ``10 lr`` of themselves, as it changes an entry of 0.1 of a matrix.

    Args:
        start: Where it begins.
    """

    def __init__(self, start: Assignment) -> None:
        super().__init__()
        self.start = copy.deepcopy(start)
        self.log = nn.Parameter(torch.zeros_like(start.scale))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        found = x.index_select(1, self.start.order.to(x.device))
        scale = (self.start.scale * (RELATIVE * self.log).exp()).to(x.device, x.dtype)
        return found * scale.reshape(-1, *[1] * (x.dim() - 2))

    def settled(self) -> nn.Module:
        """The assignment with its scales."""
        found = copy.deepcopy(self.start)
        found.scale.copy_(self.start.scale * (RELATIVE * self.log.detach()).exp())
        return found


def soft(w: Tensor, by: Tensor | float) -> Tensor:
    """The proximal map of ``by |w|``: towards 0 by so much, and no further."""
    return w.sign() * (w.abs() - by).clamp(min=0)
