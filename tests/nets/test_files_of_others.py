"""Weights as others save them: loaded with a word on what was done, or refused, saying why."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

import isogon as ig
from isogon import nets
from isogon.cli import main
from isogon.errors import FileError, ModelError, SpecError
from isogon.nets import layouts
from isogon.nets.fitting import check_fits, fitting
from isogon.nets.states import fitted
from isogon.nets.weights import put

SPEC = "cnn(width=3, batch_norm=True)"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    found = nets.build(SPEC)
    for p in found.parameters():
        nn.init.normal_(p)
    return found.eval()


class Lit(nn.Module):
    """A module around the network, as training frameworks ask for; runs only in this test."""

    def __init__(self, net, name="model"):
        super().__init__()
        setattr(self, name, net)


class Hyper:
    """Something of a user's own in a checkpoint."""


def trained(net):
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    net.zero_grad()
    return optimizer


def lightning(state, **more):
    return {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-3}, **more,
    }  # fmt: skip


def prefixed(state, prefix):
    return collections.OrderedDict((prefix + k, v) for k, v in state.items())


def written(net, optimizer):
    """Name -> (what is saved, words that a warning must hold)."""
    state = net.state_dict()
    average = AveragedModel(net)
    average.update_parameters(net)
    lit, backbone = Lit(net).state_dict(), Lit(net, "net").state_dict()
    ops = {f"{p}{'.' if p else ''}{k}": torch.zeros(1, dtype=torch.float64)
           for p, _ in net.named_modules() for k in ("total_ops", "total_params")}  # fmt: skip
    scalars = {"acc": np.float64(0.93), "best": np.int64(4), "curve": np.arange(3.0)}
    found = {
        "bare": (state, []),
        "parameters": (dict(net.named_parameters()) | dict(net.named_buffers()), []),
        "lightning model.": (lightning(lit), ["'model.'"]),
        "lightning net.": (lightning(backbone), ["'net.'"]),
        "data parallel": (nn.DataParallel(net).state_dict(), ["'module.'"]),
        "averaged": (average.state_dict(), ["'module.'", "n_averaged"]),
        "averaged in a file": ({"swa_model": average.state_dict(), "epoch": 1}, ["'swa_model'"]),
        "network": ({"network": state, "epoch": 3}, []),
        "any name": ({"G_theta": state, "optim": optimizer.state_dict()}, ["'G_theta'"]),
        "torchvision": (
            {"model": state, "optimizer": optimizer.state_dict(), "lr_scheduler": {"_step": 3},
             "epoch": 9, "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x"))}, [],
        ),
        "timm": (
            {"epoch": 7, "arch": "resnet", "state_dict": state, "optimizer": {}, "version": 2,
             "args": argparse.Namespace(model="resnet"), "metric": np.float64(77.1),
             "state_dict_ema": {k: v + 1 for k, v in state.items()}},
            ["'state_dict'", "state_dict_ema"],
        ),
        "numpy beside": ({"state_dict": state, **scalars}, []),
        "thop": ({**state, **ops}, ["total_ops"]),
        "thop data parallel": (prefixed({**state, **ops}, "module."), ["total_ops", "'module.'"]),
        "nested twice": ({"model": {"state_dict": state}, "epoch": 1}, []),
        "flat with an epoch": ({**state, "epoch": 3, "best_acc": np.float64(0.5)}, ["epoch"]),
        "without counters": (
            {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, [],
        ),
    }  # fmt: skip
    for prefix in ("_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod."):
        found[prefix] = (prefixed(state, prefix), [f"'{prefix}'"])
    first = next(iter(net.named_children()))[0]
    part = {k.replace(f"{first}.", f"{first}._orig_mod."): v for k, v in state.items()}
    found["a compiled part"] = (part, ["'_orig_mod.'"])
    return found


CASES = list(written(nets.build(SPEC), torch.optim.Adam([nn.Parameter(torch.zeros(1))])))


def load(spec):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = ig.load(spec)
    return found, " ".join(str(w.message) for w in said if w.category is UserWarning)


def same(a, b) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items()
               if not k.endswith("num_batches_tracked"))  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_every_layout_gives_the_same_network(net, tmp_path, case, old):
    content, words = written(net, trained(nets.build(SPEC)))[case]
    path = tmp_path / ("w.pth.tar" if old else "w.ckpt")
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found, said = load(f"{SPEC}@{path}")
    assert same(found, net)
    assert not found.training
    for word in words:
        assert word in said
    assert bool(words) == bool(said), said


def test_what_was_done_is_shown_by_the_command_line(net, tmp_path, capsys):
    torch.save(lightning(Lit(net).state_dict()), tmp_path / "w.ckpt")
    words = ["orientation", "--model", f"{SPEC}@{tmp_path}/w.ckpt", "--out", str(tmp_path / "o")]
    assert main(words) == 0
    assert "note: weights of" in capsys.readouterr().err


def test_user_classes_in_a_file_are_named_and_never_made(net, tmp_path):
    for content, names in (
        (lightning(net.state_dict(), hyper_parameters=Hyper()), ["Hyper"]),
        ({"model": net}, ["isogon.nets.arch"]),
        (net, ["isogon.nets.arch"]),
        ({"state_dict": net.state_dict(), "when": slice(1)}, ["slice"]),
    ):
        for new in (True, False):
            torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
            with pytest.raises(FileError, match="would execute code") as caught:
                ig.load(f"{SPEC}@{tmp_path}/w.pt")
            assert "weights_only=False" in str(caught.value)
            if new:
                assert any(n in str(caught.value) for n in (*names, "torch.nn")), caught.value


def test_what_stands_for_objects_does_nothing(tmp_path):
    """Numbers, arrays and options beside weights come out as nothing at all."""
    content = {
        "w": {"a": torch.zeros(1)}, "n": np.float32(1), "b": np.bool_(True), "i": np.arange(3),
        "s": np.array(["a"]), "args": argparse.Namespace(a=1), "p": pathlib.Path("/etc/passwd"),
    }  # fmt: skip
    torch.save(content, tmp_path / "w.pt")
    allowed = torch.serialization.get_safe_globals()
    found = layouts.read_saved(tmp_path / "w.pt")
    assert {type(found[k]) for k in "nbisp"} | {type(found["args"])} == {layouts.Inert}
    assert not vars(found["args"])
    assert torch.equal(found["w"]["a"], torch.zeros(1))
    assert len(torch.serialization.get_safe_globals()) == len(allowed), "nothing stays allowed"


def test_a_file_of_several_models_is_refused_by_name(net, tmp_path):
    state = net.state_dict()
    wrong = {
        "several": ({"generator": state, "discriminator": state}, FileError, "generator, discri"),
        "none": ({"epoch": 3, "arch": "x"}, FileError, "epoch (int), arch (str)"),
        "empty": ({}, FileError, "nothing"),
        "a list": ([state], FileError, "a list"),
        "a tensor": (torch.zeros(3), FileError, "a Tensor"),
        "numbers of numpy as weights": ({**state, "0.weight": np.zeros(3)}, FileError, "0.weight"),
        "an unknown extra": ({**state, "mystery": 3}, FileError, "mystery (int)"),
        "an unknown tensor": ({**state, "mystery": torch.zeros(1)}, ModelError, "mystery"),
        "a loss with weights": (
            lightning({**prefixed(state, "model."), "loss.weight": torch.zeros(3)}),
            ModelError, "loss.weight",
        ),
        "two prefixes": (
            {**prefixed(dict(list(state.items())[:3]), "a."),
             **prefixed(dict(list(state.items())[3:]), "b.")}, ModelError, "unexpected a.",
        ),
    }  # fmt: skip
    for content, error, words in wrong.values():
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(error) as caught:
            ig.load(f"{SPEC}@{tmp_path}/w.pt")
        assert words in str(caught.value), caught.value


def test_exact_names_come_first(tmp_path):
    """Names that fit are not touched, also where all of them share a prefix."""
    inner, outer = nn.Linear(2, 2), Lit(nn.Linear(2, 2), "module")
    target, names = fitting(outer, outer.state_dict(), source="w", what="m")
    assert target is outer
    assert list(names) == ["module.weight", "module.bias"]
    with pytest.warns(UserWarning, match=r"behind 'module\.'"):
        target, names = fitting(outer, inner.state_dict(), source="w", what="m")
    assert list(names) == ["module.weight", "module.bias"]
    with pytest.warns(UserWarning, match=r"'a\.b\.'"):
        fitting(inner, prefixed(inner.state_dict(), "a.b."), source="w", what="m")
    with pytest.raises(ModelError, match="other shape"):
        fitting(inner, prefixed(nn.Linear(3, 2).state_dict(), "a."), source="w", what="m")


class Tied(nn.Module):
    """Two layers with one weight; the second a transposed use."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.head(torch.relu(self.embed(x))))


def test_two_names_never_become_one():
    """Weights of the model and of its compiled copy in one file: which are meant?"""
    net = nn.Sequential(nn.Linear(2, 2))
    state = {**net.state_dict(), **{f"_orig_mod.{k}": v + 1 for k, v in net.state_dict().items()}}
    with pytest.raises(ModelError, match="unexpected _orig_mod"):
        fitting(net, state, source="w.pt", what="net")


def test_metadata_add_names_and_replace_no_tensor():
    a, b = torch.ones(2), torch.zeros(2)
    found = layouts.aliased({"a": a, "b": b}, {"b": "a", "c": "a", "d": "nothing", "format": "pt"})
    assert found.keys() == {"a", "b", "c"}
    assert found["b"] is b
    assert found["c"] is a


def test_tied_weights(tmp_path):
    (tmp_path / "code").mkdir()
    torch.manual_seed(1)
    ours = Tied()
    save_model(ours, tmp_path / "tied.safetensors")
    fresh = Tied()
    state, _ = nets.weights.read_weights(tmp_path / "tied.safetensors")
    assert set(state) == set(ours.state_dict()), "the alias stands in the metadata"
    nets.weights.put(fresh, state, source="w", what="m")
    x = torch.rand(3, 4)
    assert torch.equal(fresh(x), ours(x))
    # an untied copy of the architecture gets both
    untied = Tied()
    untied.head.weight = nn.Parameter(torch.zeros(4, 4))
    nets.weights.put(untied, state, source="w", what="m")
    assert torch.equal(untied(x), ours(x))
    # one of the names is enough, without metadata
    for name in ("embed.weight", "head.weight"):
        part = {k: v for k, v in ours.state_dict().items() if k != name}
        fresh = Tied()
        nets.weights.put(fresh, part, source="w", what="m")
        assert torch.equal(fresh(x), ours(x))
    # two different values for one tensor: which is meant?
    both = {**ours.state_dict(), "head.weight": torch.zeros(4, 4)}
    with pytest.raises(ModelError, match="tied in the model") as caught:
        check_fits(Tied(), both, source="w", what="m")
    assert "embed.weight and head.weight" in str(caught.value)


def shard(state, folder, suffix=".safetensors"):
    """A state in two files and an index, as model hubs hold large ones."""
    names = list(state)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    where = {}
    for i, part in enumerate(parts, 1):
        file = f"model-0000{i}-of-00002{suffix}"
        held = {k: state[k].contiguous() for k in part}
        if suffix == ".safetensors":
            save_file(held, folder / file, {"format": "pt"})
        else:
            torch.save(held, folder / file)
        where |= dict.fromkeys(part, file)
    size = sum(v.numel() * v.element_size() for v in state.values())
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))
    return index, where


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_in_several_files(net, tmp_path, suffix):
    index, where = shard(net.state_dict(), tmp_path, suffix)
    found, said = load(f"{SPEC}@{index}")
    assert same(found, net)
    assert not said
    moved = {k: f"model-0000{3 - int(v[10])}-of-00002{suffix}" for k, v in where.items()}
    lines = {
        "another folder": ({"weight_map": {**where, "x": "../model-00001" + suffix}}, "another fo"),
        "an absolute path": ({"weight_map": dict.fromkeys(where, "/etc/passwd")}, "another folder"),
        "backslashes": ({"weight_map": dict.fromkeys(where, "..\\w" + suffix)}, "another folder"),
        "a file that is gone": ({"weight_map": {**where, "x": "gone" + suffix}}, "no such file"),
        "a tensor too many": ({"weight_map": {**where, "x": where[next(iter(where))]}}, "say"),
        "a tensor less": ({"weight_map": dict(list(where.items())[1:])}, "index says"),
        "files changed": ({"weight_map": moved}, "index says"),
        "no map": ({"weight": 3}, "not an index"),
        "a list": ([1, 2], "not an index"),
        "nothing": ({"weight_map": {}}, "not an index"),
        "numbers": ({"weight_map": {"a": 3}}, "not an index"),
    }
    for content, words in lines.values():
        index.write_text(json.dumps(content))
        with pytest.raises(FileError, match=words):
            ig.load(f"{SPEC}@{index}")


def test_an_index_alone_says_no_architecture(net, tmp_path):
    index, _ = shard(net.state_dict(), tmp_path)
    torch.save(net.state_dict(), tmp_path / "w.ckpt")
    for path in (index, tmp_path / "w.ckpt"):
        with pytest.raises(SpecError, match="does not say what architecture"):
            ig.load(str(path))


def test_files_too_large_for_memory_are_refused_before_they_are_read(net, tmp_path, monkeypatch):
    index, _ = shard(net.state_dict(), tmp_path)
    monkeypatch.setattr(nets.weights, "memory_limit", lambda: 1000)
    with pytest.raises(FileError, match="larger than the memory"):
        ig.load(f"{SPEC}@{index}")


def test_torchvisions_own_files(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    content = {"model": theirs.state_dict(), "epoch": 3, "args": argparse.Namespace(model="r")}
    torch.save(content, tmp_path / "checkpoint.pth")
    mine, said = load(f"resnet18(num_classes=5)@{tmp_path}/checkpoint.pth")
    assert not said
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(mine(x), theirs(x))


def test_weights_of_a_loss_beside_all_of_the_models_are_named_as_such():
    net = nn.Linear(3, 2)
    state = {f"net.{k}": v for k, v in net.state_dict().items()} | {"loss.weight": torch.ones(2)}
    with pytest.raises(ModelError, match=r"unexpected loss\.weight.*without them"):
        fitting(nn.Linear(3, 2), state, source="file", what="it")
    state.pop("net.bias")
    with pytest.raises(ModelError, match=r"missing .*bias.*arguments it was trained with"):
        fitting(nn.Linear(3, 2), state, source="file", what="it")


def test_a_prefix_on_a_part_of_the_names(net, tmp_path):
    """A backbone in an attribute and its head beside it, as many Lightning modules have it."""
    state = net.state_dict()
    heads = [k for k in state if not k.startswith("fc2.")]
    layouts = {
        "head outside": ({("model." + k if k in heads else k): v for k, v in state.items()},
                         f"'model.' was taken off {len(heads)} of the {len(state)} names"),
        "every other": ({("module." + k if i % 2 else k): v
                         for i, (k, v) in enumerate(state.items())}, "'module.' was taken off"),
        "behind a shared one": (
            {"module." + ("backbone." + k if k in heads else k): v for k, v in state.items()},
            "'module.' was taken off the names, then 'backbone.' was taken off",
        ),
        "compiled": (
            {("model._orig_mod." + k if k in heads else k): v for k, v in state.items()},
            "'_orig_mod.' was taken off the names, then 'model.' was",
        ),
    }  # fmt: skip
    for name, (saved, words) in layouts.items():
        torch.save(saved, tmp_path / "w.pt")
        found, said = load(f"{SPEC}@{tmp_path}/w.pt")
        assert same(net, found), name
        assert words in said, (name, said)


def test_a_prefix_on_a_part_of_the_names_that_does_not_give_the_models():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = net.state_dict()
    part = {("m." + k if k.startswith("0") else k): v for k, v in state.items()}
    with pytest.warns(UserWarning, match="2 of the 4 names"):
        target, names = fitting(net, part, source="w", what="net")
    assert {k: v.data_ptr() for k, v in names.items()} == {
        k: v.data_ptr() for k, v in state.items()
    }
    with pytest.raises(ModelError, match=r"missing 1\.bias"):  # a tensor less
        fitting(net, {k: v for k, v in part.items() if k != "1.bias"}, source="w", what="net")
    with pytest.raises(ModelError, match=r"unexpected"):  # a tensor twice: which is meant?
        fitting(net, {**part, "0.bias": torch.ones(2)}, source="w", what="net")
    with pytest.raises(ModelError, match=r"unexpected"):  # two prefixes
        fitting(net, {("m." if k[0] == "0" else "n.") + k: v for k, v in state.items()},
                source="w", what="net")  # fmt: skip
    with pytest.raises(ModelError, match=r"other shape 1\.weight"):
        fitting(net, part | {"1.weight": torch.ones(3, 2)}, source="w", what="net")
    outer = Lit(net, "m")  # exact names come first: nothing is taken off these
    target, names = fitting(outer, outer.state_dict(), source="w", what="net")
    assert target is outer
    assert list(names) == list(outer.state_dict())


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of quantised tensors
def test_tensors_that_hold_no_numbers_for_the_model_are_refused_by_name(net, tmp_path):
    state = net.state_dict()
    real = {k: v for k, v in state.items() if v.is_floating_point()}

    def quantised(v):
        return torch.quantize_per_tensor(v, 0.1, 0, torch.qint8) if v.dim() == 4 else v

    wrong = {
        "complex conv1.weight": {**state, **{k: v + 1j for k, v in real.items()}},
        "quantised conv1.weight": {k: quantised(v) for k, v in state.items()},
        "without numbers (on the device meta) conv1.weight": {
            k: v.to("meta") for k, v in state.items()
        },
    }
    fixes = ("v.real", "dequantize", "shapes alone")
    for (words, content), fix in zip(wrong.items(), fixes):
        torch.save({"state_dict": content}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="dense real numbers") as caught:
            ig.load(f"{SPEC}@{tmp_path}/w.pt")
        assert words in str(caught.value)
        assert fix in str(caught.value)
        with pytest.raises(ModelError) as caught:
            fitted(net, content, what="snapshot 'a'")
        assert fix in str(caught.value)


@pytest.mark.filterwarnings("ignore:Sparse")  # a word of torch about the format
def test_complex_weights_of_a_complex_model_and_sparse_ones():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    theirs = {"w": torch.tensor([1j, 2.0, 3.0])}
    assert torch.equal(fitting(Complex(), theirs, source="w", what="it")[1]["w"], theirs["w"])
    net = nn.Linear(3, 2)
    weight = torch.tensor([[0, 1.5, 0], [2, 0, 0]])
    for sparse in (weight.to_sparse(), weight.to_sparse_csr()):
        state = {"weight": sparse, "bias": torch.ones(2)}
        put(net, state, source="w", what="it")
        assert torch.equal(net.weight, weight)
        assert torch.equal(fitted(net, state, what="it")["weight"], weight)
    huge = torch.sparse_coo_tensor(torch.zeros(2, 1).long(), [1.0], (2**30, 2**30))
    with pytest.raises(ModelError, match="other shape"):  # before it is unfolded
        put(net, {"weight": huge, "bias": torch.ones(2)}, source="w", what="it")


def test_arrays_of_numpy_are_no_weights_and_the_message_says_what_to_do(net, tmp_path):
    torch.save({k: v.numpy() for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(FileError, match=r"not read\).*torch\.from_numpy") as caught:
        ig.load(f"{SPEC}@{tmp_path}/w.pt")
    assert "Inert" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_fix_for_quantised_weights_works(tmp_path):
    net = nets.build(SPEC)
    state = net.state_dict()
    for key in [k for k, v in state.items() if v.dim() == 4]:
        state[key] = torch.quantize_per_tensor(state[key], 2**-8, 0, torch.qint8)
    path = tmp_path / "w.pt"
    torch.save(state, path)
    with pytest.raises(ModelError) as caught:
        ig.load(f"{SPEC}@{path}")
    line = str(caught.value).split("Dequantise them: ")[1].removesuffix(".")
    exec(line, {"state": state, "torch": torch, "path": path})
    found = ig.load(f"{SPEC}@{path}").state_dict()
    assert all(torch.equal(found[k], v.dequantize() if v.is_quantized else v)
               for k, v in state.items())  # fmt: skip
