"""
From one input to another in linear pieces
==========================================

Along a straight line a piecewise-linear network is a polygon. Its corners are found exactly, each
with the unit that makes it, in networks of any size and with any number of inputs.
"""

import isogon as ig
from isogon.data import points

model = ig.load("trained(cnn, digits, epochs=5)")
found = ig.segments(model, points("digits(test)[0]"), points("digits(test)[1]"))
print(found.to_frame()[["start", "end", "site", "unit", "slope", "prediction"]].head(8))

figure = ig.draw(found)

# %%
# How many such corners lie around each input? Hyperplanes that cut a small neighbourhood.

figure = ig.draw(ig.local_complexity(model, points("digits(test, 16)"), radius=0.2))
