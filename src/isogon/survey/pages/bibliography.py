"""The works that isogon's definitions come from, read from the packaged ``references.bib``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "references.bib"

_ACCENTS = {
    '"': "\u0308",
    "'": "\u0301",
    "`": "\u0300",
    "^": "\u0302",
    "~": "\u0303",
    "c": "\u0327",
    "v": "\u030c",
    "=": "\u0304",
}


@dataclass(frozen=True)
class Work:
    """One work: its key and fields, as plain text."""

    key: str
    kind: str
    fields: dict[str, str]

    @property
    def authors(self) -> str:
        """Family names: one, two with "and", or the first "et al."."""
        names = [n.strip() for n in self.fields.get("author", "").split(" and ") if n.strip()]
        family = [n.split(",")[0] if "," in n else n.split()[-1] for n in names]
        if len(family) > 3:
            return f"{family[0]} et al."
        return " and ".join([", ".join(family[:-1]), family[-1]] if len(family) > 1 else family)

    @property
    def venue(self) -> str:
        """Where it appeared."""
        for name in ("journal", "booktitle", "publisher", "howpublished", "school"):
            if name in self.fields:
                return self.fields[name]
        return "arXiv" if "eprint" in self.fields else ""

    @property
    def url(self) -> str:
        """Link to the work, or nothing."""
        if "doi" in self.fields:
            return f"https://doi.org/{self.fields['doi']}"
        if "eprint" in self.fields:
            return f"https://arxiv.org/abs/{self.fields['eprint']}"
        return self.fields.get("url", "")


@cache
def works() -> dict[str, Work]:
    """All works by key."""
    return {w.key: w for w in parse(FILE.read_text(encoding="utf-8"))}


def work_of(key: str) -> Work | None:
    """The work with that key, or None."""
    return works().get(key)


def line(key: str) -> str:
    """One line for a terminal."""
    work = work_of(key)
    if work is None:
        return key
    parts = [
        work.authors,
        f"{work.fields.get('title', '')}",
        work.venue,
        work.fields.get("year", ""),
    ]
    return ". ".join(p.rstrip(".") for p in parts if p) + f" [{key}]"


def parse(text: str) -> list[Work]:
    """Read BibTeX: entries with braced, quoted or bare values (no macros, no crossref)."""
    found = []
    for match in re.finditer(r"@(\w+)\s*\{\s*([^,\s]+)\s*,", text):
        if match[1].lower() in ("comment", "string", "preamble"):
            continue
        found.append(Work(match[2], match[1].lower(), _fields(text, match.end())))
    return found


def _fields(text: str, at: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    pattern = re.compile(r"\s*,?\s*([\w-]+)\s*=\s*")
    while match := pattern.match(text, at):
        value, at = _value(text, match.end())
        fields[match[1].lower()] = _plain(value)
    return fields


def _value(text: str, at: int) -> tuple[str, int]:
    if at < len(text) and text[at] in '{"':
        closing, depth, start = ("}" if text[at] == "{" else '"'), 0, at + 1
        for i in range(start, len(text)):
            if text[i] == closing and depth == 0:
                return text[start:i], i + 1
            depth += (text[i] == "{") - (text[i] == "}")
        return text[start:], len(text)
    match = re.compile(r"[^,}\s]+").match(text, at)
    return (match[0], match.end()) if match else ("", at + 1)


def _plain(value: str) -> str:
    """LaTeX accents and braces to Unicode."""
    import unicodedata

    def accent(match: re.Match) -> str:
        letter = match[2].replace("\\i", "i")
        return unicodedata.normalize("NFC", letter + _ACCENTS[match[1]])

    value = re.sub(r"""\{?\\(["'`^~=])\s*\{?(\\?\w)\}?\}?""", accent, value)
    value = re.sub(r"\{?\\([cv])\s*\{(\w)\}\}?", accent, value)
    value = value.replace("--", "–").replace("\\&", "&").replace("~", " ").replace("\\o", "ø")
    return " ".join(value.replace("{", "").replace("}", "").split())
