"""The layer table of a report."""

from __future__ import annotations

import torch
from torch import nn

from isogon.survey.whole.subject import layers


def table(module, x):
    return {r["path"]: (r["type"], r["shape"], r["parameters"]) for r in layers(module, x)}


def test_every_layer_with_the_shape_of_its_first_output():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)
            self.unused, self.head = nn.Linear(3, 3), nn.Linear(2, 5)

        def forward(self, x):
            return self.relu(self.head(self.relu(self.conv(x)).mean((2, 3))))

    net = Net().train()
    expected = {
        "conv": ("Conv2d", [2, 4, 4], 20),
        "relu": ("ReLU", [2, 4, 4], 0),
        "unused": ("Linear", None, 12),
        "head": ("Linear", [5], 15),
    }
    assert table(net, torch.rand(2, 1, 6, 6)) == expected
    assert table(nn.DataParallel(net), torch.rand(2, 1, 6, 6)) == expected
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())
    assert table(nn.Linear(2, 3), torch.rand(2, 2)) == {"(model)": ("Linear", [3], 9)}


def test_a_model_that_does_not_run_has_layers_without_shapes():
    rows = table(nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 4)), torch.rand(2, 2))
    assert [shape for _, shape, _ in rows.values()] == [None, None]
