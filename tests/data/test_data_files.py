"""CIFAR pickles, idx, npz and wav files: read right, and nothing in them runs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import wave
import zipfile

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.data import batches, samples
from isogon.data.transforms import splits
from isogon.data.unpickle import read_pickle
from isogon.errors import DataError, FileError, OptionError
from isogon.nets.accuracy import accuracy
from isogon.training.config import FitConfig
from isogon.training.evaluation import loss_of

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (6, 3072)).astype(np.uint8)
LABELS = [0, 1, 2, 3, 9, 9]


def oneline(error):
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


# --------------------------------------------------------------------------- CIFAR


def write_cifar(root, protocol=2, **changes):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    held = {b"batch_label": b"testing", b"data": IMAGES, b"labels": LABELS,
            b"filenames": [b"a.png"] * 6}  # fmt: skip
    held.update({k.encode(): v for k, v in changes.items()})
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(held, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar10(tmp_path, protocol):
    # protocol 5 stores arrays through numpy's own helper, which is not among the stand-ins
    write_cifar(tmp_path, protocol if protocol < 5 else 4)
    data = samples("cifar10(test)", root=tmp_path)
    x, y = data.take(range(6))
    assert y.tolist() == LABELS
    assert torch.equal(x, torch.from_numpy(IMAGES.reshape(6, 3, 32, 32)).float() / 255)
    assert data.classes[9] == "truck"
    assert len(samples("cifar10(train)", root=tmp_path)) == 30
    assert len(samples("cifar10(all, 31)", root=tmp_path)) == 31


def test_cifar_as_python_2_wrote_it(tmp_path):
    """Protocol 2 with byte strings, the opcodes of the published files."""
    folder = write_cifar(tmp_path)
    shape = struct.pack("<BiB", ord("J"), 6, ord("M")) + struct.pack("<H", 3072)
    data = IMAGES.tobytes()
    body = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
        b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01" + shape + b"\x86"
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(data)) + data + b"tbU\x06labels"
        b"]q\x08(K\x00K\x01K\x02K\x03K\x09K\x09eu."
    )
    (folder / "test_batch").write_bytes(body)
    found = samples("cifar10(test)", root=tmp_path)
    assert found.labels.tolist() == LABELS
    assert torch.equal(found[5][0].flatten(), torch.from_numpy(IMAGES[5]).float() / 255)


def test_cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    held = {b"data": IMAGES, b"fine_labels": [99, 1, 2, 3, 4, 5], b"coarse_labels": [19] * 6}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(held, protocol=2))
    fine = samples("cifar100(test)", root=tmp_path)
    assert fine.labels[0] == 99
    assert len(fine.classes) == 100
    names = {b"fine_label_names": [b"apple"] * 100, b"coarse_label_names": [b"fruit"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    coarse = samples("cifar100(test, labels=coarse)", root=tmp_path)
    assert coarse.labels.tolist() == [19] * 6
    assert coarse.classes == ["fruit"] * 20


class Evil:
    """Runs a command when unpickled by Python's own unpickler."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_code(tmp_path, protocol):
    mark = tmp_path / "ran"
    folder = write_cifar(tmp_path)
    evil = {b"data": IMAGES, b"labels": LABELS, b"x": Evil(mark)}
    (folder / "test_batch").write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(FileError, match=r"nothing of it was run|no valid") as error:
        batches("cifar10(test)", root=tmp_path)
    oneline(error)
    assert not mark.exists()


BAD = {
    "builtins": b"\x80\x02c__builtin__\neval\nU\x011\x85R.",
    "attribute": b"\x80\x02cnumpy\nndarray\nq\x00}U\x08__dict__NsbN.",
    "instance": b"(iposix\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "blob": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x7f.",
    "bytearray": b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
    "string": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "object dtype": b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
    "array by hand": b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
    "no state": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
    "function": b"\x80\x02cnumpy\ndtype\n.",
    "empty": b"",
    "stop": b".",
    "short": b"\x80\x02}q\x01(U\x04da",
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_pickles_are_refused_in_little_memory(tmp_path, name):
    path = tmp_path / "p"
    path.write_bytes(BAD[name])
    with pytest.raises(FileError) as error:
        read_pickle(path)
    oneline(error)


def test_a_memo_index_can_not_fill_memory(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")  # 16 GB of memo in the C unpickler
    with pytest.raises(FileError, match="place 2147483647 in a memo of 0"):
        read_pickle(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 1, 2, 3, 9, 10]},
        {"labels": [0]},
        {"labels": "abcdef"},
        {"data": IMAGES[:, :7]},
        {"data": IMAGES.astype(np.float64)},
        {"data": 3},
    ],
)
def test_cifar_of_other_contents(tmp_path, changes):
    write_cifar(tmp_path, **changes)
    with pytest.raises(FileError) as error:
        batches("cifar10(test)", root=tmp_path)
    oneline(error)


@pytest.mark.parametrize("name", ["cifar10", "cifar100(test)", "fashion_mnist", "mnist(train)"])
def test_missing_data_says_how_to_get_it(tmp_path, name):
    with pytest.raises(FileError, match="--data-root") as error:
        batches(name, root=tmp_path)
    assert str(tmp_path) in str(error.value)
    oneline(error)


# --------------------------------------------------------------------------- idx


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist(tmp_path, zipped):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    x = RNG.randint(0, 256, (4, 28, 28)).astype(np.uint8)
    y = np.array([0, 9, 2, 3], np.uint8)
    for stem in ("train", "t10k"):
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            data, name = idx(array), f"{stem}-{kind}-ubyte"
            (raw / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    found = samples("fashion_mnist(test)", root=tmp_path)
    assert torch.equal(found.take(range(4))[0][:, 0], torch.from_numpy(x).float() / 255)
    assert found.classes[9] == "Ankle boot"
    assert len(samples("fashion_mnist(all)", root=tmp_path)) == 8


@pytest.mark.parametrize("spoil", ["short", "long", "lie", "magic", "empty", "gzip"])
def test_damaged_idx(tmp_path, spoil):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    good = idx(np.zeros((4, 28, 28), np.uint8))
    data = {
        "short": good[:-1],
        "long": good + b"\0",
        "lie": struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31) + b"\0" * 9,
        "magic": b"PK" + good[2:],
        "empty": b"",
        "gzip": b"\x1f\x8bjunk",
    }[spoil]
    suffix = ".gz" if spoil == "gzip" else ""
    (raw / f"t10k-images-idx3-ubyte{suffix}").write_bytes(data)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(FileError) as error:
        batches("mnist(test)", root=tmp_path)
    oneline(error)


@pytest.mark.shared
def test_rotated_and_cluttered_mnist(shared):
    root = shared / "data"
    plain = samples("mnist(test, 6)", root=root).take(range(6))
    data = samples("rotated_mnist(test, 6)", root=root)
    x, y = data.take(range(6))
    assert torch.equal(y, plain[1])
    assert torch.equal(x, samples("rotated_mnist(test, 6)", root=root).take(range(6))[0])
    assert torch.allclose(x.sum((1, 2, 3)), plain[0].sum((1, 2, 3)), rtol=0.03)
    assert not torch.allclose(x, plain[0])
    other = samples("rotated_mnist(test, 6, seed=1)", root=root).take(range(6))[0]
    assert not torch.equal(x, other)
    still = samples("rotated_mnist(test, 6, degrees=0.0)", root=root).take(range(6))[0]
    assert torch.allclose(still, plain[0], atol=1e-5)
    made = samples("cluttered_mnist(test, 6)", root=root)
    x, y = made.take(range(6))
    assert x.shape == (6, 1, 60, 60)
    assert torch.equal(y, plain[1])
    assert torch.equal(x[4], made[4][0])
    assert (x.sum((1, 2, 3)) > plain[0].sum((1, 2, 3)) - 1e-3).all()
    bare = samples("cluttered_mnist(test, 6, clutter=0)", root=root).take(range(6))[0]
    windows = bare.unfold(2, 28, 1).unfold(3, 28, 1)[:, 0].reshape(6, -1, 28, 28)
    assert all((w == p[0]).all((1, 2)).any() for w, p in zip(windows, plain[0]))
    with pytest.raises(OptionError):
        samples("cluttered_mnist(test, size=20)", root=root)


# --------------------------------------------------------------------------- npz


def test_npz_splits_and_kinds(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    whole = samples(str(path))
    assert len(whole) == 20
    assert whole.take([3])[0].dtype == torch.float64  # passed through as it is
    test, train = (samples(f"npz('{path}', {s})") for s in ("test", "train"))
    assert (len(train), len(test)) == (16, 4)
    assert test.labels.tolist() == [0, 1, 0, 1]
    np.savez_compressed(
        path,
        x_train=np.zeros((5, 8, 8), np.uint8), y_train=np.zeros(5),
        x_test=np.full((3, 8, 8), 255, np.uint8), y_test=np.ones(3),
    )  # fmt: skip
    test = samples(f"npz('{path}', test)")
    assert test.shape == (1, 8, 8)
    assert float(test[0][0].min()) == 1
    assert test.labels.dtype == torch.float64
    assert len(samples(str(path))) == 8
    assert len(samples(str(path), split="train")) == 5


@pytest.mark.parametrize(
    ("x", "shape", "top"),
    [
        (np.full((4, 6, 5, 3), 255, np.uint8), (3, 6, 5), 1.0),
        (np.full((4, 3, 6, 5), 255, np.uint8), (3, 6, 5), 1.0),
        (np.full((4, 7), 9, np.int64), (7,), 9),
        (np.full((4, 1, 7), 0.5, np.float32), (1, 7), 0.5),
        (np.full((4, 7), 200, np.uint8), (7,), 200),
        (np.asfortranarray(np.full((4, 7), 2, ">f4")), (7,), 2),
    ],
)
def test_npz_inputs(tmp_path, x, shape, top):
    np.savez(tmp_path / "a.npz", inputs=x)
    found = samples(str(tmp_path / "a.npz"))
    assert found.shape == shape
    assert float(found[0][0].max()) == top
    assert found.labels.isnan().all(), "without labels"


def header(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (117 - len(text)) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "member",
    [
        header((10**12,)) + b"\0" * 8,
        header((2**40, 2**40)) + b"\0" * 8,
        header((-1,)) + b"\0" * 8,
        header((3,)) + b"\0" * 8,
        header((1,)) + b"\0" * 16,
        header((1,), "|O") + pickle.dumps([1]),
        header((1,), "|V8") + b"\0" * 8,
        header(()) + b"\0" * 8,
        header("__import__('os').system('true')") + b"\0" * 8,
        b"\x93NUMPY\x09\x00junk",
        b"junk",
        b"",
    ],
    ids=range(12),
)
def test_npz_headers_that_lie(tmp_path, member):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", member)
    with pytest.raises(FileError) as error:
        batches(str(path))
    oneline(error)


def test_npz_that_can_not_be_used(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, z=np.zeros(3))
    with pytest.raises(DataError, match="no inputs"):
        batches(str(path))
    np.savez(path, x=np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="NaN"):
        batches(str(path))
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(DataError, match="different number"):
        batches(str(path))
    np.savez(path, x=np.zeros((0, 2)), y=np.zeros(0))
    with pytest.raises(DataError, match="empty"):
        batches(str(path))
    np.savez(path, x=np.array([{}], dtype=object), y=np.zeros(1))
    with pytest.raises(FileError):
        batches(str(path))


def test_npz_without_labels(tmp_path):
    """No class is made up: what reads labels says that there are none."""
    path = tmp_path / "a.npz"
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("f4")
    np.savez(path, x=x)
    assert samples(str(path)).labels.isnan().all()
    halves = [samples(f"npz('{path}', {s})") for s in ("train", "test")]
    assert [len(h) for h in halves] == [16, 4]
    assert np.array_equal(halves[1].take(slice(None))[0], x[4::5])
    net = ig.load("mlp(4, inputs=4, classes=3)")
    assert ig.data_matrix(net, str(path)).table["label"].isna().all()
    for reads in (
        lambda: accuracy(net, batches(str(path))),
        lambda: ig.reset(net, None, str(path), random=1),
        lambda: samples(f"classes('{path}', 1)"),
        lambda: loss_of(FitConfig(), halves[0].labels[:1]),
        lambda: loss_of(FitConfig(loss="mse"), halves[0].labels[:1]),
        lambda: splits(str(path), validation=0.2, stratified=True),
        lambda: splits(str(path), label_noise=0.2),
    ):
        with pytest.raises(DataError, match="the samples have no labels"):
            reads()
    np.savez(path, x_train=x, y_train=np.arange(20) % 3, x_test=x[:5])
    assert samples(str(path), split="train").labels.tolist() == [i % 3 for i in range(20)]
    assert samples(str(path), split="test").labels.isnan().all()
    with pytest.raises(DataError, match=r"5 of 25 values, the first at sample 20"):
        accuracy(net, batches(str(path)))


def test_npz_of_extended_precision(tmp_path):
    x = np.linspace(0, 1, 12).reshape(6, 2)
    np.savez(tmp_path / "a.npz", x=x.astype(np.longdouble), y=np.arange(6).astype(np.longdouble))
    found = samples(str(tmp_path / "a.npz"))
    assert found.labels.tolist() == list(range(6))
    assert np.array_equal(found.take(slice(None))[0], x)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(3) + 1j, "complex128.*channels"),
        (np.array(["cat", "dog", "eel"]), r"<U3.*numpy\.unique"),
        (np.array([b"cat", b"dog", b"eel"]), r"S3.*numpy\.unique"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "datetime64.*Convert"),
        (np.array([{}] * 3, object), "object.*unpickled"),
        (np.zeros(3, [("a", "f4")]), "'a'.*Convert"),
    ],
)
@pytest.mark.parametrize("key", ["x", "y"])
def test_npz_of_no_numbers_says_so(tmp_path, values, words, key):
    arrays = {"x": np.zeros(3), "y": np.zeros(3), key: values}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileError, match=f"array '{key}' in .* holds no real numbers.*{words}") as e:
        samples(str(tmp_path / "a.npz"))
    assert "damaged" not in str(e.value)


# --------------------------------------------------------------------------- sound


def sound(values, width=2, channels=1):
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((channels, width, 8000, 0, "NONE", "none"))
        if width == 1:
            raw = (np.round(np.asarray(values) * 127) + 128).astype(np.uint8).tobytes()
        else:
            scaled = np.round(np.asarray(values) * (2 ** (8 * width - 1) - 1)).astype("<i4")
            raw = scaled.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        file.writeframes(raw)
    return data.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_audiofolder(tmp_path, width):
    for c, level in (("hum", 0.5), ("silence", -0.25)):
        (tmp_path / "s" / c).mkdir(parents=True)
        (tmp_path / "s" / c / "0.wav").write_bytes(sound([level] * 30, width))
        stereo = sound([level, 0.0] * 30, width, channels=2)
        (tmp_path / "s" / c / "1.wav").write_bytes(stereo)
    found = samples(f"audiofolder('{tmp_path / 's'}', length=40)")
    x, y = found.take(range(4))
    assert found.shape == (1, 40)
    assert y.tolist() == [0, 0, 1, 1]
    assert torch.allclose(x[0, 0, :30], torch.tensor(0.5), atol=0.01)
    assert torch.allclose(x[1, 0, :30], torch.tensor(0.25), atol=0.01)
    assert torch.allclose(x[2, 0, :30], torch.tensor(-0.25), atol=0.01)
    assert not x[:, :, 30:].any()
    (tmp_path / "s" / "hum" / "2.wav").write_bytes(b"RIFFjunk")
    with pytest.raises(FileError, match=r"hum/2\.wav") as error:
        batches(f"audiofolder('{tmp_path / 's'}')")
    oneline(error)
