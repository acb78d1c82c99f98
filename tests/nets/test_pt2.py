"""Exported programs: what was saved is computed; what would execute code is refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import FileError, ModelError
from isogon.nets.outputs import logits
from isogon.nets.sites import sites


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(72, 3)
        self.k = torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x):
        h = self.bn(self.conv(x)).relu().view(x.shape[0], -1)
        return torch.log_softmax(self.fc(h) * self.k + x.shape[0] // 7, 1)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


X = torch.rand(4, 1, 8, 8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    net = Net().eval()
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (X[:3],), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return net, path


def test_an_exported_program_loads(exported):
    net, path = exported
    for found in (ig.load(str(path)), ig.load(path)):
        assert torch.equal(found(X), net(X))
        assert torch.equal(found(X[:1]), net(X[:1]))
        assert not found.training
        assert torch.allclose(logits(found, X).log_softmax(1), net(X))
        leaf = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(logits(found, leaf)[:, 0].sum(), leaf)
        assert slope.shape == X.shape
        assert bool(slope.any())
    assert {n for n, _ in found.named_parameters()} == {n for n, _ in net.named_parameters()}
    assert torch.equal(found.double()(X.double()), net.double()(X.double()))
    net.float()


def rewritten(path, tmp_path, change, extra=None):
    """The file with each entry passed through ``change(name, data)``."""
    out = tmp_path / "changed.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        root = old.namelist()[0].partition("/")[0]
        for name, data in (extra or {}).items():
            new.writestr(f"{root}/{name}", data)
    return out


def in_model(edit):
    def change(name, data):
        if "/models/" in name:
            value = json.loads(data)
            edit(value)
            return json.dumps(value)
        return data

    return change


CODE = "__import__('os').system('touch EXECUTED')"


def symbol(m):
    values = m["graph_module"]["graph"]["sym_int_values"]
    return next(iter(values.values()))["as_expr"]


def set_target(target):
    return lambda m: m["graph_module"]["graph"]["nodes"][2].update(target=target)


def call_signature(m):
    return m["graph_module"]["module_call_graph"][0]["signature"]


ATTACKS = {
    "symbolic size": lambda m: symbol(m).update(expr_str=CODE),
    "symbolic size by characters": lambda m: symbol(m).update(expr_str="exec(chr(97)+chr(98))"),
    "symbolic size by attribute": lambda m: symbol(m).update(expr_str="Symbol('s1').func"),
    "operator of torch": set_target("torch.hub.load"),
    "operator of the system": set_target("torch.os.system"),
    "operator on files": set_target("torch.ops.aten.from_file.default"),
    "argument name": lambda m: call_signature(m).update(forward_arg_names=[f"x={CODE}"]),
    "parameter name": lambda m: m["graph_module"]["signature"]["input_specs"][0][
        "parameter"
    ].update(parameter_name=f'a"]+{CODE}'),
    "container": lambda m: call_signature(m).update(
        in_spec='[1, {"type": "collections.defaultdict", "context": '
        '"{\\"default_factory_module\\": \\"this\\"}", "children_spec": []}]'
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_programs_that_would_execute_code(exported, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = rewritten(exported[1], tmp_path, in_model(ATTACKS[name]))
    with pytest.raises(FileError, match="could execute code") as error:
        ig.load(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "EXECUTED").exists()


def test_guards_are_dropped(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = rewritten(exported[1], tmp_path, in_model(lambda m: m.update(guards_code=[CODE])))
    assert torch.equal(ig.load(path)(X), exported[0](X))
    assert not (tmp_path / "EXECUTED").exists()


def test_pickles_in_the_archive(exported, tmp_path):
    def as_pickle(name, data):
        if name.endswith("weights_config.json"):
            value = json.loads(data)
            next(iter(value["config"].values()))["use_pickle"] = True
            return json.dumps(value)
        return data

    buffer = io.BytesIO()
    torch.save({"x": Bomb()}, buffer)
    bombs = [
        rewritten(exported[1], tmp_path, as_pickle),
        *(
            rewritten(
                exported[1],
                tmp_path,
                lambda n, d, b=b: b if n.endswith("sample_inputs/model.pt") else d,
            )
            for b in (pickle.dumps(Bomb()), buffer.getvalue())
        ),
        rewritten(exported[1], tmp_path, lambda n, d: d, {"data/aotinductor/m/a.so": b"x"}),
        rewritten(exported[1], tmp_path, lambda n, d: d, {"data/constants/opaque_obj_0": b"x"}),
    ]
    for path in bombs:
        with pytest.raises(FileError, match="could execute code"):
            ig.load(path)


def test_damaged_programs(exported, tmp_path):
    data = exported[1].read_bytes()
    for i, bad in enumerate([data[:-100], data[: len(data) // 2], b"", b"PK\3\4" * 10]):
        path = tmp_path / f"{i}.pt2"
        path.write_bytes(bad)
        with pytest.raises(FileError) as error:
            ig.load(path)
        assert "\n" not in str(error.value)


def test_sites_of_an_exported_program(exported):
    assert sites(ig.load(exported[1]), "relu", example=X)[0].shape == (2, 6, 6)


def test_programs_of_one_number_of_samples(tmp_path):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    cases = {
        "free": (net, (X[:1],)),  # exported at one sample, holds for any
        "fixed": (Net().eval(), (X[:3],)),
        "two": (Two(), (X, X)),
    }
    for name, (model, example) in cases.items():
        torch.export.save(torch.export.export(model, example), tmp_path / f"{name}.pt2")
    found = ig.load(tmp_path / "free.pt2")
    assert torch.equal(found(X), net(X))
    with pytest.raises(ModelError, match="one number of samples"):
        ig.load(tmp_path / "fixed.pt2")
    with pytest.raises(ModelError, match="one tensor"):
        ig.load(tmp_path / "two.pt2")
