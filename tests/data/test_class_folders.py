"""Classes of image folders: over all splits, empty and linked ones too, in folders and in zips."""

from __future__ import annotations

import io
import os
import warnings
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
    path = tree(tmp_path / "d", "a/0.png", "b/", "c/x/0.png", ".git/", "a/sub/", "a/notes.txt")
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path, "all") == (["a", "b", "c"], ["a", "c"]), "none hidden"


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("wrap", ["", "photos/", "x/y/"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_what_a_system_adds_of_itself_is_no_class(tmp_path, kind, wrap, split):
    added = ("__MACOSX/a/._0.png", "__MACOSX/a/", "@eaDir/0.png/thumb.png", "$RECYCLE.BIN/x.png",
             "System Volume Information/", "lost+found/", "a/.ipynb_checkpoints/0.png",
             "__pycache__/m.pyc", "#recycle/a/0.png")  # fmt: skip
    names = [wrap + split + n for n in ("a/0.png", "b/1.png", *added)]
    path = tree(tmp_path / "d", *names, "__MACOSX/._d", f"__MACOSX/{wrap}a/._0.png")
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path, "all") == (["a", "b"], ["a", "b"])


def test_a_name_that_only_holds_such_a_word_is_a_class(tmp_path):
    path = tree(tmp_path / "d", "a/0.png", "not__macosx/1.png", "v1.0/2.png")
    assert read(path, "all")[0] == ["a", "not__macosx", "v1.0"]
    (path / "v1.0" / "gone").symlink_to(tmp_path / "gone")
    with pytest.raises(FileError, match="leads nowhere"):
        read(path, "all")


def test_folders_of_the_system_need_not_be_readable(tmp_path, monkeypatch):
    path = tree(tmp_path / "d", "a/0.png", "lost+found/", ".Trash/")
    (path / ".Trash" / "link").symlink_to(tmp_path / "gone")
    plain = os.scandir

    def scandir(place):
        if os.path.basename(place) == "lost+found":
            raise PermissionError(13, "Permission denied", str(place))
        return plain(place)

    monkeypatch.setattr(archive.os, "scandir", scandir)
    assert read(path, "all") == (["a"], ["a"])


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_class_of_other_files_stands_and_is_told_of(tmp_path, kind, split):
    names = ("a/0.png", "b/0.avif", "b/1.avif", "b/notes.txt", "c/0.png", "d/Thumbs.db", "e/0.txt")
    path = tree(tmp_path / "d", *(split + n for n in names))
    path = path if kind == "folder" else zipped(path, tmp_path / "d.zip")
    with pytest.warns(UserWarning, match="without one file") as told:
        assert read(path, "all") == (["a", "b", "c", "d", "e"], ["a", "c"])
    (text,) = (str(w.message) for w in told)
    assert "without one file that is read: 'b' (2 .avif, 1 .txt), 'e' (1 .txt). Read" in text
    assert "other classes" not in text


def test_files_of_other_kinds_beside_images_are_counted(tmp_path):
    names = ("train/a/0.png", "train/a/1.heic", "test/a/2.heic", "train/a/x/3.AVIF", "train/a/4",
             "train/a/Thumbs.db", "train/a/desktop.ini", "train/a/.DS_Store", "train/a/0.json",
             "plots/a/5.svg", "readme.pdf", "test/b/0.png", "train/b/0.avif",
             "train/6.svg")  # fmt: skip
    path = tree(tmp_path / "d", *names)
    for split in ("train", "all"):
        with pytest.warns(UserWarning, match="other classes") as told:
            read(path, split)
        (text,) = (str(w.message) for w in told)
        shown = "5 files in other classes are left out: 2 .heic, 2 .avif, 1 without suffix. Read"
        assert shown in text
        assert "without one file" not in text


def test_no_image_at_all_says_what_was_there(tmp_path):
    path = tree(tmp_path / "d", "a/0.avif", "b/1.avif")
    with pytest.raises(DataError, match=r"no images .* 0 samples, 2 \.avif"):
        read(path, "all")


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
    with pytest.raises(FileError, match=r"1\.png' is a link that leads nowhere") as e:
        read(path, "all")
    assert "one of" not in str(e.value)


def test_a_picture_that_is_none_is_named(tmp_path):
    path = tree(tmp_path / "d", "a/0.png", "b/1.png")
    (path / "b" / "1.png").write_bytes(b"junk")
    with pytest.raises(FileError, match=r"identify image file .b/1\.png., expected"):
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
