"""Atomic writes and guarded reads."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon import storage
from isogon.errors import FileError, OptionError
from isogon.storage.files import first_line


def test_atomic_writes_and_makes_the_folder(tmp_path):
    path = tmp_path / "a" / "b" / "f.txt"
    with storage.atomic(path) as temporary:
        assert temporary.parent == path.parent
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["f.txt"]


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(UnicodeError), storage.atomic(path) as temporary:
        temporary.write_text("half" + "x" * 100_000 + "\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_permissions_and_links_are_kept(tmp_path):
    path, link = tmp_path / "f", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with storage.atomic(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may write to"),
        (errno.EROFS, "read-only"),
    ],
)
def test_each_cause_has_its_fix(tmp_path, monkeypatch, code, fix):
    path = tmp_path / "f"
    path.write_text("old")

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=fix) as caught, storage.atomic(path) as temporary:
        temporary.write_text("new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


FULL = """
import resource, sys, numpy as np
from isogon import storage
from isogon.errors import FileError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import pandas as pd
write = {
    "tensors": lambda p: storage.write_tensors(p, {"x": np.zeros(100_000)}),
    "table": lambda p: storage.write_table(p, pd.DataFrame({"x": np.random.rand(100_000)})),
    "json": lambda p: storage.write_json(p, ["x" * 1000] * 1000),
}[sys.argv[2]]
try:
    write(sys.argv[1])
except FileError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("what", ["tensors", "table", "json"])
def test_a_full_disk_leaves_the_old_file(tmp_path, what):
    # A limit on the size of files: the kernel refuses the write half-way, as a full disk does.
    path = tmp_path / "f"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL, path, what], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "can't write" in done.stdout
    assert done.stdout.count("\n") == 1
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


WRITER = """
import sys, numpy as np
from isogon import storage
print("ready", flush=True)
value = 0
while True:
    value += 1
    storage.write_tensors(sys.argv[1], {"x": np.full(100_000, value)})
"""


def test_a_kill_leaves_old_or_new(tmp_path):
    path = tmp_path / "f.safetensors"
    for attempt in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        writer.stdout.readline()
        deadline = time.time() + 20
        while not path.exists() and time.time() < deadline:
            time.sleep(0.005)
        time.sleep(0.007 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found = storage.read_tensors(path)[0]["x"]
        assert len(set(found.tolist())) == 1
    for left in tmp_path.glob(".*.part"):  # what the kills left is swept away, an hour later
        os.utime(left, (0, 0))
    storage.write_tensors(path, {"x": np.zeros(1)})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_can_not_be_replaced(tmp_path):
    with pytest.raises(FileError, match="name a file"), storage.atomic(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="may write to"), storage.atomic(tmp_path / "f"):
        pass


def test_another_files_error_is_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError), storage.atomic(tmp_path / "f"):
        open(tmp_path / "absent")  # noqa: SIM115


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("j") / "f.json"
    storage.write_json(path, value)
    again = storage.read_json(path)
    assert json.dumps(again) == json.dumps(value)  # tells NaN, -0.0, 1 and 1.0 apart
    json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))


def test_json_takes_numpy_and_refuses_objects(tmp_path):
    path = tmp_path / "f.json"
    storage.write_json(path, {"a": np.float32(0.5), "b": np.arange(3), "c": (1, np.bool_(True))})
    assert storage.read_json(path) == {"a": 0.5, "b": [0, 1, 2], "c": [1, True]}
    with pytest.raises(OptionError, match="no JSON form"):
        storage.write_json(path, {"a": object()})
    deep: list = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(OptionError, match="nested too deeply"):
        storage.write_json(path, deep)
    assert storage.read_json(path)["a"] == 0.5


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"a": nan}', b"\x80\x04."]
)
def test_hostile_json(tmp_path, data):
    path = tmp_path / "f.json"
    path.write_bytes(data)
    with pytest.raises(FileError, match="no valid JSON file"):
        storage.read_json(path)


def test_json_has_a_limit(tmp_path):
    path = tmp_path / "f.json"
    storage.write_json(path, "x" * 1000)
    with pytest.raises(FileError, match="at most 100 bytes"):
        storage.read_json(path, limit=100)


def test_only_ordinary_files_are_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, says in [(pipe, "a pipe"), (tmp_path, "a folder"), (tmp_path / "pip", "pipe")]:
        with pytest.raises(FileError, match=says):
            storage.read_json(path)
    with pytest.raises(FileError):
        storage.read_json("a\0b")


def test_a_link_that_leads_nowhere_is_said_to_be_one(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name, target in (("a.json", "gone.json"), ("round", "round")):
        with pytest.raises(FileError, match="a link that leads nowhere") as error:
            storage.read_json(tmp_path / name)
        assert repr(str(tmp_path / target)) in str(error.value)
        assert "one of" not in str(error.value)
    with pytest.raises(FileError, match=r"one of: a\.json"):
        storage.read_json(tmp_path / "b.json")


def test_where_an_object_lies_in_memory_is_not_told():
    error = OSError(f"cannot read {io.BytesIO()} at 0x12\nand more")
    assert first_line(error) == "cannot read <_io.BytesIO object> at 0x12"


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".", "..", ".x", "a\0", "x" * 300, None])
def test_inside(tmp_path, name):
    with pytest.raises(FileError, match="outside its folder"):
        storage.inside(tmp_path, name)
    assert storage.inside(tmp_path, "x.json") == tmp_path / "x.json"
