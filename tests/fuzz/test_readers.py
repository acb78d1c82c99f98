"""Spoiled files of every kind: read, or refused in one line; nothing else happens."""

from __future__ import annotations

from collections import Counter

import pytest
import watched

NAMES = (
    *("spec", "plan", "config", "json", "safetensors", "checkpoint", "pt", "onnx", "pt2", "table"),
    *("reading", "record", "survey", "sweep", "state", "pickle", "npz", "idx", "idx-gz", "zip"),
    *("image", "sounds"),
)


def check(lines, counts):
    strange = [line for line in lines if line["outcome"] == "other"]
    assert not strange, strange[:3]
    found = Counter(line["case"].split()[0] for line in lines)
    for name, count in counts.items():
        assert found[name] > count, f"{name}: {found[name]} inputs"
        valid = [x for x in lines if x["case"].startswith(f"{name} -")]
        assert valid, name
        assert all(x["outcome"] == "accepted" for x in valid), valid


def test_a_share_of_spoiled_files(tmp_path):
    counts = dict.fromkeys(NAMES, 40)
    check(watched.run(tmp_path, readers=counts, seed=1), counts)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_spoiled_files(tmp_path, name):
    check(watched.run(tmp_path, readers={name: 2000}, seed=2, timeout=1800), {name: 2000})


def test_the_watch_sees_what_a_reader_does(tmp_path):
    """A reader that starts a process, writes a file, hangs or fails is told apart."""
    script = tmp_path / "readers.py"
    script.write_text(BAD)
    task = tmp_path / "task.json"
    task.write_text(
        '{"folder": "%s", "seconds": 0.5, "memory": 200000000, "cases": []}' % tmp_path  # noqa: UP031
    )
    import json
    import subprocess
    import sys

    code = watched.CHILD.read_text().replace(
        "sys.path.insert(0, str(Path(__file__).resolve().parent))", ""
    )
    (tmp_path / "child.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "child.py", "task.json"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    lines = {x["case"]: x for x in map(json.loads, done.stdout.splitlines())}
    assert lines["fine"]["outcome"] == "accepted"
    assert lines["refused"]["outcome"] == "refused"
    for name, detail in (("process", "subprocess.Popen"), ("writes", "open"), ("hangs", "over"),
                         ("raw", "KeyError"), ("memory", "MemoryError"), ("socket", "socket"),
                         ("lines", "\n")):  # fmt: skip
        assert lines[name]["outcome"] == "other", name
        assert detail in lines[name]["detail"], lines[name]


BAD = """
import socket, subprocess
class IsogonError(Exception): pass
def refuse(text): raise IsogonError(text)
def cases(task, folder):
    yield "fine", lambda: None
    yield "refused", lambda: refuse("no")
    yield "lines", lambda: refuse("no\\nno")
    yield "process", lambda: subprocess.run(["true"])
    yield "writes", lambda: open("x", "w").close()
    yield "raw", lambda: {}["a"]
    yield "memory", lambda: bytes(10**9)
    yield "socket", lambda: socket.socket().bind(("127.0.0.1", 0))
    def hang():
        while True: pass
    yield "hangs", hang
"""
