"""MP4 films, where an encoder is at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from PIL import Image

from isogon.errors import DependencyError
from isogon.storage import atomic

RATE = 25  # frames per second: players dislike slower films, so pictures are repeated
LAST = 1.0  # seconds for which the last picture stays


def encoder() -> str | None:
    """The ffmpeg program: the one on the path, else that of imageio-ffmpeg, else None."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-not-found]

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def encode(pages: list[Image.Image], path: str | os.PathLike, *, seconds: float) -> Path:
    """Write pictures of one size as an MP4 (H.264, 4:2:0, which every browser plays).

    Args:
        pages: The pictures.
        path: The file.
        seconds: Length; the last picture stays for another second.

    Raises:
        DependencyError: There is no encoder, or it fails.
        FileError: The file can't be written.
    """
    program = encoder()
    if program is None:
        raise DependencyError(
            "MP4 needs an encoder",
            got="no ffmpeg",
            fix="pip install 'isogon[video]', or write a .gif.",
        )
    width, height = (n + n % 2 for n in pages[0].size)  # 4:2:0 halves both
    shown = max(1, round(RATE * seconds / len(pages)))
    with atomic(path) as temporary:
        command = [
            program,
            "-y",
            "-loglevel",
            "error",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            str(RATE),
            "-i",
            "-",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            "-movflags",
            "+faststart",
            "-f",
            "mp4",
            str(temporary),
        ]
        data = bytearray()
        for i, page in enumerate(pages):
            picture = Image.new("RGB", (width, height), "white")
            picture.paste(page.convert("RGB"), (0, 0))
            times = shown + (round(RATE * LAST) if i == len(pages) - 1 else 0)
            data += picture.tobytes() * times
        done = subprocess.run(command, input=bytes(data), capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise DependencyError(
                "the encoder failed",
                got=said[-1] if said else f"exit status {done.returncode}",
                fix="pip install 'isogon[video]' for one with libx264, or write a .gif.",
            )
    return Path(path)
