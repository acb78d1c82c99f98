"""
Max-pooling, through three digits
=================================

A maximum is piecewise linear, too: its regions are where one entry of the window is the largest.
The decision boundary on the square through three digits crosses edges of both kinds.
"""

import torch
from torch import nn

import isogon as ig
from isogon.training import FitConfig

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(4, 6, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(24, 10),
)
done = ig.fit(network, "digits(train, 1200)", config=FitConfig(epochs=6))
images = ig.batches("digits(test)").first(3)[0]
p = ig.partition(done.model(), ig.Slice.through(*images))
print(p)
print(p.certify(2_000))

# %%

figure = ig.draw(p)

# %%
# The same by the slope of the network: max-pooling makes few regions flat.

figure = ig.draw(p, color="slope", edges=False)
