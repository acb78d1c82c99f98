"""
The zero set of a network with sines
====================================

A SIREN is smooth, so that it has no linear regions. With each sine replaced by an interpolant
between knots it has, and its zero set is found exactly; more knots bring it as near to the SIREN's
as is wanted.
"""

import torch

import isogon as ig
from isogon import nets

# %%
# A SIREN learns the signed distance to a star with a hole, as far as that is one.


def distance(x):
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    star = radius - 0.6 - 0.18 * torch.cos(5 * angle)
    return torch.maximum(star, 0.2 - (x - torch.tensor([0.1, 0.05])).norm(dim=1))


torch.manual_seed(0)
model = nets.build("siren(width=48, depth=2, omega=10)")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(600):
    x = 2 * torch.rand(1024, 2) - 1
    loss = (model(x)[:, 0] - distance(x)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# The interpolants, and how far they are from the sines.

square = ig.Slice.box2d((-1, -1), (1, 1))
example = 2 * torch.rand(2000, 2) - 1
for knots in (17, 33):
    linear = ig.piecewise(model.eval(), knots=knots, example=example)
    b = ig.boundary(linear, square, grid=80)
    with torch.no_grad():
        off = model(torch.from_numpy(b.points).float()).abs().max().item()
    print(f"{knots} knots: {b}; the SIREN is at most {off:.1e} on it")
print(linear.report)
b.certify(seconds=10).require()

# %%
# All of the zero set, without its million regions, and the regions of a small part of it.

figure = ig.draw(b, inset=ig.partition(linear, b.zoom(regions=800)))
