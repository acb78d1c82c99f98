"""
The zero level set of a neural signed-distance function
=======================================================

A network from the plane to one number stands for a shape: the set where it is zero. For a
piecewise-linear network that set is a polygon, found here exactly, corner by corner, not by
marching over a grid.
"""

import numpy as np
import torch

import isogon as ig
from isogon import nets

# %%
# A small network learns the distance to a ring of radius 0.6 and half width 0.15.

STEPS = 1500
torch.manual_seed(0)
model = nets.build("inr(width=32, depth=2)")
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for _ in range(STEPS):
    x = 2 * torch.rand(512, 2) - 1
    distance = (x.norm(dim=1) - 0.6).abs() - 0.15
    loss = (model(x)[:, 0] - distance).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Its regions on the square, and the zero set: with one output, that is the boundary.

p = ig.partition(model.eval(), ig.Slice.box2d((-1, -1), (1, 1)))
length = np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1).sum()
print(len(p), "regions; the zero set has", len(p.boundary), "pieces and length", round(length, 2))
print("the ring's edges have", round(2 * np.pi * (0.45 + 0.75), 2))

figure = ig.draw(p, color="output")

# %%
# Points on it, uniform by length, are zeros of the network up to rounding.

points = p.sample_boundary(1000, torch.Generator().manual_seed(0))
value = model.double()(p.plane.embed(points)).abs().max().item()
print("largest value on the zero set:", f"{value:.1e}")
