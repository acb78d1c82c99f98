"""
From one digit to another along a leaf
======================================

Directions in which a classifier's output does not change form the kernel of the local data matrix;
the others span the leaf through an image. A walk within the leaf, always towards another image,
changes the decision on the way; what it does not change is what the network does not look at.
"""

import isogon as ig
from isogon.data import points

model = ig.load("trained(cnn, digits, epochs=5)")
start, target = points("digits(test)[0]"), points("digits(test)[1]")
reading = ig.walk(model, start, toward=target, step=0.1, steps=200, clamp=(0.0, 1.0), patience=20)
frame = reading.to_frame()
print(frame[["step", "distance", "probability", "prediction"]].iloc[:: max(1, len(frame) // 8)])

# %%

figure = ig.draw(reading)
