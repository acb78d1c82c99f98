"""The local data matrix word for word: d x d, from gradients of log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian


def data_matrix(model: nn.Module, x: Tensor) -> Tensor:
    """G(x) [d, d] = sum_k p_k g_k g_k^T of one sample x (no sample axis)."""
    shape = x.shape

    def log_p(flat: Tensor) -> Tensor:
        return torch.log_softmax(model(flat.reshape(1, *shape)), dim=1)[0]

    gradients = jacobian(log_p, x.flatten())
    p = log_p(x.flatten()).exp().detach()
    total = torch.zeros(x.numel(), x.numel(), dtype=x.dtype)
    for k in range(len(p)):
        total += p[k] * torch.outer(gradients[k], gradients[k])
    return total


def kl_hessian(model: nn.Module, x: Tensor) -> Tensor:
    """Hessian [d, d] at y = x of KL(p(x) || p(y)), by differentiating twice."""
    shape = x.shape
    here = torch.log_softmax(model(x[None]), dim=1)[0].detach()

    def divergence(flat: Tensor) -> Tensor:
        there = torch.log_softmax(model(flat.reshape(1, *shape)), dim=1)[0]
        return (here.exp() * (here - there)).sum()

    return hessian(divergence, x.flatten())


def projection(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """Part of v in the span of all logit differences, by a complete SVD of one sample."""
    shape = x.shape
    rows = jacobian(lambda flat: model(flat.reshape(1, *shape))[0], x.flatten())
    rows = rows[1:] - rows[:1]
    _, s, basis = torch.linalg.svd(rows, full_matrices=False)
    basis = basis[s > 1e-12 * s.max()]
    return (basis.T @ (basis @ v.flatten())).reshape(shape)
