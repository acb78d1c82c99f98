"""Where images have their channels: the model tells, not the shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import ModelError
from isogon.nets import ChannelsFirst
from isogon.nets.layout import channels_last


class Moved(nn.Module):
    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(*self.order)


class Gray(nn.Module):
    """How converters write the transposition of one channel."""

    def forward(self, x):
        return x.reshape(-1, 1, 6, 7)


class By(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def head(channels=3):
    return [nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 5, 3)]


NHWC = {
    "permute": [Moved(0, 3, 1, 2)],
    "two transpositions": [By(lambda x: x.transpose(1, 3).transpose(2, 3))],
    "movedim": [By(lambda x: x.movedim(-1, 1))],
    "scaled first": [By(lambda x: x / 255.0 - 0.5), Moved(0, 3, 1, 2)],
    "contiguous": [Moved(0, 3, 1, 2), By(lambda x: x.contiguous())],
    "normalised": [Moved(0, 3, 1, 2), nn.BatchNorm2d(3)],
    "padded": [Moved(0, 3, 1, 2), nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)],
    "padded before": [
        By(lambda x: nn.functional.pad(x, (0, 0, 1, 1, 1, 1))),
        Moved(0, 3, 1, 2),
        nn.AvgPool2d(3, 1),
    ],
}
NCHW = {
    "plain": [],
    "there and back": [Moved(0, 2, 3, 1), Moved(0, 3, 1, 2)],
    "normalised in place": [nn.BatchNorm2d(3)],
    "padded": [nn.ZeroPad2d((1, 1, 0, 0)), nn.MaxPool2d((1, 3), 1)],
    "turned": [Moved(0, 1, 3, 2), Moved(0, 1, 3, 2)],
}


@pytest.mark.parametrize("name", NHWC)
def test_models_that_take_the_channels_last_are_refused_where_images_are_warped(name):
    net = nn.Sequential(*NHWC[name], *head()).eval()
    x = torch.rand(4, 6, 7, 3)
    assert channels_last(net, x)
    for call in (
        lambda: ig.invariance(net, x, "rotations(4)"),
        lambda: ig.equivariance(net, x, "rotations(4)"),
        lambda: ig.leaf_distance(net, x, steps=1),
    ):
        with pytest.raises(ModelError) as caught:
            call()
        assert "isogon.nets.ChannelsFirst(model)" in str(caught.value)
        assert "x.permute(0, 3, 1, 2)" in str(caught.value)
    assert len(ig.data_matrix(net, x).table) == 4, "warps nothing"
    wrapped, images = ChannelsFirst(net), x.permute(0, 3, 1, 2).contiguous()
    # the memory is laid out otherwise, so that other kernels may run
    assert torch.allclose(wrapped(images), net(x), rtol=1e-5, atol=1e-6)
    assert not channels_last(wrapped, images)
    assert len(ig.invariance(wrapped, images, "rotations(4)").table)


@pytest.mark.parametrize("name", NCHW)
def test_others_pass_whatever_the_shape(name):
    for size in ((3, 6, 7), (3, 6, 3)):
        x = torch.rand(4, *size)
        net = nn.Sequential(*NCHW[name], nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()).eval()
        assert not channels_last(net, x)
        assert len(ig.invariance(net, x, "mirrors()").table)


def test_one_channel_by_a_reshape():
    net = nn.Sequential(Gray(), *head(1)).eval()
    assert channels_last(net, torch.rand(2, 6, 7, 1))
    assert not channels_last(net, torch.rand(2, 1, 6, 7))


def test_without_a_convolution():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(6 * 7 * 3, 2))
    assert not channels_last(flat, torch.rand(2, 6, 7, 3)), "can't be told: not refused"
    assert channels_last(nn.Sequential(Moved(0, 3, 1, 2), *flat), torch.rand(2, 6, 7, 3))


def tensorflow_like(path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    r = np.random.default_rng(0)
    w = r.normal(size=(4, 3, 3, 3)).astype(np.float32)
    v = r.normal(size=(4 * 4 * 5, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["a"], "relu"),
        helper.make_node("Flatten", ["a"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "v"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 7, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_channels_last_of_an_onnx_file(tmp_path):
    path = tensorflow_like(tmp_path / "tf.onnx")
    x = torch.rand(3, 6, 7, 3)
    plain = ig.load(path)
    with pytest.raises(ModelError, match="channels_last=True"):
        ig.invariance(plain, x, "rotations(4)")
    wrapped = ig.load(path, channels_last=True)
    images = x.permute(0, 3, 1, 2)
    assert torch.allclose(wrapped(images), plain(x), rtol=1e-5, atol=1e-6)
    rows = ig.invariance(wrapped, images, "rotations(4)").table
    assert len(rows) == 4 * 4 * 5
    as_said = ig.load(path, channels_last=False)
    assert len(ig.invariance(as_said, x, "mirrors()").table)
    named = ig.load(f"channels_first('{path}')")
    assert torch.allclose(named(images), plain(x), rtol=1e-5, atol=1e-6)
