"""Tidy tables in Parquet files.

A file that was made to do harm can end the process that reads it inside Parquet's own library,
whatever is checked before. So tables are read by a process of little memory beside this one
(`isogon.storage.table_reader`); what it makes of them comes back as an Arrow stream.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.errors import OptionError
from isogon.storage.files import atomic, damaged, first_line, memory_limit, regular
from isogon.storage.table_reader import allowed

if TYPE_CHECKING:
    import pandas as pd

SECONDS = 60.0  # that reading a table may take, and one more for each MiB


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
        if not allowed(array.type):
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

    path = regular(Path(path), "Parquet file")
    limit = memory_limit() if limit is None else limit
    answer = _ask({"path": str(path.resolve()), "rows": rows, "limit": limit}, path)
    with pa.ipc.open_stream(answer) as stream:
        return stream.read_all().to_pandas(ignore_metadata=True)


# --------------------------------------------------------------------------- internals


class _Reader:
    """The process that reads Parquet: one for this process, started when it is first needed."""

    def __init__(self) -> None:
        self.lock, self.owner = threading.Lock(), -1
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """The running process; a fork has its own, a dead one is replaced."""
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            program = Path(__file__).with_name("table_reader.py")
            paths = os.pathsep.join(p for p in sys.path if p)
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
            self.owner = os.getpid()
        return self.process

    def stop(self) -> str:
        """End the process; how it ended."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return ""
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            code = process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "it took too long"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


_reader = _Reader()
atexit.register(_reader.stop)


def _ask(question: dict[str, Any], path: Path) -> bytes:
    """What the reading process answers, as an Arrow stream.

    Raises:
        FileError: It refuses the file, or the file ended it (twice: it may have died of
            something else before).
    """
    with _reader.lock:
        for attempt in (0, 1):
            found = _answered(question, SECONDS + path.stat().st_size / 2**20)
            if found is not None:
                break
            how = _reader.stop()
            if attempt:
                raise damaged(path, "Parquet file", f"its reader ended ({how})")
    assert found is not None
    if found[0] == b"E":
        raise damaged(path, *json.loads(found[1]))
    return found[1]


def _answered(question: dict[str, Any], seconds: float) -> tuple[bytes, bytes] | None:
    """Letter and content of one answer; None where the process ended or took too long."""
    process = _reader.start()
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(seconds, process.kill)
    watch.start()
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        head = process.stdout.read(9)
        size = int.from_bytes(head[1:], "little")
        answer = process.stdout.read(size) if len(head) == 9 else b""
    except OSError:
        return None
    finally:
        watch.cancel()
    return (head[:1], answer) if len(head) == 9 and len(answer) == size else None


def _column_error(name: str, got: str) -> OptionError:
    return OptionError(
        f"column {name!r} can't be stored",
        got=got,
        expected="one type per column: numbers, booleans, text or times",
        fix="Convert the column, e.g. to text.",
    )
