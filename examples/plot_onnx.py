"""
A policy for collision avoidance, from an ONNX file
===================================================

Networks come as ONNX files in formal verification. ACAS Xu (Katz et al. 2017) advises aircraft:
five numbers in, five advisories out, of which the smallest wins. Where its file lies under the data
root it is read without executing anything; else a network of its kind is exported on the fly.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import isogon as ig
from isogon import context

path = context.data_root() / "onnx" / "ACASXU_run2a_1_1.onnx"
if not path.is_file():
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(5, 24), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(24, 24), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(24, 5)).eval()
    for layer in network[::2]:  # wide enough weights that something happens
        nn.init.normal_(layer.weight, std=1.6 / layer.in_features**0.5)
    path = Path(tempfile.mkdtemp()) / "advisor.onnx"
    with warnings.catch_warnings(action="ignore"):  # the newer exporter needs more packages
        torch.onnx.export(network, (torch.zeros(1, 5),), str(path), dynamo=False)
print(path.name)
negative = nn.Linear(5, 5, bias=False)  # the smallest score wins: its negative is the largest
negative.weight.data = -torch.eye(5)
model = nn.Sequential(ig.load(str(path)), negative).eval()

# %%
# The slice: distance and angle to the intruder from -1/2 to 1/2, the other three inputs at zero.

shape = (1, 1, 1, 5) if path.name.startswith("ACAS") else (5,)
basis, square = np.eye(5)[:, :2], 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
plane = ig.Slice.polygon(np.zeros(5), basis, square).with_shape(shape)
p = ig.partition(model, plane)
print(p)
print(p.certify(2_000))

# %%

figure = ig.draw(p)

# %%
# Where is the advice steep? Regions by the norm of their slope.

figure = ig.draw(p, color="slope", edges=False)
