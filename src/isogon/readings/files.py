"""How readings are kept: a manifest, a Parquet table, a safetensors file."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from isogon import context, registry, storage
from isogon.errors import FileError, IsogonError, OptionError
from isogon.readings.latex import latex
from isogon.storage import file_digests

if TYPE_CHECKING:
    from isogon.readings.reading import Reading

MANIFEST = "reading.json"
FORMAT = "isogon-reading"
VERSION = 1
_OURS = re.compile(
    r"table-(draft-)?[0-9a-f]{12,16}\.parquet|arrays-(draft-)?[0-9a-f]{12,16}\.safetensors"
)


def save(reading: Reading, directory: str | os.PathLike) -> pathlib.Path:
    """Write a reading to a folder; see `Reading.save`."""
    folder = pathlib.Path(directory)
    earlier = _named(folder)
    files: dict[str, Any] = {"table": _place(folder, "table", ".parquet", reading.table)}
    if reading.arrays:
        files["arrays"] = _place(folder, "arrays", ".safetensors", reading.arrays)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "class": type(reading).__name__,
        "measure": reading.measure,
        "complete": bool(reading.complete),
        "columns": list(map(str, reading.table.columns)),
        "units": reading.units,
        "axes": {name: list(axes) for name, axes in reading.axes.items()},
        "coords": reading.coords,
        "meta": reading.meta,
        "files": files,
    }
    storage.write_json(folder / MANIFEST, manifest)
    _forget(folder, earlier, {entry["name"] for entry in files.values()})
    return folder


def read(directory: str | os.PathLike) -> Reading:
    """Read back what `Reading.save` wrote.

    Args:
        directory: The folder, its ``reading.json``, or the folder of a record (what a command
            printed, or ``records/...`` of a survey or sweep), which holds one.

    Returns:
        A reading of the class that was saved.

    Raises:
        FileError: No reading there, or one that is damaged or names files outside its folder.
    """
    folder = located(directory)
    for attempt in (0, 1):
        manifest = _manifest(folder)
        try:
            return _assemble(folder, manifest)
        except FileError:
            # Another process may have replaced the reading between the two files.
            if attempt or _manifest(folder) == manifest:
                raise
    raise AssertionError("unreachable")


def located(directory: str | os.PathLike) -> pathlib.Path:
    """The folder of a reading: itself, its manifest's, or the one inside a record's folder."""
    folder = pathlib.Path(directory)
    if folder.name in (MANIFEST, "record.json") and not folder.is_dir():
        folder = folder.parent
    inner = folder / "reading"
    return inner if (inner / MANIFEST).is_file() and not (folder / MANIFEST).exists() else folder


def export(reading: Reading, path: str | os.PathLike, format: str | None = None) -> pathlib.Path:
    """Write a reading as one file for other programs.

    Args:
        reading: The reading.
        path: The file.
        format: ``csv``, ``parquet`` or ``tex`` (the table alone; see `isogon.readings.latex`) or
            ``json`` (everything; NaN becomes null, infinities the strings "inf" and "-inf"). By the
            suffix where not given.

    Returns:
        The path.

    Raises:
        OptionError: Another format.
        FileError: The file can't be written.
    """
    path = pathlib.Path(path)
    format = (format or path.suffix.lstrip(".")).lower()
    frame = reading.to_frame()
    if format == "parquet":
        storage.write_table(path, frame)
    elif format == "csv":
        with storage.atomic(path) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    elif format == "tex":
        with storage.atomic(path) as temporary:
            temporary.write_text(latex(frame) + "\n", encoding="utf-8")
    elif format == "json":
        facts = {f.name: getattr(reading, f.name) for f in dataclasses.fields(reading)}
        facts["table"] = {str(c): frame[c].tolist() for c in frame.columns}
        facts["class"] = type(reading).__name__
        text = json.dumps(_standard(storage.plain(facts)), indent=1, ensure_ascii=False)
        with storage.atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    else:
        raise OptionError(
            "unknown format",
            got=repr(format),
            expected="json, csv, parquet or tex",
            fix="Name one.",
        )
    return path


# --------------------------------------------------------------------------- internals


def _place(folder: pathlib.Path, stem: str, suffix: str, content: Any) -> dict[str, Any]:
    """Write a data file under the name of its content; the manifest's entry for it."""
    draft = folder / f"{stem}-draft-{secrets.token_hex(6)}{suffix}"
    entry: dict[str, Any] = {}
    try:
        if suffix == ".parquet":
            storage.write_table(draft, content)
            entry["rows"] = len(content)
        else:
            storage.write_tensors(draft, content)
        key = file_digests.file_digest(draft)
        name = f"{stem}-{key[:16]}{suffix}"
        entry |= {"name": name, "bytes": draft.stat().st_size, "sha256": key}
        draft.replace(folder / name)
    except FileError as error:
        raise FileError(
            error.problem.replace(str(draft), str(folder)),
            got=error.got,
            expected=error.expected,
            fix=error.fix,
        ) from error
    except OSError as error:
        raise storage.write_error(folder, error) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return entry


def _named(folder: pathlib.Path) -> set[str]:
    """Data files that the folder's reading names, if there is one."""
    with suppress(IsogonError, AttributeError, KeyError, TypeError):
        if (folder / MANIFEST).exists():
            return {str(e["name"]) for e in _manifest(folder)["files"].values()}
    return set()


def _forget(folder: pathlib.Path, earlier: set[str], kept: set[str]) -> None:
    """Remove the replaced reading's data files, and what killed writers left long ago.

    Younger ones may belong to another process that is about to write its manifest.
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            if not _OURS.fullmatch(entry.name) or entry.name in kept:
                continue
            if entry.name in earlier or time.time() - entry.stat().st_mtime > 3600:
                os.unlink(entry.path)


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
    if folder.is_dir() and not (folder / MANIFEST).exists():
        raise FileError(
            f"no reading in {str(folder)!r}",
            got="a folder without reading.json",
            expected="a folder that a reading was saved to",
            fix="Check the path.",
        )
    manifest = storage.read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise storage.damaged(folder / MANIFEST, "reading", "no manifest of one")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise FileError(
            f"{str(folder)!r} was written by another version of isogon",
            got=f"format {version!r}",
            expected=f"format {VERSION}",
            fix="Update isogon.",
        )
    return manifest


def _assemble(folder: pathlib.Path, manifest: dict[str, Any]) -> Reading:
    path = folder / MANIFEST
    try:
        files, name = manifest["files"], manifest["class"]
        rows = files["table"]["rows"]
        if type(rows) is not int or not isinstance(name, str):
            raise TypeError("rows and class")
        table = storage.read_table(_member(folder, files["table"]), rows=rows)
        if [str(c) for c in manifest["columns"]] != list(table.columns):
            raise ValueError("the table has other columns")
        arrays: dict[str, Any] = {}
        if "arrays" in files:
            arrays = storage.read_tensors(_member(folder, files["arrays"]))[0]
        try:
            kind = registry.get("reading", name).build
        except IsogonError as error:
            raise FileError(
                f"reading in {str(folder)!r} is of an unknown class",
                got=repr(name),
                expected=", ".join(registry.names("reading")),
                fix="Install the package that it was made with.",
            ) from error
        with context.use(check=True):  # its own metadata say how it was measured
            return kind(
                measure=str(manifest["measure"]),
                table=table,
                arrays=arrays,
                axes={k: tuple(v) for k, v in manifest["axes"].items()},
                coords={k: list(v) for k, v in manifest["coords"].items()},
                units={str(k): str(v) for k, v in manifest["units"].items()},
                meta=dict(manifest["meta"]),
                complete=manifest["complete"] is True,
            )
    except FileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise storage.damaged(path, "reading", f"{type(error).__name__}: {error}") from error


def _member(folder: pathlib.Path, entry: Any) -> pathlib.Path:
    """A data file of a reading, checked to be the one that the manifest was written for."""
    path = storage.regular(storage.inside(folder, entry["name"]), "data file")
    if path.stat().st_size != entry["bytes"] or file_digests.file_digest(path) != entry["sha256"]:
        raise storage.damaged(path, "part of this reading", "other content than was saved")
    return path


def _standard(value: Any) -> Any:
    """Standard JSON has no NaN and no infinity."""
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    if isinstance(value, dict):
        return {k: _standard(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_standard(v) for v in value]
    return value
