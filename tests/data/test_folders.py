"""Image folders and zips: layouts, splits, the cache, and files that mean harm."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from isogon import context
from isogon.data import archive as archives
from isogon.data import batches, images, samples
from isogon.data.archive import Archive
from isogon.errors import DataError, FileError, OptionError, SpecError


@pytest.fixture(autouse=True)
def cache(tmp_path):
    with context.use(cache_root=tmp_path / "cache"):
        yield tmp_path / "cache"


def picture(value, size=(6, 5), kind="PNG", mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 2, 3)).save(data, kind)
    return data.getvalue()


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


FILES = {
    f"{split}/{c}/{i}.png": picture(10 * k + i)
    for split, n in (("train", 4), ("test", 2))
    for k, c in enumerate(("cat", "dog"))
    for i in range(n)
}


@pytest.mark.parametrize("make", [write_folder, write_zip])
@pytest.mark.parametrize("wrap", ["", "photos/"])
def test_a_folder_and_a_zip_are_the_same(tmp_path, make, wrap):
    files = {wrap + name: data for name, data in FILES.items()}
    files |= {f"{wrap}test/cat/notes.txt": b"x", "__MACOSX/test/cat/0.png": b"junk",
              f"{wrap}test/cat/.hidden.png": b"junk"}  # fmt: skip
    path = make(tmp_path / ("a.zip" if make is write_zip else "a"), files)
    test = samples(f"imagefolder('{path}', test)")
    assert len(test) == 4
    assert test.classes == ["cat", "dog"]
    assert test.shape == (3, 5, 6)
    x, y = test.take(range(4))
    assert y.tolist() == [0, 0, 1, 1]
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 10, 11]
    assert torch.equal(x[:, 2] * 255, torch.full((4, 5, 6), 3.0))
    assert len(samples(f"imagefolder('{path}')")) == 4
    assert len(samples(f"imagefolder('{path}', train)")) == 8
    assert len(samples(f"imagefolder('{path}', all)")) == 12
    assert samples(f"imagefolder('{path}', test, 2, seed=0)").shape == (3, 5, 6)
    with pytest.raises(SpecError, match="val"):
        samples(f"imagefolder('{path}', val)")


def test_bare_paths_are_data(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    assert batches(str(path)).count == 4
    assert torch.equal(batches(f"{path}[2]").first(1)[1], torch.tensor([1]))
    assert batches(str(write_folder(tmp_path / "b", FILES))).count == 4
    assert batches("a.zip", root=tmp_path).count == 4


def test_without_split_folders_every_fifth_is_test(tmp_path):
    files = {f"{c}/{i}.png": picture(i) for c in "ab" for i in range(10)}
    path = write_zip(tmp_path / "a.zip", files)
    train, test = (samples(f"imagefolder('{path}', {s})") for s in ("train", "test"))
    assert len(samples(str(path))) == 20
    assert (len(train), len(test)) == (16, 4)
    assert test.labels.tolist() == [0, 0, 1, 1]
    values = (test.take(range(4))[0][:, 0, 0, 0] * 255).round().tolist()
    assert values == [4, 9, 4, 9]


def test_sizes_and_channels(tmp_path):
    files = {"a/0.png": picture(50, (8, 4)), "a/1.png": picture(60, (5, 9), mode="L"),
             "a/2.jpg": picture(70, (6, 6), "JPEG")}  # fmt: skip
    path = write_zip(tmp_path / "a.zip", files)
    with pytest.raises(DataError, match="different size"):
        batches(str(path))
    assert samples(f"imagefolder('{path}', size=4)").shape == (3, 4, 4)
    grey = samples(f"imagefolder('{path}', size=4, channels=1)")
    assert grey.shape == (1, 4, 4)
    assert float((grey[1][0] * 255 - 60).abs().max()) < 1
    for bad in ("channels=2", "size=0"):
        with pytest.raises(OptionError):
            samples(f"imagefolder('{path}', {bad})")


def test_decoded_once_into_a_cache_that_notices_changes(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(images, "MEMORY", 0)
    path = write_zip(tmp_path / "a.zip", FILES)
    first = samples(str(path)).take(range(4))[0]
    made = list((cache / "images").iterdir())
    assert len(made) == 1
    assert not [p for p in made if ".part" in p.name]
    calls = []
    monkeypatch.setattr(
        images.ImageStore, "_decode",
        lambda self, name, shape, old=images.ImageStore._decode: calls.append(name)
        or old(self, name, shape),
    )  # fmt: skip
    assert torch.equal(samples(str(path)).take(range(4))[0], first)
    assert len(calls) == 1  # the first image, for its shape
    made[0].write_bytes(made[0].read_bytes()[:-7])  # a truncated cache is made again
    assert torch.equal(samples(str(path)).take(range(4))[0], first)
    write_zip(path, {**FILES, "test/cat/0.png": picture(200)})
    changed = samples(str(path)).take(range(4))[0]
    assert not torch.equal(changed, first)
    assert len(list((cache / "images").iterdir())) == 2


def test_without_a_writable_cache_it_still_works(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MEMORY", 0)
    (tmp_path / "file").write_text("in the way")
    path = write_zip(tmp_path / "a.zip", FILES)
    with context.use(cache_root=tmp_path / "file"):
        assert batches(str(path)).count == 4
    monkeypatch.setattr(images, "MAX_CACHE", 0)  # too large to cache: decoded on demand
    lazy = samples(str(path))
    assert isinstance(lazy._store, images.ImageStore)
    assert lazy.take([3, 0])[1].tolist() == [1, 0]


def read_first(path_or_archive, queue):
    queue.put(path_or_archive.read("test/cat/0.png"))


def test_the_handle_survives_pickling_and_forking(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    one = Archive(path)
    wanted = one.read("test/cat/0.png")
    again = pickle.loads(pickle.dumps(one))
    assert again._handle is None
    assert again.read("test/cat/0.png") == wanted
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    children = [fork.Process(target=read_first, args=(one, queue)) for _ in range(3)]
    for child in children:
        child.start()
    assert all(queue.get(timeout=20) == wanted for _ in children)
    for child in children:
        child.join()
    assert one.read("test/cat/0.png") == wanted


def test_workers_decode_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_CACHE", 0)
    monkeypatch.setattr(images, "MEMORY", 0)
    path = write_zip(tmp_path / "a.zip", FILES)
    plain = list(batches(str(path), batch_size=3))
    both = list(batches(str(path), batch_size=3, workers=2))
    assert all(torch.equal(a, b) for p, q in zip(plain, both, strict=True) for a, b in zip(p, q))


# --------------------------------------------------------------------------- harm


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "test/cat/../../../evil.png", "/etc/evil.png", "C:/evil.png", "a\\b.png"],
)
def test_a_path_that_escapes(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {**FILES, name: picture(1)})
    if "\\" in name:  # zipfile turns backslashes into slashes on writing on some systems
        data = path.read_bytes().replace(b"a/b.png", b"a\\b.png")
        path.write_bytes(data)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(FileError, match="escapes") as error:
        batches(f"imagefolder('{path}', test)")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_bomb(tmp_path):
    bomb = {"test/a/0.png": b"\0" * (80 * 2**20)}
    path = write_zip(tmp_path / "a.zip", bomb, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="far more than it holds"):
        batches(str(path))


def test_a_member_that_lies_about_its_size(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    size = len(FILES["test/cat/0.png"]).to_bytes(4, "little")
    data = path.read_bytes()
    path.write_bytes(data.replace(size * 2, (2**31).to_bytes(4, "little") * 2))
    with pytest.raises(FileError):
        batches(str(path))


def test_a_link_and_a_password(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("test/cat/0.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(FileError, match="symbolic link"):
        batches(str(path))
    data = bytearray(write_zip(path, FILES).read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="encrypted"):
        batches(str(path))


@pytest.mark.parametrize("spoil", ["header", "middle", "end", "text", "empty"])
def test_damaged_files(tmp_path, spoil):
    path = write_zip(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    if spoil == "header":
        data[:4] = b"XXXX"
    elif spoil == "middle":  # inside every member's bytes: the checksum shows it
        for at in range(0, len(data)):
            if data[at : at + 4] == b"IDAT":
                data[at + 6] ^= 0xFF
    elif spoil == "end":
        data = data[: len(data) // 2]
    elif spoil == "text":
        data = bytearray(b"not a zip at all")
    else:
        data = bytearray()
    path.write_bytes(data)
    with pytest.raises(FileError) as error:
        batches(f"imagefolder('{path}', all)")
    assert "\n" not in str(error.value)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", picture(1)[:40], picture(1, kind="JPEG")[:200], POSTSCRIPT],
    ids=["empty", "junk", "short png", "short jpeg", "postscript"],
)
def test_images_that_are_none(tmp_path, data, cache, monkeypatch):
    monkeypatch.setattr(images, "MEMORY", 0)
    path = write_zip(tmp_path / "a.zip", {**FILES, "test/dog/1.png": data})
    with pytest.raises(FileError, match=r"dog/1\.png") as error:
        batches(str(path))
    assert "\n" not in str(error.value)
    assert not cache.exists() or not list((cache / "images").iterdir())


def test_an_image_of_absurd_size(tmp_path):
    data = bytearray(picture(1))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path = write_zip(tmp_path / "a.zip", {"a/0.png": bytes(data)})
    with pytest.raises(FileError, match=r"a/0\.png"):
        batches(str(path))


def test_nothing_there(tmp_path):
    with pytest.raises(FileError, match="--data-root"):
        batches("imagefolder('no-such-folder')")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        batches(f"imagefolder('{tmp_path / 'empty'}')")
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    with pytest.raises(DataError, match="no images"):
        batches(str(path))


def test_large_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER", 10)
    for path in (write_zip(tmp_path / "a.zip", FILES), write_folder(tmp_path / "b", FILES)):
        with pytest.raises(FileError, match="too large"):
            batches(str(path))


# --------------------------------------------------------------------------- known layouts


def test_tiny_imagenet(tmp_path):
    files = {f"train/n{c}/images/n{c}_{i}.JPEG": picture(c, (64, 64), "JPEG")
             for c in (1, 2) for i in range(3)}  # fmt: skip
    files |= {f"val/images/val_{i}.JPEG": picture(9, (64, 64), "JPEG") for i in range(2)}
    files["val/val_annotations.txt"] = b"val_0.JPEG\tn2\t0\t0\t5\t5\nval_1.JPEG\tn1\t0\t0\t5\t5\n"
    write_folder(tmp_path / "tiny-imagenet-200", files)
    test, train = (samples(f"tiny_imagenet({s})", root=tmp_path) for s in ("test", "train"))
    assert test.labels.tolist() == [1, 0]
    assert test.classes == train.classes == ["n1", "n2"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.shape == (3, 64, 64)
    zipped = {f"tiny-imagenet-200/{k}": v for k, v in files.items()}
    (tmp_path / "z").mkdir()
    write_zip(tmp_path / "z" / "tiny-imagenet-200.zip", zipped)
    again = samples("tiny_imagenet(val)", root=tmp_path / "z")
    assert torch.equal(again.take(range(2))[0], test.take(range(2))[0])
    (tmp_path / "tiny-imagenet-200/val/val_annotations.txt").write_text("val_7.JPEG\tn1\n")
    with pytest.raises(FileError, match="laid out"):
        samples("tiny_imagenet(test)", root=tmp_path)
    with pytest.raises(FileError, match="--data-root"):
        samples("tiny_imagenet", root=tmp_path / "cache")


def test_imagenet(tmp_path):
    files = {f"{s}/n{c}/{i}.JPEG": picture(c, (90 + c, 70), "JPEG")
             for s in ("train", "val") for c in (1, 2) for i in range(2)}  # fmt: skip
    write_folder(tmp_path / "imagenet", files)
    test = samples("imagenet(test, size=56)", root=tmp_path)
    assert test.shape == (3, 56, 56)
    assert test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.shared
def test_ten_thousand_images(shared):
    path = shared / "data/cifar10-imagefolder.zip"
    start = time.process_time()
    b = batches(f"imagefolder('{path}', test)")
    counts = np.zeros(10, int)
    for x, y in b:
        counts += np.bincount(y, minlength=10)
        assert x.shape[1:] == (3, 32, 32)
    assert counts.tolist() == [1000] * 10
    # Alone on a core it takes 3 s, and 1 s once decoded (benchmarks/data.py); twice that is
    # left for machines that are busy or slow.
    assert time.process_time() - start < 12
    again = time.process_time()
    assert sum(len(x) for x, _ in batches(f"imagefolder('{path}', test)")) == 10_000
    assert time.process_time() - again < 6
