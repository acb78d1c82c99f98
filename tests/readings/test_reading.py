"""Readings come back as they were saved, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import isogon as ig
from isogon import registry
from isogon.errors import FileError, OptionError
from isogon.readings import Curve, Grid, Reading, SampleTable, SiteTable, export
from isogon.readings import Path as WalkPath

KINDS = [Reading, SiteTable, SampleTable, Curve, WalkPath, Grid]


def example(kind=SiteTable, value=1.0, **kwargs):
    table = pd.DataFrame({"site": ["a", "a", "b"], "unit": [0, 1, 0], "x": [value, np.nan, np.inf]})
    fields = {
        "arrays": {"f": np.array([[1.5, -0.0], [np.nan, -np.inf]], np.float32), "n": np.array(7)},
        "axes": {"f": ("step", "site")},
        "coords": {"step": [0, 1], "site": ["a", "b"]},
        "units": {"x": "pixel"},
        "meta": {"options": {"k": (1, 2)}, "low": float("-inf"), "$float": "text"},
    }
    return kind("example", table, **{**fields, **kwargs})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_itself(kind, tmp_path):
    reading = example(kind, complete=False)
    again = ig.read(reading.save(tmp_path / "r"))
    assert type(again) is kind
    assert reading.equals(again)
    assert not again.complete
    assert list(again.arrays) == ["f", "n"]
    assert np.signbit(again.arrays["f"][0, 1])
    assert again.arrays["n"].shape == ()
    pd.testing.assert_frame_equal(again.to_frame(), reading.to_frame())


floats = st.floats(width=64, allow_nan=True, allow_infinity=True)
columns = st.one_of(
    st.lists(floats, min_size=4, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=4, max_size=4),
)
dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
metas = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(
    table=st.dictionaries(st.text(min_size=1, max_size=5), columns, max_size=4),
    held=st.dictionaries(st.text(max_size=4), arrays, max_size=3),
    meta=st.dictionaries(st.text(max_size=4), metas, max_size=3),
)
def test_round_trip_is_exact(tmp_path_factory, table, held, meta):
    held.pop("__metadata__", None)
    reading = Reading("any", pd.DataFrame(table), arrays=held, meta=meta)
    again = ig.read(reading.save(tmp_path_factory.mktemp("r")))
    assert reading.equals(again)
    for name in table:
        mine, theirs = reading.table[name].to_numpy(), again.table[name].to_numpy()
        assert mine.dtype.kind == theirs.dtype.kind
        np.testing.assert_array_equal(mine, theirs)


def test_equals_sees_every_difference():
    reading = example()
    assert reading.equals(example())
    assert not reading.equals(example(SampleTable))
    assert not reading.equals(example(value=1.0 + 1e-15))
    assert not reading.equals(example(complete=False))
    assert not reading.equals(example(meta={}))
    assert not reading.equals(example(units={}))
    assert not reading.equals(example(arrays={}, axes={}))
    timed = [example(value=v, meta={"clock": ["x"]}) for v in (1.0, 2.0)]
    assert timed[0].equals(timed[1]), "what a clock gave is left out"
    assert not timed[0].equals(example(meta={"clock": []}))


def test_saving_again_replaces_and_leaves_other_files(tmp_path):
    example(value=1.0).save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "table-of-mine.parquet").write_text("mine")
    example(value=2.0).save(tmp_path)
    assert ig.read(tmp_path).table["x"][0] == 2.0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 5, names
    assert {"notes.txt", "reading.json", "table-of-mine.parquet"} <= set(names)
    assert ig.read(tmp_path / "reading.json").equals(example(value=2.0))


WRITER = """
import sys, numpy as np, pandas as pd
from isogon.readings import SiteTable
value = 1.0
print("ready", flush=True)
while True:
    value += 1
    table = pd.DataFrame({"x": np.full(20_000, value)})
    SiteTable("m", table, arrays={"y": np.full(50_000, value)}).save(sys.argv[1])
"""


def test_a_kill_leaves_old_or_new(tmp_path):
    for attempt in range(6):
        folder = tmp_path / "r"
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE)
        writer.stdout.readline()
        deadline = time.time() + 20
        while not (folder / "reading.json").exists() and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        reading = ig.read(folder)
        assert reading.table["x"].nunique() == 1
        assert reading.table["x"][0] == reading.arrays["y"][0] == reading.arrays["y"][-1]


@pytest.mark.parametrize("broken", ["write_json", "write_tensors", "write_table"])
def test_a_failure_leaves_the_old_reading(tmp_path, monkeypatch, broken):
    example(value=1.0).save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(path, *args, **kwargs):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(f"isogon.readings.files.storage.{broken}", fail)
    with pytest.raises((FileError, OSError)):
        example(value=2.0, arrays={"f": np.zeros((2, 2))}).save(tmp_path)
    monkeypatch.undo()
    assert ig.read(tmp_path).equals(example(value=1.0))
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert before.items() <= after.items()


def rewrite(folder: Path, **changes):
    manifest = json.loads((folder / "reading.json").read_text())
    manifest.update(changes)
    (folder / "reading.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"class": "os.system"}, "unknown class"),
        ({"class": 3}, "no valid reading"),
        ({"format": "pickle"}, "no manifest"),
        ({"version": 99}, "another version"),
        ({"version": "1"}, "another version"),
        ({"files": {}}, "no valid reading"),
        ({"files": [1]}, "no valid reading"),
        ({"columns": ["x"]}, "other columns"),
        ({"axes": {"f": ["a"]}}, "does not fit"),
        ({"axes": 3}, "no valid reading"),
        ({"coords": {"step": [1, 2, 3]}}, "does not fit"),
    ],
)
def test_hostile_manifests(tmp_path, changes, says):
    example().save(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(FileError, match=says):
        ig.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/passwd", "a/b.parquet", "..", "", ".hidden", 7, "link"]
)
def test_a_manifest_can_not_leave_its_folder(tmp_path, name):
    folder = tmp_path / "r"
    example().save(folder)
    secret = tmp_path / "secret.parquet"
    secret.write_bytes(next(folder.glob("table*")).read_bytes())
    (folder / "link").symlink_to(secret)
    files = json.loads((folder / "reading.json").read_text())["files"]
    files["table"]["name"] = name
    rewrite(folder, files=files)
    with pytest.raises(FileError, match="outside its folder"):
        ig.read(folder)


@pytest.mark.parametrize("change", ["truncate", "flip", "remove", "rows"])
def test_damaged_parts_are_refused(tmp_path, change):
    example().save(tmp_path)
    for part in ("table", "arrays"):
        path = next(tmp_path.glob(f"{part}-*"))
        data = path.read_bytes()
        if change == "truncate":
            path.write_bytes(data[:-7])
        elif change == "flip":
            path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        elif change == "remove":
            path.unlink()
        else:
            files = json.loads((tmp_path / "reading.json").read_text())["files"]
            files["table"]["rows"] = 10**12
            rewrite(tmp_path, files=files)
        with pytest.raises(FileError):
            ig.read(tmp_path)
        path.write_bytes(data)


def test_nothing_there(tmp_path):
    with pytest.raises(FileError, match="no reading in"):
        ig.read(tmp_path)
    with pytest.raises(FileError, match="Check the path"):
        ig.read(tmp_path / "absent")


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match=r"can.t write .*choose another folder"):
        example().save(tmp_path / "file" / "r")
    assert (tmp_path / "file").read_text() == "x"


def test_axes_are_checked():
    with pytest.raises(OptionError, match="does not fit its axes"):
        example(axes={"f": ("step",)})
    with pytest.raises(OptionError, match="which is no array"):
        example(axes={"g": ("step", "site")})
    with pytest.raises(OptionError, match="no JSON form"):
        example(meta={"f": object()})


def test_grid_of():
    values = np.array([[1.0, 0.25], [np.nan, 0.5]])
    grid = Grid.of("similarity", values, {"site_a": ["x", "y"], "site_b": ["u", "v"]})
    assert list(grid.to_frame().columns) == ["site_a", "site_b", "similarity"]
    assert grid.to_frame().iloc[1].tolist() == ["x", "v", 0.25]
    assert grid.summary().columns.tolist() == ["site_a", "u", "v"]
    two = Grid.of("reset", {"accuracy": values, "drop": 1 - values}, {"site": [1, 2], "at": [3, 4]})
    assert list(two.to_frame().columns) == ["site", "at", "accuracy", "drop"]
    with pytest.raises(OptionError):
        Grid.of("similarity", values, {"a": ["x"], "b": ["u", "v"]})


def test_summaries():
    summary = example().summary()
    assert summary["site"].tolist() == ["a", "b"]
    assert summary["units"].tolist() == [2, 1]
    assert summary["x"][0] == 1.0
    assert np.isnan(summary["x"][1])  # an infinite value is not averaged
    given = example(meta={"summary": {"site": ["a"], "mass": [0.5]}})
    assert given.summary().to_dict("list") == {"site": ["a"], "mass": [0.5]}
    assert "mean" in SampleTable("m", pd.DataFrame({"x": [1.0, 3.0]})).summary()


def test_repr_is_short_and_says_what_it_is():
    text = repr(example(complete=False))
    assert text.startswith("SiteTable of example: 3 units (incomplete)")
    assert "f [step 2, site 2] float32" in text
    big = SampleTable("m", pd.DataFrame({f"c{i}": range(1000) for i in range(100)}))
    assert len(repr(big)) < 2000


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_export(tmp_path, format):
    path = export(example(), tmp_path / f"out.{format}")
    if format == "csv":
        frame = pd.read_csv(path)
        assert frame["x"][2] == np.inf
    elif format == "json":
        found = json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(c))
        assert found["table"]["x"] == [1.0, None, "inf"]
        assert found["class"] == "SiteTable"
    else:
        pd.testing.assert_frame_equal(pd.read_parquet(path), example().table)
    with pytest.raises(OptionError, match="json, csv, parquet or tex"):
        export(example(), tmp_path / "out.pickle")


def test_a_class_of_another_package_registers_itself(tmp_path):
    class Special(SampleTable):
        pass

    try:
        assert type(ig.read(example(Special).save(tmp_path))) is Special
    finally:
        registry._entries["reading"].pop("Special")
    with pytest.raises(FileError, match=r"unknown class.*'Special'.*Install"):
        ig.read(tmp_path)
