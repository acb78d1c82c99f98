"""
An image as a network from coordinates to grey values
=====================================================

An implicit representation stores an image in the weights of a network. With ReLU it is a mosaic of
affine patches; where the image has detail, patches are small.
"""

import torch
from torch.nn.functional import interpolate

import isogon as ig
from isogon import nets
from isogon.data import sample

image = interpolate(sample("digits(test)[2]")[None], size=(24, 24), mode="bicubic")[0, 0].clamp(
    0, 1
)
rows, columns = torch.meshgrid(torch.linspace(1, -1, 24), torch.linspace(-1, 1, 24), indexing="ij")
places = torch.stack([columns, rows], -1).reshape(-1, 2)

torch.manual_seed(0)
model = nets.build("inr(width=32, depth=3)")
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
for _ in range(800):
    loss = (model(places)[:, 0] - image.reshape(-1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"peak signal-to-noise ratio {-10 * torch.log10(loss).item():.1f} dB")

# %%
# Every patch, in its own shade: linear inside each, and continuous between them.

p = ig.partition(model.eval(), ig.Slice.box2d((-1, -1), (1, 1)))
print(p)
figure = ig.draw(p, color="output", boundary=False)

# %%
# Small patches follow the strokes.

figure = ig.draw(p, color="area", edges=False, boundary=False)
