"""Trace, spectrum and walks of a published checkpoint, against published code in float64."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from isogon.measures.manifold.data_matrix import data_matrix
from isogon.measures.manifold.tangent import tangent
from isogon.measures.manifold.walk import walk

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


BOUNDS = ((0 - MEAN) / SD, (1 - MEAN) / SD)


@pytest.mark.parametrize("clamp", [None, BOUNDS], ids=["none", "clamp01"])
@pytest.mark.parametrize("kind", ["kernel_0", "tangent_0_1"])
def test_walks(oracle, kind, clamp):
    net, x, _, values, arrays = oracle
    x = x.double()
    options = {"along": "kernel", "steps": 50, "direction": torch.from_numpy(arrays["v_kernel"])}
    if kind == "tangent_0_1":
        options = {"along": "leaf", "steps": 200, "toward": x[1]}
    path = walk(net.double(), x[:1], clamp=clamp, **options)
    name = f"{kind}_{'clamp01' if clamp else 'none'}"
    want, table = values["float64"][name], path.to_frame()
    assert table["step"].tolist() == list(range(want["steps"] + 1))
    assert np.allclose(table["probability"], want["probability"], atol=1e-8)
    assert (table["prediction"] == want["prediction"]).all()
    assert np.allclose(table["from_start"], want["dist_to_start"], atol=1e-6)
    if kind == "tangent_0_1":
        assert np.allclose(table["distance"], want["dist_to_end"], atol=1e-6)
    end = path.arrays["end"][0] - arrays[f"float64_{name}_final"]
    assert np.linalg.norm(end) < 1e-6
    if kind == "kernel_0" and clamp is None:
        assert np.ptp(table["probability"]) < 1e-6


def test_projections_in_float32_on_confident_images(oracle, shared):
    """Logit differences keep what normalised gradients of log-probabilities lose."""
    net, *_ = oracle
    raw = (shared / "data" / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    pixels = torch.frombuffer(bytearray(raw[16 : 16 + 4000 * 784]), dtype=torch.uint8)
    x = (pixels.reshape(-1, 1, 28, 28).float() / 255 - MEAN) / SD
    single, double = copy.deepcopy(net).float(), net.double()
    with torch.no_grad():
        x = x[single(x).exp().amax(1) > 1 - 1e-5][:16]
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    exact = tangent(double, x.double()).project(v.double())

    def error(part):
        return float(((part - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max())

    assert len(x) >= 8
    assert error(tangent(single, x).project(v)) < 1e-4
    # the published form: least squares on log-probability gradients, scaled to unit length
    gradients = torch.autograd.functional.jacobian(lambda a: single(a).sum(0), x).transpose(0, 1)
    basis = nn.functional.normalize(gradients.flatten(2).transpose(1, 2), dim=1)
    fit = torch.linalg.lstsq(basis, v.flatten(1)[:, :, None]).solution
    # noise, whose size depends on the kernels: a hundred times the bound above at least
    assert error((basis @ fit).reshape(v.shape)) > 0.01
