"""
Wavelet scattering of a signal, cut exactly
===========================================

Scattering takes absolute values of a signal's wavelet coefficients and averages them; with a
linear read-out it is a classifier. The absolute value is piecewise linear, so that the regions on
a plane through three signals are found as for any ReLU network.
"""

import math

import torch

import isogon as ig
from isogon.training import FitConfig

generator = torch.Generator().manual_seed(0)
time = torch.linspace(0, 1, 64)
labels = torch.arange(240) % 3
pitch = torch.tensor([3.0, 7.0, 15.0])[labels, None] + torch.rand(240, 1, generator=generator)
phase = 2 * math.pi * torch.rand(240, 1, generator=generator)
signals = torch.sin(2 * math.pi * pitch * time + phase)
signals = signals + 0.3 * torch.randn(240, 64, generator=generator)

model = ig.fit(
    "scattering1d(scales=3, inputs=64, classes=3)",
    (signals, labels),
    config=FitConfig(epochs=30, lr=0.01),
).model()
right = (model(signals).argmax(1) == labels).float().mean()
print(f"three pitches, {right:.0%} told apart")

# %%
# The plane through one signal of each pitch.

p = ig.partition(model, ig.Slice.through(*signals[:3]))
print(p)
figure = ig.draw(p)
