"""The pictures of the README, each made by the command that stands above it there.

``python examples/readme_pictures.py`` runs the commands in an empty folder, on embedded data, and
writes the figures into ``docs/_static``, 1,100 pixels wide at most.
"""

import os
import re
import shlex
import tempfile
from pathlib import Path

from PIL import Image

from isogon.cli import main
from isogon.survey.running import record

ROOT = Path(__file__).resolve().parents[1]
BESIDE = re.compile(r"```console\n\$ (isogon [^`]+?)```\s+!\[[^\]]*\]\((\S+\.png)\)")
WIDTH = 1100  # pixels


def small(source: Path, target: Path) -> None:
    """A figure as a picture of 128 colours."""
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    picture.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    for command, place in BESIDE.findall(text):
        words = shlex.split(command)
        if main(words[1:]):
            raise SystemExit(f"failed: {command}")
        made = record.newest(Path("runs") / words[1])
        target = ROOT / place
        target.parent.mkdir(parents=True, exist_ok=True)
        small(made / f"{words[1].replace('-', '_')}.png", target)
        print(target.relative_to(ROOT), target.stat().st_size // 1024, "KB")
    os.chdir(ROOT)
