"""Classes of image folders: over all splits, empty and linked ones too, in folders and in zips."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from isogon import context
from isogon.data import archive, samples
from isogon.data.archive import Archive, Folder, open_source
from isogon.errors import DataError, FileError, SpecError


@pytest.fixture(autouse=True)
def cache(tmp_path):
    with context.use(cache_root=tmp_path / "cache"):
        yield


def picture(value):
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(data, "PNG")
    return data.getvalue()


def tree(path, *names):
    """A folder; names that end in / are folders, values of pictures count up."""
    for i, name in enumerate(names):
        place = path / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(picture(i) if name.endswith(".png") else b"text")
    return path


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for base, folders, files in os.walk(folder):
            for name in (*(f"{f}/" for f in folders), *files):
                place = os.path.join(base, name)
                file.write(place, os.path.relpath(place, folder) + ("/" if name[-1] == "/" else ""))
    return path


def read(path, split):
    found = samples(f"imagefolder('{path}', {split})")
    return found.classes, [found.classes[i] for i in found.labels.tolist()]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("wrap", ["", "photos/"])
@pytest.mark.parametrize(
    "third", [(), ("test/b/",), ("test/b/.gitkeep",)], ids=["missing", "empty", "hidden file"]
)
def test_a_class_that_a_split_lacks_shifts_no_label(tmp_path, kind, wrap, third):
    names = ("train/a/0.png", "train/b/0.png", "train/c/0.png", "test/a/0.png", "test/c/0.png")
    path = tree(tmp_path / "d", *(wrap + n for n in (*names, *third)))
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    assert read(path, "train") == (["a", "b", "c"], ["a", "b", "c"])
    assert read(path, "test") == (["a", "b", "c"], ["a", "c"])
    assert read(path, "all") == (["a", "b", "c"], ["a", "a", "b", "c", "c"])


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_classes_come_from_every_split(tmp_path, kind):
    names = ("train/b/0.png", "val/a/0.png", "test/c/0.png", "test/d/", "train/a/")
    path = tree(tmp_path / "d", *names)
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    for split, seen in (("train", "b"), ("val", "a"), ("test", "c")):
        assert read(path, split) == (["a", "b", "c", "d"], [seen])


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_empty_class_stands_where_there_are_no_splits(tmp_path, kind):
    path = tree(tmp_path / "d", "a/0.png", "b/", "c/x/0.png", "e/notes.txt", ".git/", "a/sub/")
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    assert read(path, "all") == (["a", "b", "c"], ["a", "c"]), "no class of text, none hidden"


def test_all_empty_is_an_answer(tmp_path):
    path = tree(tmp_path / "d", "train/a/", "test/a/")
    with pytest.raises(DataError, match="no images in class folders"):
        read(path, "test")
    tree(path, "train/a/0.png")
    with pytest.raises(SpecError, match="no folder with images for split 'test'"):
        read(path, "test")
    assert read(path, "train") == (["a"], ["a"])


def test_linked_classes_splits_and_images(tmp_path):
    store = tree(tmp_path / "store", "cats/0.png", "cats/1.png", "more/2.png", "fox/3.png")
    path = tree(tmp_path / "d", "train/ant/0.png", "train/cat/9.png")
    (path / "train" / "bee").symlink_to(store / "cats")
    (path / "train" / "cat" / "deeper").symlink_to(store / "more")
    (path / "train" / "dog.png").mkdir()
    (path / "train" / "dog.png" / "x.png").symlink_to(store / "fox" / "3.png")
    (path / "test").symlink_to(path / "train")
    names = ["ant", "bee", "bee", "cat", "cat", "dog.png"]
    for split in ("train", "test"):
        assert read(path, split) == (["ant", "bee", "cat", "dog.png"], names)
    whole = tmp_path / "linked"
    whole.symlink_to(path)
    assert read(whole, "train")[1] == names
    values = samples(f"imagefolder('{path}', train)").take(slice(None))[0][:, 0, 0, 0] * 255
    assert values.round().int().tolist() == [0, 0, 1, 1, 2, 3]


def test_links_in_a_circle_end(tmp_path):
    path = tree(tmp_path / "d", "a/0.png", "b/0.png")
    (path / "a" / "up").symlink_to(path)
    (path / "a" / "self").symlink_to(path / "a")
    (path / "b" / "other").symlink_to(path / "a")
    # b holds a's picture as well; `up` and `self` lead to folders that hold them
    assert read(path, "all") == (["a", "b"], ["a", "b", "b"])
    files, folders = Folder(path).tree()
    assert files == ["a/0.png", "b/0.png", "b/other/0.png"]
    assert folders == ["a", "b", "b/other"]


def test_links_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FOLDERS", 2000)
    path = tmp_path / "d"
    names = [path / f"f{i}" for i in range(9)]
    for a in names:
        tree(a, "0.png")
    for a in names:
        for b in names:
            (a / f"to-{b.name}").symlink_to(b)
    with pytest.raises(FileError, match="too many folders"):
        read(path, "all")


def test_a_link_that_leads_nowhere_is_no_missing_class(tmp_path):
    path = tree(tmp_path / "d", "a/0.png", "c/0.png")
    (path / "b").symlink_to(tmp_path / "gone")
    with pytest.raises(FileError, match=r"link 'b' .* leads nowhere"):
        read(path, "all")
    (path / "b").unlink()
    (path / "c" / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileError, match=r"1\.png"):
        read(path, "all")


def test_a_folder_lists_what_a_walk_does(tmp_path):
    path = tree(tmp_path / "d", "a/0.png", "b/c/d/1.png", "b/2.txt", "e/", ".h/3.png", "4.png")
    expected = sorted(
        os.path.relpath(os.path.join(base, f), path) for base, _, fs in os.walk(path) for f in fs
    )
    assert Folder(path).names() == expected
    packed = open_source(zipped(path, tmp_path / "d.zip"))
    assert isinstance(packed, Archive)
    assert packed.tree() == Folder(path).tree()


def test_sounds_have_the_same_classes(tmp_path):
    import wave

    path = tree(tmp_path / "d", "train/a/", "train/b/", "train/c/", "test/a/", "test/c/")
    for name in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        with wave.open(str(path / name / "0.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.zeros(20, "<i2").tobytes())
    found = samples(f"audiofolder('{path}', test, length=20)")
    assert found.classes == ["a", "b", "c"]
    assert found.labels.tolist() == [0, 2]


def test_published_layouts_with_a_class_missing(tmp_path):
    root = tmp_path / "data"
    tree(root / "imagenet", "train/n1/0.png", "train/n2/0.png", "train/n3/0.png",
         "val/n1/0.png", "val/n3/0.png")  # fmt: skip
    tiny = root / "tiny-imagenet-200"
    tree(tiny, "train/n1/images/0.png", "train/n3/images/1.png", "val/images/v0.png",
         "val/images/v1.png")  # fmt: skip
    rows = ("v0.png\tn3\t0\t0\t1\t1", "v1.png\tn2\t0\t0\t1\t1")
    (tiny / "val" / "val_annotations.txt").write_text("\n".join(rows))
    with context.use(data_root=root):
        assert samples("imagenet(val, size=8)").labels.tolist() == [0, 2]
        found = {s: samples(f"tiny_imagenet({s})") for s in ("train", "val")}
    assert found["train"].classes == found["val"].classes == ["n1", "n2", "n3"]
    assert found["train"].labels.tolist() == [0, 2]
    assert found["val"].labels.tolist() == [2, 1]
