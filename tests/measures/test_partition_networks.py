"""Published architectures and verification networks, certified (minutes: marked long)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.measures.partition import Slice, partition

RADIUS = {
    "resnet18": 0.008,
    "squeezenet1_1": 0.03,
    "shufflenet_v2_x1_0": 0.02,
    "mobilenet_v2": 0.005,
    "vgg11_bn": 0.002,
    "googlenet": 0.008,
    "densenet121": 0.004,
}


@pytest.mark.long
@pytest.mark.parametrize("name", RADIUS)
def test_torchvision(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model = getattr(models, name)(num_classes=10, **extra).eval()
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    p = partition(model, Slice.anchors(*x, radius=RADIUS[name]))
    assert len(p) >= 100
    p.certify(100).require()


@pytest.mark.long
@pytest.mark.parametrize("name", ["ACASXU_run2a_1_1", "ACASXU_run2a_2_5"])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
def test_acas(shared, name, axes):
    model = ig.load(shared / "data" / "onnx" / f"{name}.onnx")
    basis = np.eye(5)[:, list(axes)]
    square = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    p = partition(model, Slice.polygon(np.zeros((1, 1, 5)), basis, square))
    p.certify(1000).require()


@pytest.mark.long
def test_cifar_resnet(shared):
    model = ig.load(shared / "data" / "onnx" / "cifar10_resnet_2b.onnx")
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    p = partition(model, Slice.anchors(*x, radius=0.3))
    assert len(p) > 1000
    p.certify(200).require()
