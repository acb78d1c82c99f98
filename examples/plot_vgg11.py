"""
VGG11 on images of 64 x 64
==========================

Eight convolutions with batch-norm, five max-poolings, a linear layer, at a quarter of the usual
width so that a page is made in seconds; ``width=64`` is the original. Nothing is simplified; the
slice is a small one, in which the exact regions can still be seen.
"""

import torch

import isogon as ig

model = ig.load("cifar_vgg11_bn(width=16, classes=10, size=64)")
print(sum(p.numel() for p in model.parameters()), "weights")
images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
plane = ig.Slice.anchors(
    images[0], radius=0.01, generator=torch.Generator().manual_seed(1)
)  # two random directions
forecast = ig.forecast(model, plane, chords=4)
print(forecast)

# %%
# The forecast, from exact breakpoints on random lines, also says how large a square holds how many.

middle = plane.project(images[:1])[0]
p = ig.partition(model, plane.zoom(middle, forecast.radius_for(300)), max_regions=1_000)
print(p)
figure = ig.draw(p, color="random")
