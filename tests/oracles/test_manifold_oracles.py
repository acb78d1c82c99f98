"""Trace, spectrum and walks of a published checkpoint, against published code in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from isogon.measures.fisher import data_matrix

MEAN, SD = 0.1307, 0.3081


@pytest.fixture(scope="module")
def oracle(shared):
    folder = shared / "oracles" / "manifold"
    oracle = json.loads((folder / "oracles.json").read_text())
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 32), nn.ReLU(inplace=True),
        nn.Linear(32, 10), nn.LogSoftmax(1),
    )  # fmt: skip
    net.load_state_dict(torch.load(folder / "small_cnn_01.pt", weights_only=True))
    raw = (shared / "data" / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    pixels = torch.frombuffer(bytearray(raw[16 : 16 + 100 * 784]), dtype=torch.uint8)
    x = (pixels.reshape(100, 1, 28, 28).float() / 255 - MEAN) / SD
    arrays = dict(np.load(folder / oracle["arrays"]))
    return net, x, torch.tensor(oracle["label"]), oracle, arrays


def test_trace_and_spectrum(oracle):
    net, x, y, values, _ = oracle
    table = data_matrix(net.double(), [(x.double(), y)]).to_frame()
    want = values["float64"]
    assert np.allclose(table["trace"], want["trace"], rtol=1e-9, atol=0)
    assert (table["prediction"] == want["prediction"]).all()
    assert np.allclose(table["probability"], want["probability"], atol=1e-12)
    dense = np.array(want["G_top12_eigenvalues_upstream_dense"])
    ours = table[[f"eigenvalue_{i}" for i in range(1, 10)]].to_numpy()
    assert np.allclose(ours, dense[:, :9], rtol=1e-8, atol=1e-13)
    assert np.abs(dense[:, 9:]).max() < 1e-12  # rank G <= C - 1


def test_float32(oracle):
    net, x, y, values, _ = oracle
    table = data_matrix(net.float(), [(x, y)]).to_frame()
    assert np.allclose(table["trace"], values["float64"]["trace"], rtol=1e-5)
