"""Seeded damage to files: bytes, pieces, numbers at their limits, and values of text formats."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import zipfile
from io import BytesIO
from typing import Any

import numpy as np

EDGES = (0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31,
         2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))  # fmt: skip
WORDS = ("null", "true", "-1", "0", "1e999", ".nan", "[]", "{}", "''", "&a [*a]", "*a", "<<", "?",
         "1" * 30, "9" * 400, "[[[[[[[[", "{x}", "{seed}", "!!python/name:os.system", "\u0661",
         "../../etc/passwd", "/dev/zero", "os:system('x')", "my.pkg:f()@w.pt", "x" * 3000,
         "\0", "mlp(8, depth=100000000)", "(" * 90, "-" * 1200 + "1", "$float",
         "NaN", "1, 2", ":")  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**31, 2**63, 10**30, 1e308, "", "x" * 2000, "../x",
                           "/etc/passwd", "os:system('true')", [], {}, [[]], {"": None}, [None],
                           "mlp(8, depth=1000000000)", "nan", {"$float": "nan"})  # fmt: skip
TEXTS = ("spec", "plan", "config")
JSONS = ("json", "reading", "record", "survey", "sweep", "state")


def mutated(content: bytes, others: list[bytes], rng: np.random.Generator, reader: str) -> bytes:
    """A spoiled copy: one to four changes, by what kind of file it is."""
    data = content
    for _ in range(int(rng.integers(1, 5))):
        kinds = [flipped, edged, cut, copied, dropped, spliced]
        if reader in TEXTS:
            kinds = [worded, worded, numbered, cut, copied, lined, lined, flipped]
        elif reader in JSONS:
            kinds = [valued] * 5 + [numbered, flipped, cut]
        elif reader in ("safetensors", "checkpoint"):
            kinds += [headed] * 6
        elif reader in ("pt", "pt2", "npz", "zip", "sounds") and data[:2] == b"PK":
            kinds += [repacked] * 6
        data = kinds[int(rng.integers(len(kinds)))](data, others, rng)
    return data


def _at(data: bytes, rng: np.random.Generator) -> int:
    """A place; half of them near the two ends, where headers and directories are."""
    if rng.random() < 0.5 and len(data) > 128:
        near = int(rng.integers(64))
        return near if rng.random() < 0.5 else len(data) - 1 - near
    return int(rng.integers(max(1, len(data))))


def flipped(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if made:
            made[_at(data, rng)] = int(rng.integers(256))
    return bytes(made)


def edged(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A whole number at a limit, of 1 to 8 bytes, written over what is there."""
    width = int(rng.choice([1, 2, 4, 8]))
    value = EDGES[int(rng.integers(len(EDGES)))] % 2 ** (8 * width)
    raw = value.to_bytes(width, "little" if rng.random() < 0.7 else "big")
    at = _at(data, rng)
    return data[:at] + raw + data[at + width :]


def cut(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def copied(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A piece once more, or many times, behind itself."""
    a = _at(data, rng)
    b = min(len(data), a + int(rng.integers(1, 200)))
    times = int(rng.choice([1, 1, 2, 30]))
    return data[:b] + data[a:b] * times + data[b:]


def dropped(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    a = _at(data, rng)
    return data[:a] + data[a + int(rng.integers(1, 100)) :]


def spliced(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return data[: int(rng.integers(len(data) + 1))] + other[int(rng.integers(len(other) + 1)) :]


def worded(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A word of the text replaced by one that means something."""
    found = list(re.finditer(rb"[^\s,:()\[\]{}]+", data))
    word = WORDS[int(rng.integers(len(WORDS)))].encode()
    if not found:
        return word
    place = found[int(rng.integers(len(found)))]
    return data[: place.start()] + word + data[place.end() :]


def numbered(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"-?\d+", data))
    if not found:
        return data
    place = found[int(rng.integers(len(found)))]
    value = EDGES[int(rng.integers(len(EDGES)))]
    return data[: place.start()] + str(value).encode() + data[place.end() :]


def lined(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A line repeated, moved, or indented otherwise."""
    lines = data.split(b"\n")
    i, j = (int(n) for n in rng.integers(len(lines), size=2))
    what = int(rng.integers(3))
    if what == 0:
        lines.insert(j, lines[i])
    elif what == 1:
        lines[i], lines[j] = lines[j], lines[i]
    else:
        lines[i] = b" " * int(rng.integers(6)) + lines[i].strip()
    return b"\n".join(lines)


def valued(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A value somewhere in a JSON text replaced, removed, or put somewhere else."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return numbered(data, others, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, held in list(inner):
            places.append((value, key))
            if isinstance(held, dict | list):
                walk(held)

    if not isinstance(whole, dict | list):
        return data
    walk(whole)
    if not places:
        return data
    home, key = places[int(rng.integers(len(places)))]
    what = int(rng.integers(4))
    if what == 0:
        del home[key]
    elif what == 1 and isinstance(home, dict):
        home[str(WORDS[int(rng.integers(len(WORDS)))])] = home.pop(key)
    elif what == 2:
        other, at = places[int(rng.integers(len(places)))]
        with contextlib.suppress(KeyError, IndexError, ValueError, RecursionError):
            home[key] = json.loads(json.dumps(other[at]))
    else:
        home[key] = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(whole).encode()


def headed(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A change inside the JSON header of a safetensors file, its length put right."""
    if len(data) < 10:
        return data
    (size,) = struct.unpack("<Q", data[:8])
    if size > len(data) - 8:
        return data
    head, rest = data[8 : 8 + size], data[8 + size :]
    try:
        whole = json.loads(head)
        inner = whole["__metadata__"]["isogon"]
        if rng.random() < 0.6:  # the checkpoint's own metadata: JSON inside JSON
            whole["__metadata__"]["isogon"] = valued(inner.encode(), others, rng).decode()
            head = json.dumps(whole).encode()
        else:
            head = valued(head, others, rng)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        head = valued(head, others, rng)
    return struct.pack("<Q", len(head)) + head + rest


def repacked(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One member of a zip spoiled, the archive itself whole."""
    out = BytesIO()
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as made:
            members = archive.infolist()
            chosen = int(rng.integers(len(members)))
            for k, member in enumerate(members):
                content = archive.read(member)
                if k == chosen:
                    change = [flipped, edged, cut, copied, dropped, numbered, spliced]
                    if member.filename.endswith(".json"):
                        change += [valued] * 12
                    content = change[int(rng.integers(len(change)))](content, [content], rng)
                deflated = rng.random() < 0.05
                made.writestr(
                    member.filename,
                    content,
                    zipfile.ZIP_DEFLATED if deflated else member.compress_type,
                )
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError):
        return flipped(data, others, rng)
    except Exception:  # zlib's own error
        return data
    return out.getvalue()
