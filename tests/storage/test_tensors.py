"""Safetensors: exact round trips, readable by others, and no header is believed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from isogon import storage
from isogon.errors import FileError, OptionError

NAMES = ["f2", "f4", "f8", "c8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f8", ">i4"]
dtypes = st.sampled_from(NAMES)
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@settings(deadline=None)
@given(
    tensors=st.dictionaries(st.text(max_size=6), arrays, max_size=5),
    metadata=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_round_trip(tmp_path_factory, tensors, metadata):
    tensors.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("t") / "f.safetensors"
    storage.write_tensors(path, tensors, metadata)
    again, facts = storage.read_tensors(path)
    assert facts == metadata == storage.read_metadata(path)
    assert list(again) == list(tensors)
    for name, array in tensors.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert again[name].dtype == native.dtype
        assert again[name].shape == array.shape
        assert again[name].tobytes() == native.tobytes()


TORCH = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8,
         torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch_round_trip(tmp_path, dtype):
    path = tmp_path / "f.safetensors"
    x = torch.arange(-6, 6).reshape(3, 4).to(dtype)
    tensors = {"x": x, "turned": x.T, "row": x[1], "none": x[:0], "one": x[0, 0]}
    storage.write_tensors(path, tensors)
    again, _ = storage.read_tensors(path, framework="pt")
    for name, tensor in tensors.items():
        assert again[name].dtype == dtype
        assert again[name].shape == tensor.shape
        assert torch.equal(again[name].view(torch.uint8), tensor.contiguous().view(torch.uint8)) \
            if tensor.dim() else again[name].item() == tensor.item()  # fmt: skip
    with safe_open(path, "pt") as other:
        for name, tensor in tensors.items():
            assert other.get_tensor(name).dtype == dtype
            assert other.get_tensor(name).shape == tensor.shape


def test_bfloat16_is_widened_for_numpy(tmp_path):
    path = tmp_path / "f.safetensors"
    x = torch.tensor([1.5, -0.0, float("inf"), 3e38]).bfloat16()
    storage.write_tensors(path, {"x": x})
    np.testing.assert_array_equal(storage.read_tensors(path)[0]["x"], x.float().numpy())


def test_same_tensors_same_bytes(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    tensors = {"w": np.ones((2, 3), np.float32), "i": np.arange(4), "b": np.array(True)}
    storage.write_tensors(a, tensors, {"x": "1", "y": "2"})
    storage.write_tensors(b, dict(tensors), {"y": "2", "x": "1"})
    assert a.read_bytes() == b.read_bytes()
    assert int.from_bytes(a.read_bytes()[:8], "little") % 8 == 0


def test_only_what_is_wanted_is_read(tmp_path):
    path = tmp_path / "f"
    storage.write_tensors(path, {"model.w": np.ones(2), "optimizer.m": np.ones(3)})
    found, _ = storage.read_tensors(path, keep=lambda name: name.startswith("model."))
    assert list(found) == ["model.w"]


def test_what_has_no_form_is_refused(tmp_path):
    path = tmp_path / "f"
    for bad in (np.array(["a"]), np.array([object()]), np.zeros(2, np.complex128), [1.0], "x"):
        with pytest.raises(OptionError, match="'x' can't be stored"):
            storage.write_tensors(path, {"x": bad})
    assert not path.exists()


def raw(header, data=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(4,), span=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


HOSTILE = {
    "empty": b"",
    "short": b"\x08\0\0",
    "header longer than the file": raw({"x": entry()}, length=10**15),
    "header negative as signed": raw({"x": entry()}, length=2**64 - 1),
    "not json": raw(b"\x80\x04pickle....."),
    "deep": raw(b"[" * 50_000),
    "a list": raw([1]),
    "metadata of numbers": raw({"__metadata__": {"a": 1}, "x": entry()}),
    "past the end": raw({"x": entry(shape=(8,), span=(0, 32))}),
    "backwards": raw({"x": entry(span=(16, 0))}),
    "negative": raw({"x": entry(shape=(-4,), span=(-16, 0))}),
    "overflow": raw({"x": entry(shape=(2**40, 2**40), span=(0, 16))}),
    "huge shape": raw({"x": entry(shape=(2**61,), span=(0, 16))}),
    "true as a number": raw({"x": entry(shape=(True,), span=(0, 4))}),
    "text as a shape": raw({"x": {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]}}),
    "too many axes": raw({"x": entry(shape=[1] * 100 + [4])}),
    "overlap": raw({"x": entry(), "y": entry()}),
    "gap": raw({"x": entry(shape=(1,), span=(0, 4)), "y": entry(shape=(1,), span=(12, 16))}),
    "unread bytes": raw({"x": entry(shape=(1,), span=(0, 4))}),
    "dtype unknown": raw({"x": entry(dtype="OBJ")}),
    "dtype no text": raw({"x": entry(dtype=["F32"])}),
    "entry no dictionary": raw({"x": 3}),
    "fields missing": raw({"x": {}}),
    "truncated data": raw({"x": entry()}, data=b"\0" * 9),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("framework", ["np", "pt"])
def test_hostile_headers(tmp_path, case, framework):
    path = tmp_path / "f.safetensors"
    path.write_bytes(HOSTILE[case])
    with pytest.raises(FileError, match="no valid safetensors file") as caught:
        storage.read_tensors(path, framework=framework)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_flipped_byte_gives_numbers_or_an_error(tmp_path_factory, place, byte):
    path = tmp_path_factory.mktemp("t") / "f"
    storage.write_tensors(path, {"x": np.zeros((2, 2), np.float32), "flag": np.zeros(8, bool)})
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    try:
        found, _ = storage.read_tensors(path)
    except FileError:
        return
    assert sum(a.nbytes for a in found.values()) == 24


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "f"
    storage.write_tensors(path, {"x": np.zeros((2, 2))}, {"a": "b"})
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(FileError):
            storage.read_tensors(path)


def test_framework_is_checked(tmp_path):
    with pytest.raises(OptionError, match="'np' or 'pt'"):
        storage.read_tensors(tmp_path / "f", framework="tf")
