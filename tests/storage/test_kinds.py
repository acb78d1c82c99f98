"""Files that are of another kind than their name says, as people have them."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

import isogon as ig
from isogon.errors import FileError
from isogon.storage import kinds

SPEC = "mlp(widths=(4,), inputs=3, classes=2)"
STATE = {"fc.weight": torch.zeros(2, 3)}


def saved() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


def packed(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


PAGE = b"\n<!DOCTYPE html>\n<html><title>404</title></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
FOREIGN = {  # what is in the file, and what of it the message must say
    "text": (b"hello, this is a text\n" * 50, "a text that begins with 'hello, this is a text"),
    "letters that are a pickle": (b"N.", "a text that begins with 'N.'"),
    "umlauts": ("ä".encode() * 300, "a text that begins"),
    "json": (json.dumps({"a": [1, 2]}).encode(), "a JSON text"),
    "html": (PAGE, "a page of HTML"),
    "pointer": (LFS, "git lfs pull"),
    "nothing": (b"", "an empty file"),
    "gzip": (gzip.compress(saved()), "Unpack it first"),
    "numpy": (npy(), "a NumPy array"),
    "keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "ONNX"),
    "zip": (packed(**{"w.pth": saved()}), "a zip with w.pth"),
}
INTERNALS = re.compile(r"\w+Error\b|opcode|pickle|enforce|header|[Pp]rotobuf|parsing")


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".pt2"])
def test_a_file_of_another_kind_is_named(name, suffix, tmp_path):
    data, words = FOREIGN[name]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    alone = suffix in (".onnx", ".pt2")
    for spec in [str(path)] if alone else [f"{SPEC}@{path}", str(path)]:
        with pytest.raises(FileError) as caught:
            ig.load(spec)
        said = str(caught.value).replace(str(tmp_path), "")
        assert words in said, said
        assert not INTERNALS.search(said), said


def test_weights_under_the_suffix_of_other_weights(tmp_path):
    (tmp_path / "w.pt").write_bytes(save(STATE))
    with pytest.raises(FileError, match=r"a safetensors file.*end in \.safetensors"):
        ig.load(f"{SPEC}@{tmp_path}/w.pt")
    (tmp_path / "w.safetensors").write_bytes(saved())
    with pytest.raises(FileError, match=r"a file of torch\.save.*end in \.pt\b"):
        ig.load(f"{SPEC}@{tmp_path}/w.safetensors")


@pytest.mark.filterwarnings("ignore:invalid escape")  # of letters by chance
def test_what_is_damaged_is_not_taken_for_another_kind(tmp_path):
    for suffix, whole in ((".pt", saved()), (".safetensors", save(STATE))):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(whole)
        assert kinds.foreign(path, kinds.SAFETENSORS if "s" in suffix else kinds.SAVED) is None
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FileError, match="truncated, damaged"):
            ig.load(f"{SPEC}@{path}")
    for i in range(50):  # bytes by chance, also those that fail within the reader of pickles
        data = np.random.default_rng(i).bytes(99)
        (tmp_path / "w.pt").write_bytes((b"0", b"h\5", b"]a", b"\x80\2c")[i % 4] + data)
        with pytest.raises(FileError) as caught:
            ig.load(f"{SPEC}@{tmp_path}/w.pt")
        assert not re.search("KeyError|IndexError|TypeError", str(caught.value)), caught.value


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive_says_so_and_its_fix_works(tmp_path):
    net = ig.load(SPEC)
    path = tmp_path / "ts.pt"
    torch.jit.trace(net, torch.zeros(1, 3)).save(path)
    for spec in (f"{SPEC}@{path}", str(path)):
        with pytest.raises(FileError, match="a TorchScript archive") as caught:
            ig.load(spec)
    line = re.search(r"(torch\.save\(.*?\)), then load", str(caught.value))[1]
    with warnings.catch_warnings(action="ignore"):
        eval(line.replace("'weights.pt'", "target"),
             {"torch": torch, "path": path, "target": tmp_path / "weights.pt"})  # fmt: skip
    again = ig.load(f"{SPEC}@{tmp_path}/weights.pt")
    x = torch.rand(4, 3)
    assert torch.equal(again(x), net(x))


def test_an_exported_program_under_another_name(tmp_path):
    net = nn.Sequential(nn.Linear(3, 2))
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.zeros(2, 3),), dynamic_shapes=shapes)
    for name in ("p.pt2", "p.pt"):
        with (tmp_path / name).open("wb") as file:
            torch.export.save(program, file)
    for spec in (f"{SPEC}@{tmp_path}/p.pt", str(tmp_path / "p.pt")):
        with pytest.raises(FileError, match=r"an exported program.*end in \.pt2"):
            ig.load(spec)
    assert ig.load(tmp_path / "p.pt2")(torch.zeros(5, 3)).shape == (5, 2)
