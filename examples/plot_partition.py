"""
The exact linear regions of a network on a plane
================================================

A ReLU network is affine on each region of a polygonal partition of any plane through its input
space. isogon finds all of them, with the exact boundary between its decisions, and certifies the
result.
"""

import matplotlib as mpl
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

import isogon as ig

model = ig.load("trained(mlp(24), two_moons, epochs=15)")
p = ig.partition(model, ig.Slice.box2d((-1.5, -1.2), (2.5, 1.7)))
print(len(p), "regions,", len(p.boundary), "pieces of boundary")

# %%
# The certificate checks the mesh, that no cut is missing, and agreement with the network.

print(p.certify(10_000))

# %%
# The reading holds polygons, labels and boundary; any plotting library can draw them.

figure = Figure(figsize=(6, 4.4), layout="constrained")
axes = figure.subplots()
colours = mpl.colormaps["tab20c"](p.label * 4 + p.area.argsort().argsort() % 4)
axes.add_collection(PolyCollection([p.polygon(i) for i in range(len(p))], facecolors=colours))
axes.add_collection(LineCollection(p.boundary, colors="black", linewidths=1.5))
axes.autoscale()
axes.set_aspect("equal")
