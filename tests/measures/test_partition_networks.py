"""Published architectures and verification networks, certified (minutes: marked long)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

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


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["ACASXU_run2a_1_1", "ACASXU_run2a_2_5", "mnist-net_256x2", "cifar10_resnet_2b"]
)
def test_outputs_equal_those_of_onnxruntime(shared, name):
    runtime = pytest.importorskip("onnxruntime")
    path = str(shared / "data" / "onnx" / f"{name}.onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in given.shape]
    model = ig.load(path)
    for seed in range(20):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        expected = session.run(None, {given.name: x.numpy()})[0].reshape(-1)
        with torch.no_grad():
            assert np.abs(model(x).numpy().reshape(-1) - expected).max() < 1e-5


@pytest.mark.long
def test_mnist_network_through_three_images(shared):
    model = ig.load(shared / "data" / "onnx" / "mnist-net_256x2.onnx")
    x, _ = ig.batches("mnist(test, 3)", root=shared / "data").first(3)
    p = partition(model, Slice.through(*x))
    assert len(p) > 10_000
    p.certify().require()


@pytest.mark.long
def test_cifar_network_through_three_images(shared):
    """The whole square around three images of different classes: half an hour or less."""
    model = ig.load(shared / "data" / "onnx" / "cifar10_resnet_2b.onnx")
    spec = 'imagefolder("cifar10-imagefolder.zip", test, 600, seed=0)'
    x, y = ig.batches(spec, batch_size=600, root=shared / "data").first(600)
    chosen = [153, 43, 445]
    assert len(set(y[chosen].tolist())) == 3
    p = partition(model, Slice.through(*x[chosen]))
    assert p.complete
    assert len(p) == 333_722
    p.certify().require()
