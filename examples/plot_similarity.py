"""
Are two networks the same inside?
=================================

Linear CKA between every layer of two networks of eight layers that differ in their seed: how alike
is what they have made of the same images?
"""

import isogon as ig

spec = "trained(mlp(32, depth=8), digits, epochs=10, seed={})"
a, b = ig.load(spec.format(0)), ig.load(spec.format(1))
reading = ig.similarity(a, b, ig.batches("digits(test)"))
figure = ig.draw(reading)

# %%
# Procrustes' distance modulo the symmetries that a ReLU layer allows, the order and the scale of
# its units, asks for more than CKA, which forgives any rotation.

stricter = ig.similarity(a, b, ig.batches("digits(test)"), metric="procrustes(modulo=G_relu)")
figure = ig.draw(stricter)
