"""
Linear regions while a network learns
=====================================

The same slice, partitioned exactly at every snapshot of a training run, beside accuracy on
training and test data: do regions gather where the data are, and does that go along with the
train-test gap? Eight snapshots of one run speak for this run, no more.
"""

import isogon as ig
from isogon.training.snapshots import snapshots

EPOCHS = 120
train, test = "two_moons(train, 100, noise=0.25)", "two_moons(test, 500, noise=0.25)"
moments = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # parts of the run
run = f"trained(mlp(32), {train}, epochs={EPOCHS}, snapshot_at={moments})"
reading = ig.evolution(
    ig.load(run),
    snapshots(run),
    ig.Slice.box2d((-1.8, -1.5), (2.8, 2.0)),
    train=ig.batches(train),
    test=ig.batches(test),
)
columns = ["epoch", "regions", "density_near", "density_far", "boundary_length", "gap"]
print(reading.to_frame()[columns].round(3).to_string(index=False))
print(reading.summary().round(3).to_string(index=False))

# %%

figure = ig.draw(reading)

# %%
# ``isogon experiment partition-evolution`` does this from the command line and writes a film as
# well; in Python, ``isogon.show.evolution.animate(reading, "evolution.gif")``.
