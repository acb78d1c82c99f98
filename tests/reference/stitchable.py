"""Small networks to stitch, and data on which they make no mistake."""

from __future__ import annotations

import torch
from torch import nn


def plain(width=6, seed=0, pool=2, norm=False):
    """A small CNN; batch norms, where there are some, far from the data's statistics."""
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(width), nn.BatchNorm2d(9)] if norm else [nn.Identity(), nn.Identity()]
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), norms[0], nn.ReLU(), nn.MaxPool2d(pool),
        nn.Conv2d(width, 9, 3, padding=1), norms[1], nn.ReLU(), nn.Flatten(),
        nn.Linear(9 * (8 // pool) ** 2, 4),
    )  # fmt: skip
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.1, 0.6)
    return net.eval()


def data(model, count=80, batch=32, shape=(1, 8, 8), seed=0):
    """Batches of blobs that the model labels itself, so that it makes no mistake."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, shape[0], 2, 2, generator=generator)
    x = nn.functional.interpolate(x, shape[1:], mode="bilinear")
    with torch.no_grad():
        y = model(x).argmax(1)
    return list(zip(x.split(batch), y.split(batch)))


def balanced(model, **kwargs):
    """The model with logits shifted so that its classes are about equally frequent."""
    x = torch.cat([x for x, _ in data(model, **kwargs)])
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        spread = model(x).std(0)
        model[-1].weight /= spread[:, None]
        model[-1].bias /= spread
    return model
