"""The digest of a data set is that of all its content."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from isogon import context
from isogon.data import batches, samples, transforms
from isogon.data.batches import Batches, SourceBatches
from isogon.data.samples import PIECE, MapSamples, Samples
from isogon.storage import file_digests

X = np.random.default_rng(0).integers(0, 255, (60, 4), np.uint8)
Y = np.arange(60) % 3


def made(x=X, y=Y, **options):
    return Samples(x, y, name="x", **options)


def test_every_sample_every_label_and_their_order_count():
    base = made().digest()
    assert made(X.copy(), Y.copy()).digest() == base
    assert Samples(X, Y, name="another name").digest() == base
    for i in (0, 17, 59):
        x, y = X.copy(), Y.copy()
        x[i, 3] ^= 1
        y[i] += 1
        assert made(x).digest() != base
        assert made(y=y).digest() != base
    assert made(X[::-1], Y[::-1]).digest() != base
    assert made(X.astype(np.float32)).digest() != base
    assert made(X.reshape(60, 2, 2)).digest() != base
    assert made(y=Y.astype(np.float32)).digest() != base
    assert made(divisor=255).digest() != base
    assert made(classes=["a", "b", "c"]).digest() != base
    assert made().subset(range(59)).digest() != base
    assert made().relabelled(torch.from_numpy(Y).flip(0)).digest() != base


class Own(Samples):
    """A user's kind of samples, which are read one by one."""


@pytest.mark.parametrize("kind", [Samples, Own])
def test_data_in_memory_count_to_their_last_sample_however_many_there_are(kind):
    x = np.zeros((3 * PIECE + 7, 2), np.float32)
    y = np.zeros(len(x), np.int64)
    base = kind(x, y, name="many").digest()
    for i in (PIECE - 1, PIECE, 2 * PIECE + 3, len(x) - 1):
        other, labels = x.copy(), y.copy()
        other[i, 1] = 1
        labels[i] = 1
        assert kind(other, y, name="many").digest() != base
        assert kind(x, labels, name="many").digest() != base


def test_parts_count_by_what_is_in_them_however_they_were_chosen():
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:9]
    part = made().subset(order)
    assert part.digest() == made(X[order], Y[order]).digest()
    assert made().limited(9, seed=0).digest() == part.digest()
    x = X.copy()
    x[[i for i in range(60) if i not in order]] = 0
    assert made(x).subset(order).digest() == part.digest(), "what is not in it does not count"


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_have_the_digest_of_their_samples(size):
    assert Batches(made(), size).digest() == made().digest()
    mapped = MapSamples(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), name="m")
    assert Batches(mapped, size).digest() == mapped.digest()
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), size)
    assert SourceBatches(loader).digest() == mapped.digest()


def test_users_data_count_to_the_last_sample():
    def source(last):
        x = torch.zeros(50, 2)
        x[-1, -1] = last
        return SourceBatches(list(zip(x.split(4), torch.zeros(50).split(4))))

    assert source(0).digest() == source(0).digest() != source(1).digest()
    data = [(torch.zeros(2), 0)] * 50
    assert MapSamples(data, name="a").digest() != MapSamples([*data[:49], (torch.zeros(2), 1)],
                                                             name="a").digest()  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda d: transforms.resized(d, 4), lambda d: transforms.resized(d, 5)),
        (lambda d: transforms.resized(d, 9, how="pad"), lambda d: transforms.resized(d, 9)),
        (
            lambda d: transforms.shuffled_pixels(d, seed=0),
            lambda d: transforms.shuffled_pixels(d, seed=1),
        ),
        (
            lambda d: transforms.shuffled_pixels(d, seed=0),
            lambda d: transforms.shuffled_pixels(d, seed=0, each=True),
        ),
        (
            lambda d: transforms.corrupted(d, 0.6, seed=0),
            lambda d: transforms.corrupted(d, 0.6, seed=1),
        ),
        (lambda d: transforms.keep_classes(d, [0]), lambda d: transforms.keep_classes(d, [1])),
        (lambda d: d.mapped(lambda x, i: x + 1), lambda d: d.mapped(lambda x, i: x + 2)),
        (
            lambda d: transforms.shuffled_pixels(d.subset([0, 1]), seed=0, each=True),
            lambda d: transforms.shuffled_pixels(d.subset([0, 2]), seed=0, each=True),
        ),
    ],
)
def test_transformed_data_count_by_what_is_done_to_them(a, b):
    def data(change=0):
        x = np.random.default_rng(1).integers(0, 9, (12, 1, 6, 6), np.uint8)
        x[-1, 0, 0, 0] += change
        return Samples(x, np.arange(12) % 3, name="i", divisor=255, classes=["0", "1", "2"])

    assert a(data()).digest() == a(data()).digest()
    assert a(data()).digest() != b(data()).digest()
    assert a(data()).digest() != data().digest()


def test_a_transformation_without_a_key_is_read_in_full():
    seen = []

    def look(x, index):
        seen.extend(index.tolist())
        return x

    data = made().mapped(look)
    seen.clear()
    assert data.digest() == made().mapped(lambda x, i: x).digest()
    assert seen == list(range(60))
    data.digest()
    assert len(seen) == 60, "asked again, it is remembered"


# --------------------------------------------------------------------------- files


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.tobytes())


def write_mnist(root, last=0):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    images = np.zeros((600, 28, 28), np.uint8)
    images[-1, -1, -1] = last
    write_idx(raw / "t10k-images-idx3-ubyte", images)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(600, dtype=np.uint8) % 10)


@pytest.mark.parametrize("spec", ["mnist(test)", "rotated_mnist(test)", "cluttered_mnist(test)"])
def test_mnist_counts_to_its_last_pixel(tmp_path, spec):
    write_mnist(tmp_path)
    first = samples(spec, root=tmp_path).digest()
    assert samples(spec, root=tmp_path).digest() == first
    write_mnist(tmp_path, last=1)
    assert samples(spec, root=tmp_path).digest() != first
    if spec == "mnist(test)":
        write_mnist(tmp_path / "b", last=2)
        assert (
            samples("mnist(test, 599)", root=tmp_path).digest()
            == samples("mnist(test, 599)", root=tmp_path / "b").digest()
        )


def write_images(folder, changed=-1):
    for i in range(12):
        pixels = np.full((8, 8, 3), i * 9 + (i == changed), np.uint8)
        path = folder / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=0)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for p in sorted(folder.rglob("*.png")):
            file.write(p, p.relative_to(folder).as_posix())


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("large", [False, True], ids=["in memory", "in a cache file"])
def test_image_folders_count_to_the_last_image(tmp_path, monkeypatch, kind, large):
    if large:
        monkeypatch.setattr("isogon.data.images.MEMORY", 0)
    place = tmp_path / ("photos" if kind == "folder" else "photos.zip")

    def write(changed=-1):
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)
        write_images(tmp_path / "photos", changed)
        if kind == "zip":
            zipped(tmp_path / "photos", place)

    def found(spec=f"imagefolder({str(place)!r})"):
        data = samples(spec)
        return data.digest(), data.take(range(len(data)))[0].sum().item()

    with context.use(cache_root=tmp_path / "cache"):
        write()
        first = found()
        sizes = {p: p.stat().st_size for p in (tmp_path / "photos").rglob("*.png")}
        assert found() == first
        write(changed=11)
        assert {p: p.stat().st_size for p in sizes} == sizes, "of the same size"
        second = found()
        assert second[0] != first[0]
        assert second[1] != first[1], "not the pixels that were decoded before"
        write()
        assert found() == first
        assert found(f"imagefolder({str(place)!r}, channels=1)")[0] != first[0]
        assert found(f"imagefolder({str(place)!r}, size=4)")[0] != first[0]
        assert found(f"imagefolder({str(place)!r}, all, 11)")[0] != first[0]


def test_an_image_replaced_with_its_times_kept_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("isogon.data.images.MEMORY", 0)
    monkeypatch.setattr(file_digests, "SETTLED", -(10**18))  # trusted at once
    write_images(tmp_path / "photos")
    write_images(tmp_path / "other", changed=11)
    mine, theirs = (tmp_path / d / "class1" / "11.png" for d in ("photos", "other"))
    spec = f"imagefolder({str(tmp_path / 'photos')!r})"
    with context.use(cache_root=tmp_path / "cache"):
        first = samples(spec)
        times = mine.stat()
        mine.write_bytes(theirs.read_bytes())
        os.utime(mine, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert mine.stat().st_size == times.st_size
        second = samples(spec)
    assert first.digest() != second.digest()
    assert not torch.equal(first.take([11])[0], second.take([11])[0])


@pytest.mark.parametrize("split", ["all", "test"])
def test_npz_and_sounds_count_to_the_last_value(tmp_path, split):
    import wave

    def write(change):
        x = np.zeros((500, 3), np.float32)
        x[400:] = change
        np.savez(tmp_path / "d.npz", x=x, y=np.arange(500) % 2)
        for i in range(5):
            path = tmp_path / "sounds" / "a" / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 8000, 4, "NONE", ""))
                file.writeframes(struct.pack("<4h", 0, 0, 0, int(change * (i == 4))))

    specs = [
        f"npz({str(tmp_path / 'd.npz')!r}, {split})",
        f"audiofolder({str(tmp_path / 'sounds')!r}, {split}, length=4)",
    ]
    write(0)
    before = [batches(s).digest() for s in specs]
    assert [batches(s).digest() for s in specs] == before
    write(1)
    after = [batches(s).digest() for s in specs]
    assert all(a != b for a, b in zip(before, after))
