"""
The decision boundary of a residual network
===========================================

On the square through three images a residual network has too many regions to be drawn. Its
decision boundary is traced without them, exactly; the regions of a small part of it are drawn
beside it. CIFAR-10 where it lies under the data root, else the embedded digits.
"""

import torch
from torch import nn

import isogon as ig
from isogon import context
from isogon.training import FitConfig

there = (context.data_root() / "cifar10-imagefolder.zip").is_file()
data = "imagefolder('cifar10-imagefolder.zip', {}, {})" if there else "digits({}, {})"
images, _ = ig.batches(data.format("test", 3)).first(3)


class Residual(nn.Module):
    def __init__(self, channels: int, width: int = 6):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


torch.manual_seed(0)
network = Residual(channels=images.shape[1])
done = ig.fit(network, data.format("train", 1500), config=FitConfig(epochs=10, lr=0.01))
model = done.model()

plane = ig.Slice.through(*images)
print(ig.forecast(model, plane, chords=4))
b = ig.boundary(model, plane, grid=60)
print(b)
b.certify().require()

# %%

figure = ig.draw(b, inset=ig.partition(model, b.zoom(regions=300)))
