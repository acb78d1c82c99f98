"""Tidy tables in Parquet files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.errors import FileError, OptionError
from isogon.storage.files import atomic, damaged, first_line, memory_limit, regular

if TYPE_CHECKING:
    import pandas as pd

BATCH = 65_536  # rows decoded at a time
MAX_COLUMNS = 20_000


def write_table(path: str | os.PathLike, frame: pd.DataFrame) -> None:
    """Write a data frame as a Parquet file, atomically; its index is not kept.

    NaN stays NaN and is not a missing value. Columns hold numbers, booleans, text or times.

    Args:
        path: The file to write.
        frame: The table; column names are unique.

    Raises:
        FileError: The file can't be written.
        OptionError: A column mixes types, or a name occurs twice.
    """
    import pyarrow.parquet as pq

    table = to_arrow(frame)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", store_schema=True)


def to_arrow(frame: pd.DataFrame) -> Any:
    """The Arrow table of a data frame, with nothing in it that only pandas understands."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for position, label in enumerate(frame.columns):
        name = str(label)
        series: Any = frame.iloc[:, position]
        if name in columns:
            raise OptionError("two columns of one name", got=repr(name), expected="unique names")
        try:
            # pandas' own conversion would turn NaN into a missing value
            missing = not (series.dtype.kind in "fiub" and hasattr(series.dtype, "newbyteorder"))
            array = pa.Array.from_pandas(series) if missing else pa.array(series.to_numpy())
            if isinstance(array, pa.ChunkedArray):
                array = array.combine_chunks()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise _column_error(name, first_line(error)) from error
        if not _allowed(array.type):
            raise _column_error(name, str(array.type))
        columns[name] = array
    return pa.table(columns)


def read_table(
    path: str | os.PathLike, *, rows: int | None = None, limit: int | None = None
) -> pd.DataFrame:
    """Read a Parquet file.

    Args:
        path: The file.
        rows: Number of rows that it must have, where another file recorded it.
        limit: Most bytes that it may unpack to; half of the machine's memory by default.

    Returns:
        The table, with a fresh index.

    Raises:
        FileError: Missing, damaged, of columns other than numbers, text and times, of another
            number of rows than it (or the manifest) claims, or larger than ``limit``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = regular(Path(path), "Parquet file")
    limit = memory_limit() if limit is None else limit
    try:
        schema = pq.read_schema(path)
        text = [f.name for f in schema if pa.types.is_string(f.type)]
        # Repeated text stays a dictionary while it is counted: a few bytes can claim gigabytes.
        with pq.ParquetFile(path, read_dictionary=text, memory_map=False) as file:
            _check_claims(path, file.metadata, file.schema_arrow, rows, limit)
            parts, used, seen = [], 0, 0
            for batch in file.iter_batches(batch_size=BATCH):
                used += sum(_unpacked(column) for column in batch.columns)
                seen += batch.num_rows
                if used > limit or seen > file.metadata.num_rows:
                    raise damaged(path, "Parquet file", "more data than it claims or may hold")
                parts.append(batch)
            if seen != file.metadata.num_rows and file.metadata.num_columns:
                raise damaged(
                    path, "Parquet file", f"{seen} rows", f"the {file.metadata.num_rows} it claims"
                )
            table = pa.Table.from_batches(parts, schema=file.schema_arrow)
        if len(set(table.column_names)) != len(table.column_names):
            raise damaged(path, "Parquet file", "two columns of one name", "unique names")
        for i, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type) and field.name in text:
                table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
        return table.to_pandas(ignore_metadata=True)
    except FileError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise damaged(path, "Parquet file", first_line(error)) from error


# --------------------------------------------------------------------------- internals


def _check_claims(path: Path, metadata: Any, schema: Any, rows: int | None, limit: int) -> None:
    """Refuse what the footer says of itself, before any page is decoded."""
    for field in schema:
        if not _allowed(field.type):
            raise damaged(
                path,
                "table of isogon",
                f"column {field.name!r} of type {field.type}",
                "numbers, booleans, text and times",
            )
    claimed, columns = metadata.num_rows, metadata.num_columns
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if claimed < 0 or any(g.num_rows < 0 for g in groups):
        raise damaged(path, "Parquet file", f"{claimed} rows")
    if sum(g.num_rows for g in groups) != claimed:
        raise damaged(path, "Parquet file", f"{claimed} rows", "as many as in its row groups")
    if rows is not None and claimed != rows:
        raise damaged(path, "Parquet file", f"{claimed} rows", f"{rows} rows, as was recorded")
    if columns > MAX_COLUMNS:
        raise damaged(path, "Parquet file", f"{columns} columns", f"at most {MAX_COLUMNS}")
    size = path.stat().st_size
    for group in groups:
        for i in range(group.num_columns):
            chunk = group.column(i)
            if chunk.num_values != group.num_rows or chunk.total_compressed_size > size:
                raise damaged(path, "Parquet file", "a column that lies about its size")
            if chunk.total_uncompressed_size > limit:
                raise damaged(path, "Parquet file", "a column that unpacks to too much")
    cells = sum(_width(field.type) for field in schema) * claimed
    if cells > limit:
        raise damaged(
            path,
            "Parquet file",
            f"{claimed} rows of {columns} columns, about {cells >> 20} MiB",
            f"at most {limit >> 20} MiB",
        )


def _allowed(kind: Any) -> bool:
    import pyarrow as pa

    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if t.is_dictionary(kind):
        return _allowed(kind.value_type) and not t.is_dictionary(kind.value_type)
    return (
        t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_string(kind)
        or t.is_large_string(kind) or t.is_null(kind) or t.is_temporal(kind)
    )  # fmt: skip


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


def _column_error(name: str, got: str) -> OptionError:
    return OptionError(
        f"column {name!r} can't be stored",
        got=got,
        expected="one type per column: numbers, booleans, text or times",
        fix="Convert the column, e.g. to text.",
    )
