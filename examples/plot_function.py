"""
A function of two numbers, and all of its flat pieces
=====================================================

A ReLU network from the plane to the line is a surface of flat facets. Found exactly, they can be
drawn as what they are: a polyhedron, without a grid.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import isogon as ig
from isogon import nets

torch.manual_seed(0)
model = nets.build("inr(width=16, depth=2)")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(600):
    x = 4 * torch.rand(256, 2) - 2
    height = torch.sin(2 * x[:, 0]) * torch.cos(1.5 * x[:, 1])
    loss = (model(x)[:, 0] - height).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

p = ig.partition(model.eval(), ig.Slice.box2d((-2, -2), (2, 2)))
print(p, "mean squared error", round(float(loss), 4))

figure = ig.draw(p, color="output")

# %%
# The same regions as facets: each is a polygon in space, its corners lifted to the network's
# value.

heights = p.outputs[:, 0]
corners = [p.face_vertices[a:b] for a, b in zip(p.face_offsets[:-1], p.face_offsets[1:])]
facets = [np.column_stack([p.vertices[c], heights[c]]) for c in corners]
figure = Figure((5.0, 4.0))
axes = figure.add_subplot(projection="3d")
surface = Poly3DCollection(facets, edgecolors="0.25", linewidths=0.25)
surface.set_array(np.array([f[:, 2].mean() for f in facets]))
surface.set_cmap("RdBu_r")
axes.add_collection3d(surface)
axes.set(xlim=(-2, 2), ylim=(-2, 2), zlim=(heights.min(), heights.max()))
axes.set(xlabel="$x_1$", ylabel="$x_2$", zlabel="output")
