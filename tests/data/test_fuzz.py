"""Damaged files of every kind: right data, or an error of isogon's own on one line."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from isogon import context
from isogon.data import batches
from isogon.errors import IsogonError


def picture():
    data = io.BytesIO()
    Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)).save(data, "PNG")
    return data.getvalue()


def zipped(names, method):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, held in names.items():
            file.writestr(name, held)
    return data.getvalue()


def arrays():
    data = io.BytesIO()
    np.savez_compressed(data, x=np.arange(40.0).reshape(10, 4), y=np.arange(10) % 2)
    return data.getvalue()


IMAGES = {f"test/{c}/{i}.png": picture() for c in "ab" for i in range(2)}
KINDS = {
    "stored.zip": zipped(IMAGES, zipfile.ZIP_STORED),
    "deflated.zip": zipped(IMAGES, zipfile.ZIP_DEFLATED),
    "a.npz": arrays(),
    "cifar-10-batches-py/test_batch": pickle.dumps(
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2
    ),
    "MNIST/raw/t10k-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3),
}
SPECS = {"cifar-10-batches-py/test_batch": "cifar10", "MNIST/raw/t10k-labels-idx1-ubyte": "mnist"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("fuzz")
    for name in KINDS:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">HBBIII", 0, 8, 3, 3, 28, 28) + bytes(3 * 28 * 28)
    (base / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(images)
    return base


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(KINDS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_damage(folder, name, changes, cut):
    data = bytearray(KINDS[name])
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    if cut is not None:
        data = data[: int(cut * len(data))]
    (folder / name).write_bytes(data)
    spec = SPECS.get(name) or str(folder / name)
    message = ""
    try:
        with context.use(cache_root=folder / "cache", data_root=folder):
            list(batches(spec))
    except IsogonError as error:
        message = str(error)
    assert "\n" not in message
    assert changes or cut is not None or not message
    assert not list(folder.rglob("*.part"))
