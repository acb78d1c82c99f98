"""Parquet: exact round trips; footers that lie and tables that unpack to too much are refused."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isogon import storage
from isogon.errors import FileError, OptionError


def table(rows=100):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "site": [f"layer{i % 3}" for i in range(rows)],
            "unit": np.arange(rows),
            "value": np.where(np.arange(rows) % 7 == 0, np.nan, rng.normal(size=rows)),
            "small": rng.normal(size=rows).astype(np.float32),
            "live": np.arange(rows) % 2 == 0,
            "when": pd.date_range("2026-01-01", periods=rows),
        }
    )


def test_round_trip(tmp_path):
    path = tmp_path / "t.parquet"
    frame = table()
    frame.loc[3, "value"], frame.loc[4, "value"] = np.inf, -0.0
    storage.write_table(path, frame.set_index(frame["unit"] * 2))
    again = storage.read_table(path, rows=100)
    pd.testing.assert_frame_equal(again, frame, check_dtype=False)
    assert (again.dtypes.drop("when") == frame.dtypes.drop("when")).all()
    assert np.signbit(again["value"][4])
    assert pq.read_table(path)["value"].null_count == 0  # NaN is a number, not a gap


def test_many_batches_and_categories(tmp_path):
    path = tmp_path / "t.parquet"
    frame = table(150_000)
    frame["kind"] = pd.Categorical(frame["site"])
    storage.write_table(path, frame)
    again = storage.read_table(path)
    assert again["site"].tolist() == frame["site"].tolist()
    assert again["kind"].astype(str).tolist() == frame["site"].tolist()
    np.testing.assert_array_equal(again["value"], frame["value"])


def test_empty(tmp_path):
    path = tmp_path / "t.parquet"
    for frame in (pd.DataFrame(), pd.DataFrame({"x": np.zeros(0), "s": pd.Series([], dtype=str)})):
        storage.write_table(path, frame)
        again = storage.read_table(path)
        assert list(again.columns) == list(frame.columns)
        assert len(again) == 0


def test_what_has_no_form_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    mixed = pd.DataFrame({"x": [1, "a"]})
    double = pd.DataFrame([[1, 2]], columns=["x", "x"])
    nested = pd.DataFrame({"x": [[1], [2]]})
    periods = pd.DataFrame({"x": pd.period_range("2026", periods=2, freq="M")})
    for frame in (mixed, double, nested, periods):
        with pytest.raises(OptionError):
            storage.write_table(path, frame)
    assert not path.exists()


def varint(value: int) -> bytes:
    """Zigzag varint of Thrift's compact protocol."""
    value, out = value << 1, b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def lie(path, rows: int, claimed: int, everywhere: bool):
    """Rewrite the number of rows in the footer (field 3 of the file's and a group's record)."""
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - size], data[-8 - size : -8]
    old, new = b"\x16" + varint(rows), b"\x16" + varint(claimed)
    assert footer.count(old) >= 2
    footer = footer.replace(old, new) if everywhere else footer.replace(old, new, 1)
    path.write_bytes(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("claimed", [99, 101, 10**6, 10**9, 2**40, 2**62])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_footer_that_lies(tmp_path, claimed, everywhere):
    path = tmp_path / "t.parquet"
    storage.write_table(path, table()[["unit", "value", "site"]])
    lie(path, 100, claimed, everywhere)
    tracemalloc.start()
    if claimed > 100 or not everywhere:  # fewer rows, told alike at every place, are a table
        with pytest.raises(FileError, match="no valid Parquet file"):
            storage.read_table(path)
    with pytest.raises(FileError, match="no valid Parquet file"):
        storage.read_table(path, rows=100)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_recorded_rows_are_demanded(tmp_path):
    path = tmp_path / "t.parquet"
    storage.write_table(path, table())
    with pytest.raises(FileError, match="101 rows, as was recorded"):
        storage.read_table(path, rows=101)


def test_what_unpacks_to_too_much(tmp_path):
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"x": np.zeros(3_000_000)}), numbers)
    assert numbers.stat().st_size < 50_000
    with pytest.raises(FileError, match="at most 9 MiB"):
        storage.read_table(numbers, limit=10_000_000)
    text = tmp_path / "text.parquet"  # one long text, many times: a dictionary of one entry
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["x" * 100_000])
    pq.write_table(pa.table({"x": words}), text, store_schema=False)
    assert text.stat().st_size < 200_000
    with pytest.raises(FileError, match="more data than"):
        storage.read_table(text, limit=1_000_000_000)


CODE = """
import sys, resource
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
from isogon import storage
from isogon.errors import FileError
try:
    storage.read_table(sys.argv[1])
except FileError as error:
    print(error)
"""


def test_an_extension_type_is_never_built(tmp_path):
    class Trap(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.int64(), "isogon.trap")

        def __arrow_ext_serialize__(self):
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage, serialized):
            return cls()

    pa.register_extension_type(Trap())
    try:
        path = tmp_path / "t.parquet"
        column = pa.ExtensionArray.from_storage(Trap(), pa.array([1, 2]))
        pq.write_table(pa.table({"x": column}), path)
        with pytest.raises(FileError, match="no valid table"):
            storage.read_table(path)
    finally:
        pa.unregister_extension_type("isogon.trap")


def test_other_types_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    for column in (pa.array([[1], [2]]), pa.array([{"a": 1}]), pa.array([b"\x80\x04."])):
        pq.write_table(pa.table({"x": column}), path)
        with pytest.raises(FileError, match="numbers, booleans, text and times"):
            storage.read_table(path)


def test_truncations_and_other_files(tmp_path):
    path = tmp_path / "t.parquet"
    storage.write_table(path, table())
    data = path.read_bytes()
    for size in (0, 4, 11, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FileError, match="no valid Parquet file"):
            storage.read_table(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            found = storage.read_table(path, rows=100)
        except FileError:
            continue
        assert len(found) == 100
    path.write_bytes(data[: len(data) // 3] + b"\xff" * 64 + data[len(data) // 3 :])
    done = subprocess.run([sys.executable, "-c", CODE, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
