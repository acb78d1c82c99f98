"""
Which way do the hyperplanes point?
===================================

Each filter is the normal of a hyperplane. Its inner product with the all-ones vector says whether
the hyperplane separates the positive orthant, in which the activations of a ReLU layer live, from
the origin. Training moves it; compare a trained network with its own start.
"""

import isogon as ig

trained = ig.load("trained(cnn, digits, epochs=5)")
reading = ig.orientation(trained)
print(reading.summary()[["site", "units", "mean", "mass"]])

# %%
figure = ig.draw(reading)
