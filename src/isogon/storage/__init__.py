"""Files: written whole or not at all, and read as if an enemy had written them.

Writers put a temporary file beside the target, flush it to the disk and rename it, so that a
kill or a full disk leaves the old file or the new one. Readers check every length that a file
claims against what is there before they allocate, follow no name out of the file's folder and
decode numbers and text only: nothing that is read here can run code.
"""

from __future__ import annotations

from isogon.storage.files import (
    atomic,
    damaged,
    inside,
    memory_limit,
    physical_memory,
    plain,
    read_json,
    regular,
    write_error,
    write_json,
)
from isogon.storage.tables import read_table, write_table
from isogon.storage.tensors import read_metadata, read_tensors, write_tensors

__all__ = [
    "atomic",
    "damaged",
    "inside",
    "memory_limit",
    "physical_memory",
    "plain",
    "read_json",
    "read_metadata",
    "read_table",
    "read_tensors",
    "regular",
    "write_error",
    "write_json",
    "write_table",
    "write_tensors",
]
