"""Jobs and records: what to compute, in strings; what came out, with where it came from."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.errors import FileError, IsogonError
from isogon.survey.declaring.job import Job

if TYPE_CHECKING:
    from isogon.readings import Reading

FORMAT = 2
FILE = "record.json"


@dataclass(frozen=True)
class Record:
    """A reading with its provenance.

    Attributes:
        job: What was asked for.
        reading: What came out.
        provenance: Versions, hashes of weights and data, seed, start, seconds, device.
        key: Address of the content: digest of job, versions and inputs.
        directory: Where it is kept, or None.
        reused: Whether it was found and not computed.
    """

    job: Job
    reading: Reading
    provenance: Mapping[str, Any]
    key: str
    directory: Path | None = None
    reused: bool = False

    def save(self, directory: Path) -> Record:
        """Write the record as a whole: a reader sees the old folder, the new one, or none."""
        from isogon import storage
        from isogon.readings.files import MANIFEST
        from isogon.storage import file_digests

        temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.part")
        try:
            _tidy(directory.parent)
            temporary.mkdir(parents=True)
            self.reading.save(temporary / "reading")
            data = {
                "format": FORMAT,
                "key": self.key,
                "job": self.job.to_json(),
                "provenance": dict(self.provenance),
                "reading": file_digests.file_digest(temporary / "reading" / MANIFEST),
            }
            storage.write_json(temporary / FILE, data)
            if directory.exists():  # half a record, or one that does not match its digests
                aside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.old")
                with suppress(FileNotFoundError):
                    directory.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
            with suppress(FileExistsError, OSError):
                os.rename(temporary, directory)
            if load(directory, self.key) is None:
                raise FileError(
                    "a record could not be written",
                    got=str(directory),
                    expected="a folder that keeps what is written to it",
                    fix="Choose another folder with --out.",
                )
        except OSError as error:
            if isinstance(error, IsogonError):
                raise
            raise FileError(
                f"a record could not be written ({error.strerror or error})",
                got=str(directory),
                expected="a folder that can be written and a disk with space",
                fix="Choose another folder with --out.",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Record(self.job, self.reading, self.provenance, self.key, directory, self.reused)


def _tidy(folder: Path) -> None:
    """Remove the halves of records that writers left who were killed long ago."""
    from isogon.storage.files import STALE

    with suppress(OSError):
        for entry in os.scandir(folder):
            half = re.fullmatch(r"\..+\.[0-9a-f]{8}\.(part|old)", entry.name)
            if half and time.time() - entry.stat().st_mtime > STALE:
                shutil.rmtree(entry.path, ignore_errors=True)


def load(directory: Path, key: str | None = None) -> Record | None:
    """The record kept in a folder, or None where there is none that is whole.

    The record holds the digest of its reading's manifest, the manifest those of the reading's
    files: a record that was cut short or altered is no record.
    """
    from isogon import storage
    from isogon.readings import read
    from isogon.readings.files import MANIFEST
    from isogon.storage import file_digests

    try:
        data = storage.read_json(directory / FILE)
        if data["format"] != FORMAT or (key is not None and data["key"] != key):
            return None
        if data["reading"] != file_digests.file_digest(directory / "reading" / MANIFEST):
            return None
        reading = read(directory / "reading")
        job = Job.from_json(data["job"])
        return Record(job, reading, dict(data["provenance"]), data["key"], directory, reused=True)
    except (IsogonError, OSError, KeyError, TypeError, ValueError):
        return None


def load_inside(root: Path, name: str) -> Record | None:
    """The record of that name below a folder; what leads out of the folder is none."""
    place = root / name
    if not place.resolve().is_relative_to(root.resolve()):
        return None
    return load(place)


def scan(root: Path) -> list[Record]:
    """All whole records below a folder, in the order of their measures."""
    found = [load(path.parent) for path in sorted(root.glob(f"*/{FILE}"))]
    return [r for r in found if r is not None]


def newest(path: Path) -> Path:
    """The folder that is meant: ``runs/data-matrix`` is the newest record of that measure there."""
    if path.exists() or not path.parent.is_dir():
        return path
    key = re.escape(path.name.replace("-", "_"))
    held = [p.parent for p in path.parent.glob(f"*/{FILE}") if re.match(rf"{key}-", p.parent.name)]
    return max(held, key=lambda p: (p / FILE).stat().st_mtime, default=path)
