"""
Moons, circles, blobs: films of a network that learns
=====================================================

The exact regions of a small network on the plane of its two inputs, from its first weights to its
last. Classes are told apart by colour; every line is the edge of a linear region.
"""

import isogon as ig
from isogon.measures.evolution.evolution import Evolution
from isogon.show.evolution import animate
from isogon.training.snapshots import snapshots

MOMENTS = "snapshot_at=(0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)"


def filmed(data: str, low: tuple, high: tuple) -> Evolution:
    """The regions of one slice at each snapshot of one training run."""
    run = f"trained(mlp(14), {data}, epochs=60, {MOMENTS})"
    plane = ig.Slice.box2d(low, high)
    return ig.evolution(ig.load(run), snapshots(run), plane, frames=12)


reading = filmed("two_moons(train, 300)", (-1.6, -1.2), (2.6, 1.7))
film = animate(reading, "moons.gif", seconds=5)

# %%
# Two circles: a corner of the boundary is where a unit switches.

reading = filmed("two_circles(train, 300)", (-1.5, -1.5), (1.5, 1.5))
film = animate(reading, "circles.gif", seconds=5)

# %%
# Three blobs. Three classes meet in a point, which is found as well.

reading = filmed("blobs(train, 300)", (-3.0, -3.0), (3.0, 3.0))
film = animate(reading, "blobs.gif", seconds=5)

# %%
# The last run in one figure, and in numbers.

figure = ig.draw(reading)
print(reading.to_frame()[["epoch", "regions", "boundary_length"]].round(2).to_string(index=False))
