"""
Networks with random weights
============================

What the architecture alone gives: the regions of a multilayer perceptron and of a convolutional
network, neither of them trained, on a plane through three digits.
"""

import isogon as ig

images = ig.batches("digits(test)").first(3)[0]
plane = ig.Slice.through(*images)

mlp = ig.load("mlp(widths=(32, 32, 32), inputs=64)")
p = ig.partition(mlp, plane)
print(p)
figure = ig.draw(p, color="random")

# %%
# A convolutional network of four channels has more units than the perceptron, many of which do the
# same at different places of the image.

cnn = ig.load("cnn(width=2, size=8)")
p = ig.partition(cnn, plane)
print(p)
figure = ig.draw(p, color="random")

# %%
# How many regions would a wider one have? A forecast from exact breakpoints on random lines.

for width in (2, 4, 8, 16):
    forecast = ig.forecast(ig.load(f"cnn(width={width}, size=8)"), plane)
    print(f"width {width:<3}", forecast)
