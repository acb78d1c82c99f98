"""ONNX files: the same function as onnxruntime's, any number of samples, nothing executed."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import isogon as ig
from isogon.errors import FileError, ModelError, UnsupportedOp
from isogon.nets.load import load
from isogon.nets.outputs import logits

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

from isogon.nets.onnx import load_onnx  # noqa: E402


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize(
    "name", ["ACASXU_run2a_1_1", "ACASXU_run2a_2_5", "cifar10_resnet_2b", "mnist-net_256x2"]
)
def test_verification_networks(shared, name):
    from isogon.cpwl.lower import lower

    path = shared / "data" / "onnx" / f"{name}.onnx"
    model = load(str(path))
    assert not model.training
    x = torch.rand(3, *model.shape, generator=torch.Generator().manual_seed(0)) - 0.3
    expected = np.concatenate([run(path, row[None].numpy()) for row in x])
    found = model(x).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    program = lower(model, x)
    np.testing.assert_allclose(program.evaluate(x).numpy(), expected, atol=1e-5)
    assert len(program.sites) == {"A": 6, "c": 6, "m": 2}[name[0]]


# --------------------------------------------------------------------------- single operators


def single(path, op, shape, constants=(), *, version=13, outputs=1, fixed=False, **attributes):
    """A file of one node (between two identities) applied to `[N, *shape]`."""
    names = []
    initializers = []
    for i, value in enumerate(constants):
        if value is None:
            names.append("")
        else:
            names.append(f"c{i}")
            initializers.append(onnx.numpy_helper.from_array(np.asarray(value), f"c{i}"))
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], outs, "node", **attributes)
    last = helper.make_node("Concat", outs, ["y"], axis=1) if outputs > 1 else None
    graph = helper.make_graph(
        [node] + ([last] if last else []),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2 if fixed else "n", *shape])],
        [helper.make_tensor_value_info("y" if last else "y0", TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def r(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def i(*values):
    return np.array(values, dtype=np.int64)


IMG = (4, 6, 6)
OPS = {
    **{
        op: ((5,), (), {})
        for op in ("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "Elu", "Selu", "Abs", "Neg",
                   "Exp", "Erf", "Sin", "Cos", "Identity", "Floor", "Ceil", "Round", "Sign",
                   "HardSigmoid",
                   "LeakyRelu", "Softmax", "LogSoftmax", "ThresholdedRelu", "Celu")
    },
    "HardSwish": ((5,), (), {"version": 14}),
    "Gelu": ((5,), (), {"version": 20}),
    "PRelu": (IMG, (r(4, 1, 1),), {}),
    "Clip": ((5,), (np.float32(-0.2), np.float32(0.4)), {}),
    "Clip-old": ((5,), (), {"version": 6, "min": -0.2, "max": 0.4}),
    "Clip-min": ((5,), (np.float32(-0.2),), {}),
    "Add": ((5,), (r(5),), {}), "Sub": ((5,), (r(5),), {}), "Mul": ((5,), (r(1),), {}),
    "Div": ((5,), (r(5),), {}), "Pow": ((5,), (np.float32(2.0),), {}), "Max": ((5,), (r(5),), {}),
    "Min": ((5,), (r(5),), {}), "Mean": ((5,), (r(5),), {}), "Sum": ((5,), (r(5), r(5)), {}),
    "MatMul": ((5,), (r(5, 3),), {}), "MatMul-stack": ((2, 5), (r(5, 3),), {}),
    "Gemm": ((5,), (r(5, 3), r(3)), {}),
    "Gemm-b": ((5,), (r(3, 5), r(3)), {"transB": 1, "alpha": 2.0, "beta": 0.5}),
    "Conv": (IMG, (r(6, 2, 3, 3), r(6)), {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    "Conv-uneven": (IMG, (r(6, 4, 3, 3),), {"pads": [0, 1, 2, 1], "dilations": [1, 2]}),
    "Conv-same": (IMG, (r(6, 4, 2, 2),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "Conv-lower": (IMG, (r(6, 4, 2, 2),), {"auto_pad": "SAME_LOWER"}),
    "Conv-1d": ((4, 9), (r(6, 4, 3), r(6)), {}),
    "ConvTranspose": (
        IMG, (r(4, 3, 3, 3), r(6)),
        {"group": 2, "strides": [2, 2], "pads": [1, 0, 1, 0], "output_padding": [1, 0]},
    ),
    "BatchNormalization": (IMG, (r(4), r(4), r(4), np.abs(r(4)) + 0.1), {"epsilon": 1e-3}),
    "InstanceNormalization": (IMG, (r(4), r(4)), {}),
    "LayerNormalization": ((5,), (r(5), r(5)), {"version": 17}),
    "MaxPool": (IMG, (), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    "MaxPool-ceil": (IMG, (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "MaxPool-same": (IMG, (), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    "AveragePool": (IMG, (), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "AveragePool-counted": (
        IMG, (), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}
    ),
    "AveragePool-same": (IMG, (), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    "GlobalAveragePool": (IMG, (), {}), "GlobalMaxPool": (IMG, (), {}),
    "Reshape": (IMG, (i(0, -1, 6),), {}), "Reshape-flat": (IMG, (i(-1, 144),), {}),
    "Flatten": (IMG, (), {}), "Squeeze": ((1, 5), (i(1),), {}),
    "Squeeze-old": ((1, 5), (), {"version": 11, "axes": [1]}),
    "Unsqueeze": ((5,), (i(1, -1),), {}), "Transpose": (IMG, (), {"perm": [0, 2, 3, 1]}),
    "Slice": (IMG, (i(1, -4), i(4, 2**62), i(1, 3), i(2, 1)), {}),
    "Slice-back": (IMG, (i(-1), i(-(2**62)), i(2), i(-1)), {}),
    "Slice-old": (IMG, (), {"version": 9, "starts": [1], "ends": [3], "axes": [1]}),
    "Gather": (IMG, (i(2, 0, -1),), {"axis": 1}), "Gather-one": (IMG, (np.int64(1),), {"axis": 2}),
    "Gather-grid": (IMG, (np.array([[0, 1], [2, 3]]),), {"axis": 3}),
    "Pad": (IMG, (i(0, 0, 1, 0, 0, 0, 2, 1), np.float32(0.5)), {}),
    "Pad-reflect": (IMG, (i(0, 0, 1, 2, 0, 0, 2, 1),), {"mode": "reflect"}),
    "Pad-old": (IMG, (), {"version": 9, "pads": [0, 0, 1, 0, 0, 0, 2, 1], "value": 0.5}),
    "Split": (IMG, (i(1, 3),), {"axis": 1, "outputs": 2}),
    "Split-even": (IMG, (), {"version": 11, "axis": 1, "outputs": 2}),
    "Concat": ((5,), (np.tile(r(1, 3), (2, 1)),), {"axis": 1, "fixed": True}),
    "Expand": ((1, 5), (i(1, 3, 5),), {}), "Tile": ((5,), (i(1, 2),), {}),
    "Resize": (IMG, (None, np.array([1, 1, 2, 2], np.float32)),
               {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor"}),
    "Resize-linear": (IMG, (None, None, i(2, 4, 9, 11)),
                      {"mode": "linear", "fixed": True}),
    "Upsample": (IMG, (np.array([1, 1, 2, 2], np.float32),), {"version": 9, "mode": "nearest"}),
    "DepthToSpace": (IMG, (), {"blocksize": 2}),
    "DepthToSpace-crd": (IMG, (), {"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": (IMG, (), {"blocksize": 2}),
    "ReduceMean": (IMG, (), {"axes": [2, 3], "keepdims": 0}),
    "ReduceMean-18": (IMG, (i(2, 3),), {"version": 18}),
    "ReduceSum": (IMG, (i(1),), {}), "ReduceMax": (IMG, (), {"axes": [-1]}),
    "ReduceMin": (IMG, (), {"axes": [1, 2]}), "ReduceProd": ((5,), (), {"axes": [1]}),
    "ReduceL1": (IMG, (), {"axes": [1]}), "ReduceL2": (IMG, (), {"axes": [1]}),
    "ReduceSumSquare": (IMG, (), {"axes": [1]}),
    "Softmax-old": (IMG, (), {"version": 11, "axis": 1}),
    "Dropout": ((5,), (), {}), "Cast": ((5,), (), {"to": 1}),
    "Einsum": ((5,), (r(5, 3),), {"equation": "ni,ij->nj"}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_operator(name, tmp_path):
    shape, constants, options = OPS[name]
    path = single(tmp_path / "net.onnx", name.split("-")[0], shape, constants, **options)
    model = load_onnx(path)
    for n in (2,) if options.get("fixed") else (1, 4):
        x = r(n, *shape)
        found = model(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, run(path, x), atol=2e-5, rtol=2e-5)
    assert len(model(torch.from_numpy(r(5, *shape)))) == 5  # also where the file fixes N


class Shapes(nn.Module):
    """Shape arithmetic as exporters write it."""

    def __init__(self):
        super().__init__()
        self.fc, self.token = nn.Linear(6, 6), nn.Parameter(torch.rand(1, 1, 6))

    def forward(self, x):
        y = torch.cat([self.token.expand(x.size(0), -1, -1), self.fc(x)], 1)
        a, b = y.chunk(2, 2)
        z = torch.maximum(a, b)[:, 1:].clamp(-1, 1)
        q = F.pad(z, (1, 2), value=0.5).permute(0, 2, 1).reshape(x.size(0), -1, 2).mean(1)
        return q + torch.where(z > 0, z, 0.1 * z).amax((1, 2)).unsqueeze(1)


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.MaxPool2d(2),
            nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 4, 3), nn.ReLU6(),
        )  # fmt: skip
        self.fc = nn.Linear(4 * 64, 3)

    def forward(self, x):
        x = self.body(x)
        return F.log_softmax(self.fc(x.view(x.size(0), -1)), 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [11, 17])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("kind", [Shapes, Convolutions])
def test_exported_networks_lower_and_verify(kind, dynamic, version, tmp_path):
    from isogon.cpwl.verify import verify

    torch.manual_seed(0)
    model, buffer = kind().eval(), io.BytesIO()
    x = torch.rand(1, 3, 6) if kind is Shapes else torch.rand(1, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), buffer, dynamo=False, opset_version=version, input_names=["x"],
            dynamic_axes={"x": {0: "n"}} if dynamic else None,
        )  # fmt: skip
    path = tmp_path / "net.onnx"
    path.write_bytes(buffer.getvalue())
    loaded = load_onnx(path)
    x = torch.rand(5, *x.shape[1:])
    torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=1e-5)
    assert verify(loaded, x).require()


def test_layers_are_pytorchs_own(shared):
    model = load_onnx(shared / "data" / "onnx" / "cifar10_resnet_2b.onnx")
    kinds = [type(m).__name__ for m in model.children()]
    assert kinds.count("Conv2d") == 6
    assert kinds.count("ReLU") == 6
    assert kinds.count("Linear") == 2


# --------------------------------------------------------------------------- safety


def with_external(path, location, length=None, data=None):
    single(path, "MatMul", (5,), (r(5, 3),))
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(length or len(raw)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return raw if data is None else data


def test_external_data_in_the_folder(tmp_path):
    raw = with_external(tmp_path / "net.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(raw)
    x = r(2, 5)
    np.testing.assert_allclose(
        load_onnx(tmp_path / "net.onnx")(torch.from_numpy(x)).detach(), x @ r(5, 3), atol=1e-5
    )


@pytest.mark.parametrize("location", ["../secret.bin", "{root}/secret.bin", "link.bin", "gone.bin"])
def test_external_data_elsewhere_is_refused(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "net.onnx"
    raw = with_external(path, location.replace("{root}", str(tmp_path)))
    (tmp_path / "secret.bin").write_bytes(raw)
    if location == "link.bin":
        (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(FileError) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


def test_external_data_of_another_size_is_refused(tmp_path):
    raw = with_external(tmp_path / "net.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(raw[:-4])
    with pytest.raises(FileError, match="another size"):
        load_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "flipped"])
def test_corrupt_files_are_refused_in_one_line(damage, tmp_path):
    path = single(tmp_path / "net.onnx", "Gemm", (5,), (r(5, 3), r(3)))
    good = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "truncated": good[: len(good) // 2],
            "garbage": np.random.default_rng(0).bytes(500),
            "flipped": bytes(b ^ 0x5A if k % 7 == 3 else b for k, b in enumerate(good)),
        }[damage]
    )
    with pytest.raises(FileError, match="not a usable ONNX file") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_huge_tensors_by_a_small_header_are_refused(tmp_path):
    huge = i(10**6, 10**6)
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["s"], ["c"], "fill"),
            helper.make_node("ReduceSum", ["c"], ["t"]),
            helper.make_node("Add", ["x", "t"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(huge, "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="constants of more than"):
        load_onnx(tmp_path / "net.onnx")
    path = single(tmp_path / "wide.onnx", "Expand", (1,), (i(1, 10**13),))
    with pytest.raises(FileError, match="values for one sample of more than"):
        load_onnx(path)
    path = single(tmp_path / "input.onnx", "Relu", (10**7, 10**7))
    with pytest.raises(FileError, match="fit into memory"):
        load_onnx(path)


def test_unknown_operator_and_several_inputs(tmp_path):
    path = single(tmp_path / "net.onnx", "Hardmax", (5,))
    with pytest.raises(UnsupportedOp, match="Hardmax at 'node'"):
        load_onnx(path)
    model = onnx.load(str(single(path, "Add", (5,), (r(5),))))
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5])
    model.graph.input.append(value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="several inputs"):
        load_onnx(path)
    path = single(tmp_path / "open.onnx", "Relu", ("height",))
    with pytest.raises(ModelError, match="leaves sizes"):
        load_onnx(path)


def vector_net(path, shape, nodes, weights):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_an_input_without_an_axis_for_samples_gets_one_where_it_can(tmp_path):
    w, v = r(6, 5), r(5, 3)
    path = vector_net(
        tmp_path / "net.onnx", (6,),
        [helper.make_node("MatMul", ["x", "w"], ["h"], "a"), helper.make_node("Relu", ["h"], ["a"]),
         helper.make_node("MatMul", ["a", "v"], ["y"], "b")], {"w": w, "v": v},
    )  # fmt: skip
    model = load_onnx(path)
    assert model.shape == (6,)
    x = r(4, 6)
    expected = np.stack([np.maximum(row @ w, 0) @ v for row in x])
    assert np.allclose(model(torch.from_numpy(x)).detach(), expected, atol=1e-5)


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
@pytest.mark.parametrize("size", [1, 6])
def test_weights_stand_on_the_left_of_a_single_vector(tmp_path, op, size):
    w, v, b = r(5, size), r(3, 5), r(5)
    shape = (size,) if op == "MatMul" else (size, 1)
    path = vector_net(
        tmp_path / "net.onnx", shape,
        [helper.make_node(op, ["w", "x"], ["h"], "a"),
         helper.make_node("Add", ["h", "b"], ["z"]), helper.make_node("Relu", ["z"], ["s"], "s"),
         helper.make_node(op, ["v", "s"], ["y"], "c")],
        {"w": w, "v": v, "b": b.reshape(5, *shape[1:])},
    )  # fmt: skip
    model, x = load_onnx(path), r(4, *shape)
    assert np.allclose(
        model(torch.from_numpy(x)).detach(), [run(path, own) for own in x], atol=1e-5
    )
    if op == "MatMul":
        assert isinstance(model.a, nn.Linear)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_and_is_refused_by_name_where_it_can_not(tmp_path, shape):
    nodes = [
        helper.make_node("Reshape", ["x", "one"], ["row"], "flat"),
        helper.make_node("Gemm", ["row", "w"], ["y"], "fc"),
    ]
    path = vector_net(tmp_path / "net.onnx", shape, nodes, {"one": np.array([1, 6]), "w": r(6, 3)})
    if shape[0] == 1:  # a batch of one, which the file fixes: any number is taken
        assert len(load_onnx(path)(torch.zeros(5, 2, 3))) == 5
        return
    with pytest.raises(ModelError, match=r"input 'x' has no axis for samples: got x \[") as caught:
        load_onnx(path)
    assert "torch.onnx.export(model, x[None]" in str(caught.value)


def two_outputs(path, names=("hidden", "logits")):
    hidden, last = names
    nodes = [
        helper.make_node("Relu", ["x"], [hidden]),
        helper.make_node("MatMul", [hidden, "w"], [last]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names],
        [onnx.numpy_helper.from_array(r(4, 3), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def test_several_outputs_keep_their_names(tmp_path):
    from isogon.cpwl.lower import lower

    path = two_outputs(tmp_path / "net.onnx")
    net, x = load(str(path)), torch.rand(5, 4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    hidden, z = session.run(None, {"x": x.numpy()})
    assert list(net(x)) == ["hidden", "logits"]
    for found in (
        logits(net, x),
        load(f"output({path}, logits)")(x),
        load(f"output({path}, 1)")(x),
    ):
        np.testing.assert_allclose(found.detach().numpy(), z, atol=1e-6)
    np.testing.assert_allclose(load(f"output({path}, hidden)")(x).numpy(), hidden, atol=1e-6)
    np.testing.assert_allclose(lower(net, x).evaluate(x.double()).numpy(), z, atol=1e-5)
    assert ig.data_matrix(net, x).table["trace"].min() > 0
    path = two_outputs(tmp_path / "other.onnx", ("495", "main out"))
    with pytest.raises(ModelError, match=r"'495' \[2, 4\], 'main out' \[2, 3\]"):
        ig.data_matrix(load(str(path)), x)
    assert load(f"output({path}, '495')")(x).shape == (5, 4)
    assert load(f"output({path}, 'main out')")(x).shape == (5, 3)


def test_what_is_exported_in_training_mode_is_refused(tmp_path):
    path, half = tmp_path / "net.onnx", np.float32(0.5)
    with pytest.raises(UnsupportedOp, match=r"Dropout in training mode.*eval\(\)"):
        load_onnx(single(path, "Dropout", (5,), (half, np.array(True))))
    with pytest.raises(UnsupportedOp, match="Dropout in training mode"):  # a ratio left out is 0.5
        load_onnx(single(path, "Dropout", (5,), (None, np.array(True))))
    with pytest.raises(UnsupportedOp, match="Dropout in training mode"):
        load_onnx(single(path, "Dropout", (5,), version=6, ratio=0.3))
    x = torch.rand(3, 5)
    for made in (
        single(tmp_path / "a.onnx", "Dropout", (5,), (half, np.array(False))),
        single(tmp_path / "b.onnx", "Dropout", (5,), (half,)),
        single(tmp_path / "c.onnx", "Dropout", (5,), (np.float32(0), np.array(True))),
        single(tmp_path / "d.onnx", "Dropout", (5,), version=6, ratio=0.3, is_test=1),
        single(tmp_path / "e.onnx", "Dropout", (5,), version=10, ratio=0.3),
    ):
        assert torch.equal(load_onnx(made)(x), x)
    four = [np.ones(3, np.float32) for _ in range(4)]
    single(path, "BatchNormalization", (3, 2, 2), four, version=15)
    assert load_onnx(path)(torch.rand(2, 3, 2, 2)).shape == (2, 3, 2, 2)
    model = onnx.load(str(path))
    model.graph.node[0].attribute.append(helper.make_attribute("training_mode", 1))
    model.graph.node[0].output.extend(["mean", "var"])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedOp, match="batch-norm in training mode"):
        load_onnx(path)


@pytest.mark.parametrize("kind", ["UINT8", "INT64"])
def test_real_inputs_of_a_network_of_integers_are_refused(tmp_path, kind):
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", getattr(TensorProto, kind), ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(r(4, 3), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    net = load(str(tmp_path / "net.onnx"))
    x = torch.rand(5, 4)
    for call in (
        lambda: net(x),
        lambda: ig.data_matrix(net, x),
        lambda: ig.segments(net, x[0], x[1]),
        lambda: ig.walk(net, x, steps=1),
    ):
        with pytest.raises(ModelError, match=f"expected {kind.lower()}") as caught:
            call()
        assert ("0 to 255" in str(caught.value)) == (kind == "UINT8")
        assert "Export it with real inputs" in str(caught.value)
    whole = (x * 255).to(getattr(torch, kind.lower()))
    expected = run(tmp_path / "net.onnx", whole.numpy())
    np.testing.assert_allclose(net(whole).detach().numpy(), expected, rtol=1e-5, atol=1e-3)
