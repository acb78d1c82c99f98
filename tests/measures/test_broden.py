"""The Broden layout: read as it is published, refused where it is not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import isogon as ig
from isogon import context
from isogon.errors import DataError, FileError, IsogonError, OptionError, SpecError
from isogon.measures.dissection.concepts import concepts

INDEX = """image,split,ih,iw,sh,sw,color,object,part,scene,texture
a/1.jpg,train,8,8,4,4,a/1_color.png,a/1_object.png,,7,
a/2.jpg,train,8,8,4,4,a/2_color.png,,,,
b/3.jpg,val,8,8,4,4,,,a/3_part_1.png;a/3_part_2.png,7,300;2
"""
CATEGORY = "name,first,last,count,frequency\n" + "".join(
    f"{c},0,400,3,3\n" for c in ("object", "part", "scene", "texture", "color", "absent")
)
LABEL = "number,name,category,frequency,coverage,syns\n" + "".join(
    f'{k},"{name}",object(3),1,0.5,\n'
    for k, name in ((1, "red-c"), (2, "dotted"), (5, "cat"), (7, "street"), (300, "woven, tight"))
)


def maps():
    rng = np.random.default_rng(0)
    names = ["a/1_color", "a/2_color", "a/1_object", "a/3_part_1", "a/3_part_2"]
    return {n: rng.choice([0, 1, 5, 300], (4, 4)) for n in names}


@pytest.fixture
def folder(tmp_path):
    here = tmp_path / "broden"
    for sub in ("a", "b"):
        (here / "images" / sub).mkdir(parents=True)
    for name, text in (("index", INDEX), ("category", CATEGORY), ("label", LABEL)):
        (here / f"{name}.csv").write_text(text)
    rng = np.random.default_rng(1)
    for name in ("a/1", "a/2", "b/3"):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "images" / f"{name}.jpg")
    for name, numbers in maps().items():
        rgb = np.stack([numbers % 256, numbers // 256, 0 * numbers], -1).astype(np.uint8)
        Image.fromarray(rgb).save(here / "images" / f"{name}.png")
    return here


def test_what_the_files_say(folder):
    found = concepts(f"broden('{folder}', batch_size=2)")
    assert found.categories == ["object", "part", "scene", "texture", "color"]
    assert found.count == 3
    assert [len(x) for x, _ in found] == [2, 1]
    x, y = (torch.cat(part) for part in zip(*found))
    image = np.asarray(Image.open(folder / "images/a/1.jpg")).transpose(2, 0, 1)
    assert np.array_equal(x[0].numpy(), (image / 255).astype(np.float32))
    want, layer = (
        maps(),
        {c: i for i, c in enumerate(["object", "part1", "part2", "scene", "t1", "t2", "color"])},
    )
    assert np.array_equal(y[0, layer["color"]], want["a/1_color"])
    assert np.array_equal(y[0, layer["object"]], want["a/1_object"])
    assert not y[1, layer["object"]].any()
    first, second = want["a/3_part_1"], want["a/3_part_2"]
    assert np.array_equal(y[2, layer["part1"]], first)
    assert np.array_equal(y[2, layer["part2"]], np.where(first == second, 0, second))
    assert (y[2, layer["t1"]] == 300).all()
    assert (y[2, layer["t2"]] == 2).all()
    assert (y[0, layer["scene"]] == 7).all()
    assert found.concept("texture", 300) == "woven, tight"
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    reading = ig.dissect(model, found, sites="1", quantile=0.8)
    assert reading.meta["images"] == {"object": 1, "part": 1, "scene": 2, "texture": 1, "color": 2}
    assert "woven, tight" in reading.coords["concept"]


def test_a_zip_splits_and_digests(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "broden")
    one, two = concepts(f"broden('{folder}')"), concepts(f"broden('{tmp_path / 'packed.zip'}')")
    for (x, y), (u, v) in zip(one, two, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert concepts(f"broden('{folder}', val)").count == 1
    assert concepts(f"broden('{folder}', train, 1)").count == 1
    assert one.digest() == concepts(f"broden('{folder}', batch_size=1)").digest()
    before = one.digest()
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 5
    Image.fromarray(rgb).save(folder / "images/a/1_object.png")
    assert concepts(f"broden('{folder}')").digest() != before


def swap(name, old, new):
    def change(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def grey(folder):
    Image.fromarray(np.full((4, 4), 5, np.uint8)).save(folder / "images/a/1_object.png")


def large(folder):
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(folder / "images/a/1_object.png")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "label.csv").unlink(), "no label.csv"),
        (lambda f: (f / "index.csv").unlink(), "no index.csv"),
        (lambda f: (f / "images/b/3.jpg").unlink(), "3.jpg"),
        (lambda f: (f / "images/a/1_object.png").unlink(), "1_object.png"),
        (lambda f: (f / "images/a/1_object.png").write_bytes(b"no image"), "1_object.png"),
        (lambda f: (f / "label.csv").write_bytes(b"\xff\xfe\x00"), "label.csv"),
        (swap("index.csv", "a/1_object.png", "../../index.csv"), "index.csv"),
        (swap("index.csv", "300;2", "300;2.5"), "2.5"),
        (swap("index.csv", "300;2", ";".join(["2"] * 99)), "99 entries"),
        (swap("index.csv", "b/3.jpg,val", "b/3.jpg"), "row 3"),
        (swap("label.csv", "300,", "three,"), "three"),
        (swap("label.csv", "300,", "301,"), "number 300"),
        (swap("category.csv", "name,", "title,"), "row 1"),
        (grey, "blue"),
        (large, "different size"),
    ],
)
def test_what_is_not_in_the_layout_is_refused(folder, change, says):
    change(folder)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    with pytest.raises((FileError, DataError), match=says) as caught:
        ig.dissect(model, f"broden('{folder}')", sites="1")
    assert "\n" not in str(caught.value)


def test_paths_are_typed(folder):
    with context.from_file("record", data=True), pytest.raises(SpecError):
        concepts(f"broden('{folder}')")
    with context.from_file("record", data=True):
        assert concepts("shapes(n=3)").count == 3
    with pytest.raises(OptionError, match="at least 1"):
        concepts(f"broden('{folder}', limit=0)")
    with pytest.raises(IsogonError, match="no_such"):
        concepts("broden('no_such')")
