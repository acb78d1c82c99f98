"""Jobs become records; records are addressed by content, kept whole, found again."""

from __future__ import annotations

import json
import os
import shlex
import shutil

import pandas as pd
import pytest
import torch
from torch import nn

from isogon import registry
from isogon.errors import FileError, OptionError, SpecError
from isogon.readings import SampleTable
from isogon.survey.declaring.job import Job
from isogon.survey.running import run as runner
from isogon.survey.running.record import load, scan

CALLS = []


def fake_energy(
    model: Module,  # noqa: F821
    batches: Batches,  # noqa: F821
    *,
    other: Module | None = None,  # noqa: F821
    scale: float = 1.0,
    tolerances: tuple[float, ...] = (1e-3, 1e-6),
    generator: torch.Generator | None = None,
) -> SampleTable:
    """Mean of the outputs, and a random number.

    Args:
        model: Any module.
        batches: Labelled samples.
        other: Another one.
        scale: Factor.
        tolerances: Not used.
        generator: Randomness.
    """
    CALLS.append(scale)
    rows = [scale * model(x).mean().item() for x, _ in batches]
    noise = torch.rand(1, generator=generator).item()
    return SampleTable(
        "fake_energy", pd.DataFrame({"sample": range(len(rows)), "e": rows, "n": noise})
    )


def linear(spec: str) -> nn.Module:
    """A module whose weights are the number in its spec."""
    from isogon.specs import parse

    net = nn.Linear(2, 1)
    nn.init.constant_(net.weight, float((parse(spec).args or (1,))[0]))
    nn.init.zeros_(net.bias)
    return net


class Ones:
    """Two batches of ones."""

    samples, count, name = None, 4, "ones"

    def __iter__(self):
        for _ in range(2):
            yield torch.ones(2, 2), torch.zeros(2)

    def __len__(self):
        return 2

    def first(self, n):
        return torch.ones(n, 2), torch.zeros(n)


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    CALLS.clear()
    registry.names("noun")  # the real ones first, so that the fakes stand in for them
    registry.names("measure")
    kept = {k: dict(registry._entries[k]) for k in ("noun", "measure")}
    registry._entries["noun"].pop("Module", None)
    registry._entries["noun"].pop("Batches", None)
    registry.register("noun", "Module")(linear)
    registry.register("noun", "Batches")(lambda spec: Ones())
    registry.register("measure", "fake_energy")(fake_energy)
    yield
    for kind, entries in kept.items():
        registry._entries[kind].clear()
        registry._entries[kind].update(entries)


def job(**extra):
    return Job("fake_energy", {"model": "linear(2)", "batches": "ones"}, extra)


def test_specs_become_objects_and_options_reach_the_measure():
    record = runner.run(job(scale=3))
    assert record.reading.table["e"].tolist() == [12.0, 12.0]  # 3 * (2 + 2)
    assert record.job.options["tolerances"] == (1e-3, 1e-6)
    assert {"versions", "seconds", "device", "fingerprints", "seed"} <= set(record.provenance)


def test_running_again_computes_nothing(tmp_path):
    first = runner.run(job(), out=tmp_path)
    again = runner.run(job(), out=tmp_path)
    assert len(CALLS) == 1
    assert again.reused
    assert not first.reused
    assert again.reading.equals(first.reading)
    assert again.directory == first.directory
    spaced = Job("fake_energy", {"model": " linear( 2 )", "batches": "ones"}, {"scale": 1.0})
    assert runner.run(spaced, out=tmp_path).reused, "equal specs are one job"


@pytest.mark.parametrize("change", ["option", "seed", "weights"])
def test_another_job_is_another_record(tmp_path, change):
    first = runner.run(job(), out=tmp_path)
    model = "linear(3)" if change == "weights" else "linear(2)"
    other = Job(
        "fake_energy",
        {"model": model, "batches": "ones"},
        {"scale": 2.0} if change == "option" else {},
        seed=int(change == "seed"),
    )
    second = runner.run(other, out=tmp_path)
    assert second.key != first.key
    assert len(scan(tmp_path)) == 2


def test_weights_changed_under_the_same_spec_are_noticed(tmp_path, monkeypatch):
    first = runner.run(job(), out=tmp_path)
    registry._entries["noun"].pop("Module")
    registry.register("noun", "Module")(lambda spec: linear("linear(7)"))
    second = runner.run(job(), out=tmp_path)
    assert not second.reused
    assert second.key != first.key


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "delete", "garbage", "empty", "no_manifest"]
)
def test_damaged_records_are_computed_again(tmp_path, damage):
    first = runner.run(job(), out=tmp_path)
    files = sorted(p for p in (first.directory / "reading").rglob("*") if p.is_file())
    victim = max(files, key=lambda p: p.stat().st_size)
    data = victim.read_bytes()
    if damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        victim.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif damage == "delete":
        victim.unlink()
    elif damage == "garbage":
        (first.directory / "record.json").write_text('{"format": 1, "files": [')
    elif damage == "no_manifest":
        (first.directory / "record.json").unlink()
    else:
        shutil.rmtree(first.directory)
        first.directory.mkdir()
    assert load(first.directory) is None
    again = runner.run(job(), out=tmp_path)
    assert not again.reused
    assert len(CALLS) == 2
    assert again.reading.equals(first.reading)
    assert runner.run(job(), out=tmp_path).reused
    assert not list(tmp_path.glob(".*")), "no temporary folders stay behind"


def test_a_record_with_the_reading_of_another_is_none(tmp_path):
    """Each file of it is whole, and says so."""
    first, second = (runner.run(job(scale=s), out=tmp_path) for s in (1.0, 2.0))
    shutil.rmtree(first.directory / "reading")
    shutil.copytree(second.directory / "reading", first.directory / "reading")
    assert load(second.directory) is not None
    assert load(first.directory) is None
    assert runner.run(job(scale=1.0), out=tmp_path).reading.equals(first.reading)


def test_an_interrupted_measure_leaves_nothing(tmp_path, monkeypatch):
    def stop(self, directory):
        (directory / "half").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(SampleTable, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        runner.run(job(), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_away_after_a_while(tmp_path):
    old, young, other = (
        tmp_path / name for name in (".a-1.0a1b2c3d.part", ".b-1.0a1b2c3d.old", ".mine")
    )
    for path in (old, young, other):
        (path / "reading").mkdir(parents=True)
    for path in (old, other):
        os.utime(path, (0, 0))
    runner.run(job(), out=tmp_path)
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def test_seed_seeds_the_generator():
    draws = [
        runner.run(Job("fake_energy", job().inputs, seed=s)).reading.table["n"][0]
        for s in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (Job("fake_enrgy", {}), SpecError, "fake_energy"),
        (Job("fake_energy", {"model": "linear"}), OptionError, "--batches"),
        (Job("fake_energy", {"model": "linear", "batchs": "ones"}), OptionError, "batches"),
        (Job("fake_energy", {"model": "linear(", "batches": "ones"}), SpecError, "linear("),
        (job(scal=1.0), OptionError, "scale"),
        (job(scale="big"), OptionError, "float"),
        (job(tolerances=("a",)), OptionError, "float"),
    ],
)
def test_wrong_jobs_are_refused_before_anything_runs(tmp_path, wrong, error, words):
    with pytest.raises(error) as caught:
        runner.run(wrong, out=tmp_path / "never")
    text = str(caught.value)
    assert words in text
    assert "expected" in text
    assert not CALLS
    assert not (tmp_path / "never").exists()


def test_a_folder_that_cannot_be_written_is_told_before_work_starts(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="--out"):
        runner.run(job(), out=tmp_path / "file" / "sub")
    assert not CALLS
    assert (tmp_path / "file").read_text() == "mine"


def test_objects_are_built_once_per_session(monkeypatch):
    built = []
    registry._entries["noun"].pop("Module")
    registry.register("noun", "Module")(lambda spec: built.append(spec) or linear(spec))
    session = runner.Session()
    for scale in (1.0, 2.0):
        runner.run(job(scale=scale), session=session)
    assert built == ["linear(2)"]


def test_job_round_trips_and_prints_its_command():
    original = Job("fake_energy", {"model": "my.mod:f('a b')"}, {"tolerances": (0.5, 1e-6)}, 3)
    assert Job.from_json(json.loads(json.dumps(original.to_json()))) == original
    words = shlex.split(original.command())
    assert words == [
        *("isogon", "fake-energy", "--model", "my.mod:f('a b')"),
        *("--tolerances", "[0.5,1e-06]", "--seed", "3"),
    ]


def test_device_that_is_not_there_is_named():
    with pytest.raises(OptionError, match="cpu"):
        runner.Session(device="cuda:77")


def test_fingerprints_tell_content_apart():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.load_state_dict(a.state_dict())
    assert runner.fingerprint(a, "x") == runner.fingerprint(b, "x")
    with torch.no_grad():
        b.weight[0, 0] = b.weight[0, 0].nextafter(torch.tensor(9.0))
    assert runner.fingerprint(a, "x") != runner.fingerprint(b, "x")
