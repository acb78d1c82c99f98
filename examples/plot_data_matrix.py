"""
The local data matrix: how many directions matter?
==================================================

At each image, the local data matrix says in which directions of pixel space a classifier changes
its mind. Its rank is below the number of classes: out of 64 directions at most nine matter.
"""

import isogon as ig

model = ig.load("trained(cnn, digits, epochs=5)")
reading = ig.data_matrix(model, ig.batches("digits(test, 128)"))
print(reading.to_frame()[["prediction", "probability", "trace", "rank@1e-3"]].head())

# %%
# Where the network is certain, the trace is small: nothing that one changes a little matters.

figure = ig.draw(reading)
