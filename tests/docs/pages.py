"""The code of a page of the documentation: its blocks, and how they are run in an empty folder.

Python blocks of a page share one namespace, in the order of the page; lines of console blocks that
begin with ``$ isogon`` are run between them. What stands behind the language says the rest:
``python net.py``, ``yaml plan.yaml`` are files that are written for what follows, ``no-run`` and a
key of `REASONS` say why a block is not run.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(p.relative_to(ROOT))
    for p in [ROOT / "README.md", *DOCS.rglob("*.md")]
    if not {"_build", "reference", "gallery"} & set(p.parts)
)
REASONS = {
    "data": "needs a data set that is not embedded",
    "cluster": "needs Slurm",
    "gpu": "needs a GPU",
    "shell": "makes an environment, or is a command of another program",
    "package": "needs a package that isogon does not depend on",
    "own": "names files or code of the reader's that the page does not show",
    "extension": "needs the package of the page, which tests/e2e/test_extension.py installs",
    "plans": "a plan of the repository; tests/measures/test_invariance_plans.py runs some",
    "shape": "the shape of a plan or of a call, with words in place of values",
    "network": "downloads",
    "hours": "takes hours",
}
FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)(?P=ticks) *$",
    re.M | re.S,
)
RUN = ("python", "console", "yaml")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind it, its text, the line it begins on."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return "no-run" not in self.words

    @property
    def file(self) -> str:
        """The file that the block is; "" for none."""
        return next((w for w in self.words if re.fullmatch(r"[\w/-]+\.\w+", w)), "")

    def commands(self) -> list[list[str]]:
        """The commands of a console block, without ``$`` and comments."""
        text = re.sub(r"\\\n\s*", "", self.text)
        lines = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("$ ")]
        return [shlex.split(line, comments=True) for line in lines]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in its order; directives of MyST are none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for m in FENCE.finditer(text):
        language, *words = m["info"].split() or [""]
        if not language.startswith("{"):
            inner = re.sub(rf"^{m['indent']}", "", m["text"], flags=re.M)
            found.append(Block(language, tuple(words), inner, text[: m.start()].count("\n") + 1))
    return found
