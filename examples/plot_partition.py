"""
The exact linear regions of a network on a plane
================================================

A ReLU network is affine on each region of a polygonal partition of any plane through its input
space. isogon finds all of them, with the exact boundary between its decisions, and certifies the
result.
"""

import isogon as ig

model = ig.load("trained(mlp(24), two_moons, epochs=15)")
p = ig.partition(model, ig.Slice.box2d((-1.5, -1.2), (2.5, 1.7)))
print(len(p), "regions,", len(p.boundary), "pieces of boundary")

# %%
# The certificate checks the mesh, that no cut is missing, and agreement with the network.

print(p.certify(10_000))

# %%
# Regions by class with the boundary on top; the edges of each layer beside them.

figure = ig.draw(p)

# %%
# The same regions by size; small ones gather where the function bends.

figure = ig.draw(p, color="area", edges=False)

# %%
# In numbers, near the data and far from it.

near = ig.batches("two_moons(test, 200)").first(200)[0]
print(p.statistics(near=near, radius=0.2).set_index("regions").T.round(3))
