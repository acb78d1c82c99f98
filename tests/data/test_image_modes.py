"""What a pixel reads as: Pillow's own value, in [0, 1], or a refusal that says why."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from isogon import context
from isogon.data import images, samples
from isogon.errors import FileError

RNG = np.random.default_rng(0)
H, W = 5, 6
GREY = RNG.integers(0, 256, (H, W), np.uint8)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (H, W)).astype(np.uint16)
DEEP[0, 0] = 40000


@pytest.fixture(autouse=True)
def cache(tmp_path):
    with context.use(cache_root=tmp_path / "cache"):
        yield


def data(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def folder(path, files):
    for name, content in files.items():
        (path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "c" / name).write_bytes(content)
    return path


def read(path, **options):
    text = "".join(f", {k}={v}" for k, v in options.items())
    return samples(f"imagefolder('{path}'{text})").take(slice(None))[0]


def grey_palette():
    image = Image.fromarray(GREY % 4, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    return image


def animated():
    frames = [Image.fromarray(RGB).quantize(8), Image.fromarray(255 - RGB).quantize(8)]
    return {"save_all": True, "append_images": frames[1:]}, frames[0]


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif.tobytes(), "quality": 100, "subsampling": 0}


LA = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(255 - GREY)))
RGBA = Image.merge("RGBA", (*Image.fromarray(RGB).split(), Image.fromarray(GREY)))
CMYK = Image.fromarray(RGB).convert("CMYK")
SHALLOW = {
    "grey.png": data(Image.fromarray(GREY), "PNG"),
    "rgb.png": data(Image.fromarray(RGB), "PNG"),
    "one bit.png": data(Image.fromarray(GREY > 99), "PNG"),
    "one bit.tif": data(Image.fromarray(GREY > 99), "TIFF", compression="group4"),
    "white is zero.tif": data(Image.fromarray(GREY > 99), "TIFF", tiffinfo={262: 0}),
    "palette.png": data(grey_palette(), "PNG"),
    "palette with alpha.png": data(grey_palette(), "PNG", transparency=bytes([0, 9, 255, 100])),
    "palette.gif": data(grey_palette(), "GIF"),
    "LA.png": data(LA, "PNG"),
    "RGBA.png": data(RGBA, "PNG"),
    "RGBA.webp": data(RGBA, "WEBP", lossless=True),
    "RGBA.tif": data(RGBA, "TIFF"),
    "CMYK.tif": data(CMYK, "TIFF"),
    "CMYK.jpg": data(CMYK, "JPEG", quality=95),
    "YCbCr.tif": data(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
    "rotated.jpg": data(Image.fromarray(RGB), "JPEG", **rotated()),
    "animated.gif": data(animated()[1], "GIF", **animated()[0]),
    "animated.webp": data(animated()[1].convert("RGB"), "WEBP", lossless=True, save_all=True,
                          append_images=[Image.fromarray(255 - RGB)]),
    "animated.png": data(Image.fromarray(RGB), "PNG", save_all=True,
                         append_images=[Image.fromarray(255 - RGB)]),
    "pages.tif": data(Image.fromarray(RGB), "TIFF", save_all=True,
                      append_images=[Image.fromarray(255 - RGB)]),
    "colour.ppm": data(Image.fromarray(RGB), "PPM"),
    "deep colour.ppm": b"P6\n6 5\n65535\n" + np.full((H, W, 3), 40000, ">u2").tobytes(),
}  # fmt: skip


@pytest.mark.parametrize("name", SHALLOW)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_pillows_own(tmp_path, name, channels):
    path = folder(tmp_path / "d", {name: SHALLOW[name]})
    with Image.open(io.BytesIO(SHALLOW[name])) as image:
        own = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    own = own[None] if channels == 1 else own.transpose(2, 0, 1)
    assert torch.equal(read(path, channels=channels)[0], torch.from_numpy(own.astype("f4") / 255))


def test_all_of_them_in_one_folder(tmp_path):
    path = folder(tmp_path / "d", SHALLOW)
    found = read(path)
    assert found.shape == (len(SHALLOW), 3, H, W)
    for i, name in enumerate(sorted(SHALLOW)):
        single = folder(tmp_path / f"{i}", {name: SHALLOW[name]})
        assert torch.equal(found[i], read(single)[0])


def test_known_values(tmp_path):
    """A few by hand, so that Pillow is not only compared with itself."""
    path = folder(tmp_path / "a", {"palette with alpha.png": SHALLOW["palette with alpha.png"]})
    table = torch.tensor([[255.0, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]]) / 255
    expected = table[torch.from_numpy(GREY % 4).long()].permute(2, 0, 1)
    assert torch.equal(read(path)[0], expected)
    path = folder(tmp_path / "b", {"one bit.png": SHALLOW["one bit.png"]})
    assert torch.equal(read(path, channels=1)[0, 0], torch.from_numpy(GREY > 99).float())
    path = folder(tmp_path / "c", {"LA.png": SHALLOW["LA.png"], "grey.png": SHALLOW["grey.png"]})
    for x in read(path):
        assert torch.equal(x, torch.from_numpy(GREY / np.float32(255)).expand(3, H, W))
    # as stored, not as a viewer turns it
    path = folder(tmp_path / "d", {"rotated.jpg": SHALLOW["rotated.jpg"]})
    x = read(path)[0]
    assert x.shape == (3, H, W)
    with Image.open(io.BytesIO(SHALLOW["rotated.jpg"])) as image:
        assert ImageOps.exif_transpose(image).size == (H, W)
    path = folder(tmp_path / "e", {"first.tif": SHALLOW["pages.tif"]})
    assert torch.equal(read(path)[0], torch.from_numpy(RGB.transpose(2, 0, 1) / np.float32(255)))


def tiff(bits, content, order=b"II"):
    """A grey TIFF by hand: Pillow writes neither 12 bits nor the other byte order."""
    sign = "<" if order == b"II" else ">"
    tags = [(256, W), (257, H), (258, bits), (259, 1), (262, 1), (273, 122), (277, 1), (278, H),
            (279, len(content))]  # fmt: skip
    entries = b"".join(struct.pack(f"{sign}HHIHH", t, 3, 1, v, 0) for t, v in tags)
    head = order + struct.pack(f"{sign}HIH", 42, 8, len(tags))
    assert len(head + entries) + 4 == 122  # where the pixels begin
    return head + entries + bytes(4) + content


DEEP_FILES = {
    "grey.png": data(Image.fromarray(DEEP), "PNG"),
    "grey.tif": data(Image.fromarray(DEEP), "TIFF"),
    "other order.tif": tiff(16, DEEP.astype(">u2").tobytes(), b"MM"),
    "grey.pgm": b"P5\n6 5\n65535\n" + DEEP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", DEEP_FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits(tmp_path, name, channels):
    path = folder(tmp_path / "d", {name: DEEP_FILES[name]})
    found = read(path, channels=channels)[0]
    assert found[0, 0, 0] == pytest.approx(0.610, abs=5e-4)
    expected = torch.from_numpy(DEEP.astype("f4") / np.float32(65535))
    assert torch.equal(found, expected.expand(channels, H, W))


@pytest.mark.parametrize("memory", [0, 2**20], ids=["cached", "in memory"])
@pytest.mark.parametrize("deep_first", [False, True])
def test_eight_and_sixteen_bits_in_one_folder(tmp_path, monkeypatch, memory, deep_first):
    monkeypatch.setattr(images, "MEMORY", memory)
    names = ("0.png", "1.png") if deep_first else ("1.png", "0.png")
    files = {names[0]: DEEP_FILES["grey.png"], names[1]: SHALLOW["rgb.png"]}
    path = folder(tmp_path / "d", files)
    for _ in range(2):  # decoded, and found in the cache
        found = read(path)
        deep, rgb = found if deep_first else found.flip(0)
        assert torch.allclose(deep, torch.from_numpy(DEEP / 65535.0).float().expand(3, H, W))
        own = torch.from_numpy(RGB.transpose(2, 0, 1).astype("f4") / 255)
        assert float((rgb - own).abs().max()) < 1e-7


def test_a_sixteen_bit_image_is_resized_like_others(tmp_path):
    ramp = np.linspace(0, 65535, 40 * 30).reshape(30, 40).round().astype(np.uint16)
    files = {"a.png": data(Image.fromarray(ramp), "PNG")}
    deep = read(folder(tmp_path / "a", files), size=10)
    files = {"a.png": data(Image.fromarray((ramp / 257).round().astype(np.uint8)), "PNG")}
    shallow = read(folder(tmp_path / "b", files), size=10)
    assert deep.shape == (1, 3, 10, 10)
    assert float((deep - shallow).abs().max()) < 1 / 255


def test_too_many_to_look_at_all_first(tmp_path, monkeypatch):
    """Decoded when they are taken: a depth that comes late is said."""
    monkeypatch.setattr(images, "MEMORY", 0)
    monkeypatch.setattr(images, "MAX_CACHE", 0)
    path = folder(tmp_path / "d", {"0.png": SHALLOW["rgb.png"], "1.png": DEEP_FILES["grey.png"]})
    with pytest.raises(images.Deeper, match="8 and of 16 bits"):
        read(path)


def test_what_has_no_fixed_range_is_refused(tmp_path):
    inverted = data(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    wrong = {
        "int.tif": (data(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "32-bit or signed"),
        "float.tif": (data(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "float pixels"),
        "white is zero.tif": (inverted, "0 is white"),
        "twelve.tif": (tiff(12, bytes(H * W * 3 // 2)), "12 bits"),
        "lab.tif": (data(Image.fromarray(RGB).convert("LAB"), "TIFF"), "LAB"),
    }
    for i, (name, (content, words)) in enumerate(wrong.items()):
        path = folder(tmp_path / str(i), {name: content})
        with pytest.raises(FileError, match=words) as caught:
            read(path, channels=1)
        assert name in str(caught.value)
