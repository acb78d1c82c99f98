"""SIGTERM and Ctrl-C end every command alike: what is finished is kept, the rest goes on later."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types

import pytest

from isogon import stopping
from isogon.cli import main
from isogon.cli.entry import script
from isogon.survey.pages import report
from isogon.survey.running.sweep import Sweep
from isogon.survey.whole.survey import read_survey
from isogon.training import Checkpoint

MODULE = """
import os, pathlib, torch
HERE = pathlib.Path(__file__).parent
class Net(torch.nn.Sequential):
    def forward(self, x):
        act()
        return super().forward(x)
def act():
    # once what is to be finished before is there, the process gets the signal, once
    order = HERE / "order"
    if order.exists():
        number, pattern = order.read_text().split()
        if list(HERE.glob(pattern)):
            order.unlink()
            os.kill(os.getpid(), int(number))
def build(when=""):
    if when == "built":
        act()
    linear = torch.nn.Linear
    return Net(torch.nn.Flatten(), linear(64, 16), torch.nn.ReLU(), linear(16, 10))
"""
PLAN = """
model: [cnn(width=2), "ends:build(built)"]
batches: digits(test, 8)
measures: [orientation]
"""
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(params=CODES, ids=lambda n: n.name)
def order(tmp_path, monkeypatch, request):
    """Have the signal sent once a file is there; gives the exit code to expect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ends.py").write_text(MODULE)

    def write(pattern: str) -> int:
        (tmp_path / "order").write_text(f"{int(request.param)} {pattern}")
        return CODES[request.param]

    # where tests run in the background, Ctrl-C is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    held = [signal.getsignal(n) for n in CODES]
    yield write
    sys.modules.pop("ends", None)
    assert [signal.getsignal(n) for n in CODES] == held
    signal.signal(signal.SIGINT, before)


def told(capsys) -> bool:
    err = capsys.readouterr().err
    return err.count("\n") == 1 and "run the same command to go on" in err


def test_a_survey_keeps_its_records_and_writes_its_page(order, tmp_path, capsys):
    words = ["survey", "ends:build()", "--batches", "digits(test, 24)", "--out", "v",
             "--only", "[orientation,data-matrix,segments]"]  # fmt: skip
    code = order("v/records/orientation-*")
    assert main(words) == code
    assert told(capsys)
    lines = {n.measure: n for n in read_survey(tmp_path / "v").lines}
    assert lines.pop("orientation").status == "done"
    assert {n.reason for n in lines.values()} == {"interrupted; run again to go on"}
    assert "interrupted" in (tmp_path / "v" / "report.html").read_text()
    assert not [p for p in (tmp_path / "v").rglob("*") if p.name.endswith(".part")]
    assert main(words) == 0
    assert all(n.record for n in read_survey(tmp_path / "v").lines)
    # Stopped again, at the second measure, it still shows the third.
    for name in ("orientation", "data_matrix"):
        (held,) = (tmp_path / "v" / "records").glob(f"{name}-*")
        held.rename(tmp_path / name)
    code = order("v/records/orientation-*")
    assert main(words) == code
    lines = {n.measure: n.status for n in read_survey(tmp_path / "v").lines}
    assert lines == {"orientation": "done", "data_matrix": "skipped", "segments": "reused"}


def test_a_page_that_is_being_written_is_finished(order, tmp_path, monkeypatch, capsys):
    words = ["survey", "ends:build()", "--batches", "digits(test, 24)", "--out", "v",
             "--only", "[orientation]"]  # fmt: skip
    code, page, kept = order("nothing"), tmp_path / "v" / "report.html", report.write
    number = {c: n for n, c in CODES.items()}[code]

    def write(done, times):
        for _ in range(times):
            os.kill(os.getpid(), number)
        return kept(done)

    monkeypatch.setattr(report, "write", lambda done: write(done, 2))
    assert main(words) == code
    assert not page.exists(), "who asks twice is obeyed"
    monkeypatch.setattr(report, "write", lambda done: write(done, 1))
    capsys.readouterr()
    assert main(words) == code
    assert page.exists()
    assert told(capsys)


def test_a_sweep_queues_its_job_again_and_writes_its_page(order, tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(PLAN)
    words = ["sweep", "plan.yaml", "--out", "s"]
    code = order("plan.yaml")
    assert main(words) == code
    assert told(capsys)
    states = {s.state: s for s in Sweep.read(tmp_path / "s").states()}
    assert states.keys() == {"done", "queued"}
    assert states["queued"].error == "interrupted"
    assert (tmp_path / "s" / "report.html").is_file()
    assert main(words) == 0
    assert states["done"].attempts == 1


def test_training_goes_on_from_its_file(order, tmp_path, capsys):
    words = ["train", "--arch", "ends:build()", "--data", "digits(train, 200)", "--epochs", "3"]
    assert main([*words, "--out", "calm"]) == 0
    capsys.readouterr()
    code = order("stopped/last.safetensors")
    assert main([*words, "--out", "stopped"]) == code
    assert told(capsys)
    assert main([*words, "--out", "stopped"]) == 0
    calm, stopped = (Checkpoint.load(tmp_path / d / "last.safetensors").weights
                     for d in ("calm", "stopped"))  # fmt: skip
    assert calm.keys() == stopped.keys()
    assert all(calm[k].equal(stopped[k]) for k in calm)


def test_a_measure_is_stopped(order, capsys):
    code = order("ends.py")
    assert main(["data-matrix", "--model", "ends:build()", "--batches", "digits(test, 8)"]) == code
    assert told(capsys)


def test_an_error_that_a_signal_causes_is_no_error(monkeypatch, capsys):
    def importing(words):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None

    monkeypatch.setattr("isogon.cli.entry._dispatch", importing)
    assert main(["list"]) == 143
    assert told(capsys)


def test_signals_that_are_ignored_stay_ignored_and_threads_change_nothing():
    held = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stopping.stoppable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, held)
    seen = []

    def inside():
        with stopping.stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [held]


def test_signals_without_a_name_are_numbered():
    assert stopping.signal_name(11) == "SIGSEGV"
    assert stopping.signal_name(63) == "signal 63"


@pytest.mark.parametrize("group", [False, True])
def test_a_stopped_process_of_several_leaves_at_once(group, monkeypatch):
    """The threads of its process group would abort it while the interpreter says farewell."""
    left = []
    peers = types.SimpleNamespace(is_available=lambda: True, is_initialized=lambda: group)
    monkeypatch.setitem(sys.modules, "torch.distributed", peers)
    monkeypatch.setattr("isogon.cli.entry.main", lambda: 143)
    monkeypatch.setattr(os, "_exit", left.append)
    with pytest.raises(SystemExit) as end:
        script()
    assert end.value.code == 143
    assert left == ([143] if group else [])
