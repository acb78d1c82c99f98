"""Reads Parquet in a process of its own; run as a program, without the rest of isogon.

Asked by one line of JSON (``path``, ``rows``, ``limit``), it answers with one letter, eight bytes
of length, and so many bytes: ``T`` and an Arrow stream, or ``E`` and JSON (what the file is not,
what was got, what was expected). It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

BATCH = 65_536  # rows decoded at a time
MAX_COLUMNS = 20_000
MARGIN = 2**30  # bytes beyond the limit that the process itself may take


class Refused(Exception):
    """A file that is not read: what it is not, what was got, what was expected."""

    def __init__(self, what: str, got: object, expected: object = None) -> None:
        super().__init__(what, str(got), None if expected is None else str(expected))


def main() -> None:
    """Answer until nobody asks."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    assert pyarrow.parquet
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes where errors go
    for line in sys.stdin.buffer:
        question = json.loads(line)
        try:
            kind, answer = b"T", _table(question["path"], question["rows"], question["limit"])
        except Refused as error:
            kind, answer = b"E", json.dumps(error.args).encode()
        except Exception as error:
            text = (str(error) or type(error).__name__).split("\n")[0][:160]
            kind, answer = b"E", json.dumps(["Parquet file", text, None]).encode()
        out.write(kind + len(answer).to_bytes(8, "little"))
        out.write(answer)
        out.flush()


def _table(path: str, rows: int | None, limit: int) -> Any:
    """The table in a file as an Arrow stream, text written out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _limit(limit)
    schema = pq.read_schema(path)
    text = [f.name for f in schema if pa.types.is_string(f.type)]
    # Repeated text stays a dictionary while it is counted: a few bytes can claim gigabytes.
    with pq.ParquetFile(path, read_dictionary=text, memory_map=False) as file:
        size = os.path.getsize(path)
        _check_claims(size, file.metadata, file.schema_arrow, rows, limit)
        parts, used, seen = [], 0, 0
        for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
            used += sum(_unpacked(column) for column in batch.columns)
            seen += batch.num_rows
            if used > limit or seen > file.metadata.num_rows:
                raise Refused("Parquet file", "more data than it claims or may hold")
            parts.append(batch)
        if seen != file.metadata.num_rows and file.metadata.num_columns:
            raise Refused("Parquet file", f"{seen} rows", f"the {file.metadata.num_rows} it claims")
        table = pa.Table.from_batches(parts, schema=file.schema_arrow)
    if len(set(table.column_names)) != len(table.column_names):
        raise Refused("Parquet file", "two columns of one name", "unique names")
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.name in text:
            table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return memoryview(sink.getvalue())


def _limit(limit: int) -> None:
    """Let this process take so much memory and no more, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = 4 * limit + MARGIN  # columns, text written out, the stream
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _check_claims(size: int, metadata: Any, schema: Any, rows: int | None, limit: int) -> None:
    """Refuse what the footer says of itself, before any page is decoded."""
    for field in schema:
        extension = b"ARROW:extension:name" in (field.metadata or {})
        if extension or not allowed(field.type):
            raise Refused(
                "table of isogon",
                f"column {field.name!r} of type {field.type}",
                "numbers, booleans, text and times",
            )
    claimed, columns = metadata.num_rows, metadata.num_columns
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if claimed < 0 or any(g.num_rows < 0 for g in groups):
        raise Refused("Parquet file", f"{claimed} rows")
    if sum(g.num_rows for g in groups) != claimed:
        raise Refused("Parquet file", f"{claimed} rows", "as many as in its row groups")
    if rows is not None and claimed != rows:
        raise Refused("Parquet file", f"{claimed} rows", f"{rows} rows, as was recorded")
    if columns > MAX_COLUMNS:
        raise Refused("Parquet file", f"{columns} columns", f"at most {MAX_COLUMNS}")
    for group in groups:
        for i in range(group.num_columns):
            chunk = group.column(i)
            if chunk.num_values != group.num_rows or chunk.total_compressed_size > size:
                raise Refused("Parquet file", "a column that lies about its size")
            if chunk.total_uncompressed_size > limit:
                raise Refused("Parquet file", "a column that unpacks to too much")
    cells = sum(_width(field.type) for field in schema) * claimed
    if cells > limit:
        raise Refused(
            "Parquet file",
            f"{claimed} rows of {columns} columns, about {cells >> 20} MiB",
            f"at most {limit >> 20} MiB",
        )


def allowed(kind: Any) -> bool:
    """Whether a column is of numbers, booleans, text or times."""
    import pyarrow as pa

    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if t.is_dictionary(kind):
        return allowed(kind.value_type) and not t.is_dictionary(kind.value_type)
    return (
        t.is_boolean(kind)
        or t.is_integer(kind)
        or t.is_floating(kind)
        or t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_null(kind)
        or t.is_temporal(kind)
    )


def _width(kind: Any) -> int:
    """Bytes of a cell in memory, at the least."""
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return 8


def _unpacked(column: Any) -> int:
    """Bytes of a column with its dictionary written out."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made at run time

    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    if not pa.types.is_string(column.type.value_type):
        return column.nbytes + 8 * len(column)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return column.nbytes + (pc.sum(lengths.take(column.indices)).as_py() or 0)


if __name__ == "__main__":
    main()
