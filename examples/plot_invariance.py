"""
Which units ignore rotations?
=============================

For every unit: how far does it move along the orbit of an image under rotations, relative to how
far it moves across images? 0 means that the unit ignores rotations; 1 that a rotation changes it as
much as another image does.
"""

import isogon as ig

plain = ig.load("trained(cnn, digits, epochs=5)")
batches = ig.batches("digits(test, 128)")
reading = ig.invariance(plain, batches, ig.family("rotations(8)"))
print(reading.to_frame().groupby("site")["normalized_variance"].mean())

# %%
# The same network trained on rotated digits is less moved by rotations in its upper layers.

turned = ig.load("trained(cnn, digits, epochs=5, family='rotations(8)')")
reading = ig.invariance(turned, batches, ig.family("rotations(8)"))
print(reading.to_frame().groupby("site")["normalized_variance"].mean())

# %%

figure = ig.draw(reading)
