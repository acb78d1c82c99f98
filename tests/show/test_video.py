from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image
from torch import nn

import isogon as ig
from isogon.errors import DependencyError, OptionError
from isogon.show import video
from isogon.show.walk import animate


@pytest.fixture
def path(generator):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(35, 3))
    return ig.walk(model, torch.rand(1, 1, 5, 7, generator=generator), steps=3)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An encoder that writes down what it was given."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys\ndata = sys.stdin.buffer.read()\n"
        "open(sys.argv[-1], 'wb').write(str(len(data)).encode() + b' ' + "
        "sys.argv[sys.argv.index('-s') + 1].encode())\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(video, "encoder", lambda: str(program))


def test_pictures_of_even_size_at_a_steady_rate(path, tmp_path, fake):
    film = animate(path, tmp_path / "walk.mp4", seconds=2.0)
    length, size = film.read_text().split()
    width, height = map(int, size.split("x"))
    assert width % 2 == 0
    assert height % 2 == 0
    frames = 3 * round(video.RATE * 2.0 / 4) + round(video.RATE * 2.0 / 4) + video.RATE
    assert int(length) == frames * width * height * 3


@pytest.mark.skipif(video.encoder() is None, reason="no ffmpeg here")
def test_a_real_film(path, tmp_path):
    film = animate(path, tmp_path / "walk.mp4", seconds=1.0)
    assert film.read_bytes()[4:8] == b"ftyp"


def test_without_an_encoder(path, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "encoder", lambda: None)
    with pytest.raises(DependencyError, match=r"no ffmpeg.*isogon.video"):
        animate(path, tmp_path / "walk.mp4")
    monkeypatch.setattr(video, "encoder", lambda: "/bin/false")
    with pytest.raises(DependencyError, match="encoder failed"):
        animate(path, tmp_path / "walk.mp4")
    assert not (tmp_path / "walk.mp4").exists()
    with pytest.raises(OptionError, match="kind of film"):
        animate(path, tmp_path / "walk.avi")
    assert Image.open(animate(path, tmp_path / "walk.GIF")).n_frames == 4
