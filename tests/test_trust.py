"""What a file says is data: nothing that it names is imported, opened, trained or downloaded."""

from __future__ import annotations

import inspect
import json
import sys

import pytest
import torch

import isogon as ig
from isogon import context, nets, registry, storage
from isogon.cli import main
from isogon.errors import FileError, IsogonError, SpecError
from isogon.nets.arch.torchvision_models import NAMES
from isogon.specs import Spec, names_code, parse
from isogon.survey.declaring.job import Job
from isogon.survey.declaring.plan import expand
from isogon.survey.running import sweep as sweeps
from isogon.survey.running.sweep import Surroundings, Sweep, work
from isogon.survey.whole.survey import Survey
from isogon.training import FitConfig
from isogon.training.checkpoint import Checkpoint
from isogon.training.snapshots import snapshots

SPEC = "mlp(4, 1, inputs=2, classes=3)"
EVIL = "evil_module:run()"
HOSTILE = (
    EVIL,
    "evil_module:run('x')[0]",
    "cnn@evil.safetensors",
    "evil.onnx",
    "trained(cnn, digits)",
    "trained('evil_module:run()', digits)",
    "normalized('normalized(\"evil_module:run()\")')",
    "normalized(normalized(evil_module:run()[0]))",
    "normalized(cnn@evil.safetensors)",
    "resnet18(weights=DEFAULT)",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a module that says so when it is imported."""
    (tmp_path / "evil_module.py").write_text(
        "import pathlib\npathlib.Path('imported').touch()\n"
        "def run(*a, **k):\n    pathlib.Path('called').touch()\n    import torch\n"
        "    return torch.nn.Linear(2, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("evil_module", None)


def untouched(folder) -> bool:
    trained = list((folder / "cache").glob("trained/*")) if (folder / "cache").is_dir() else []
    return not (folder / "imported").exists() and not trained


def file_of(spec: str, name: str = "evil.safetensors", **meta) -> str:
    """A checkpoint whose metadata holds a spec."""
    state = nets.build(SPEC).state_dict()
    facts = {"spec": spec, "normalize": None, "shape": [2], "classes": [], "config": {}}
    counts = {"epoch": 1, "step": 1, "batch": 0, "metrics": {}, "history": [], "state": {}}
    storage.write_tensors(
        name,
        {f"model.{k}": v for k, v in state.items()},
        {"isogon": json.dumps({"format": 1, **facts, **counts, **meta})},
    )
    return name


def places() -> list[tuple[str, str]]:
    """Every argument of every registered architecture that might take a spec."""
    found = []
    stand_ins = set(NAMES) - {"resnet18", "vit_b_16"}  # one builder makes all of torchvision's
    for entry in registry.entries("arch"):
        if entry.name in stand_ins:
            continue
        for p in inspect.signature(entry.build).parameters.values():
            plain = str(p.annotation) in ("int", "float", "bool", "int | None")
            if not plain and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                found.append((entry.name, p.name))
    return found


@pytest.mark.parametrize(("name", "argument"), places())
def test_no_architecture_lets_a_file_run_code(folder, name, argument):
    for value in (*HOSTILE, (EVIL,), (HOSTILE[6],)):
        path = file_of(str(Spec(name, (), {argument: value})))
        for spec in (path, f"{name}@{path}"):
            with pytest.raises(IsogonError):
                ig.load(spec)
        with pytest.raises(IsogonError):
            Checkpoint.load(path).model()
        assert untouched(folder), f"{name}({argument}={value!r})"


@pytest.mark.parametrize("spec", [*HOSTILE, "normalized(evil_module)", "digits", "mnist(test)[3]"])
def test_a_file_names_nothing_but_architectures(folder, spec):
    path = file_of(spec)
    with pytest.raises(IsogonError):
        ig.load(path)
    with pytest.raises(IsogonError):
        Checkpoint.load(path).model()
    assert dict(snapshots(str(folder))).keys() == {"evil"}  # states are read, nothing is built
    assert untouched(folder)
    for command in (["show", path], ["data-matrix", "--model", path, "--batches", "digits(test)"]):
        assert main([*command, "--quiet"] if command[0] != "show" else command) in (1, 2)
    assert untouched(folder)


def test_nested_specs_of_isogons_own_load(folder):
    path = file_of(f"normalized('{SPEC}', 0.5, 0.25)")
    meta = storage.read_metadata(path)
    net = nets.build(f"normalized('{SPEC}', 0.5, 0.25)")
    storage.write_tensors(path, {f"model.{k}": v for k, v in net.state_dict().items()}, meta)
    x = torch.rand(3, 2)
    net.eval()
    assert torch.equal(ig.load(path)(x), net(x))
    assert torch.equal(ig.load(f"normalized@{path}")(x), net(x))
    assert torch.equal(Checkpoint.load(path).model()(x), net(x))


def test_own_code_is_never_called_with_a_files_arguments(folder):
    (folder / "mine.py").write_text(
        "import torch\nseen = []\n"
        "def build(width=4, note=''):\n    seen.append((width, note))\n"
        "    return torch.nn.Linear(2, width)\n"
    )
    net = torch.nn.Linear(2, 4)
    storage.write_tensors(
        "k.safetensors",
        {f"model.{k}": v for k, v in net.state_dict().items()},
        {"isogon": json.dumps({"spec": "mine:build(width=9, note='rm -rf')"})},
    )
    try:
        assert ig.load("mine:build()@k.safetensors").out_features == 4
        assert sys.modules["mine"].seen == [(4, "")]
    finally:
        sys.modules.pop("mine", None)


def test_what_was_typed_may_import_beside_a_files_metadata(folder):
    net = nets.build(f"normalized('{SPEC}', 0.5, 0.25)")
    storage.write_tensors(
        "n.safetensors",
        {f"model.{k}": v for k, v in net.state_dict().items()},
        {"isogon": json.dumps({"spec": "normalized('evil_module:run()', 0.5, 0.25)"})},
    )
    (folder / "own.py").write_text(
        f"from isogon import nets\ndef net(): return nets.build('{SPEC}')"
    )
    try:
        found = ig.load("normalized('own:net()', 0.5, 0.25)@n.safetensors")
        alike = ig.load("normalized(arch='own:net()', mean=0.5, std=0.25)@n.safetensors")
    finally:
        sys.modules.pop("own", None)
    x = torch.rand(3, 2)
    assert torch.equal(found(x), net.eval()(x))
    assert torch.equal(alike(x), found(x))
    assert untouched(folder)
    with pytest.raises(SpecError, match=r"import code|not an architecture"):
        ig.load("normalized@n.safetensors")
    assert untouched(folder)


@pytest.mark.parametrize("family", [EVIL, "product(rotations(4), 'evil_module:run()')"])
def test_a_resumed_configuration_imports_nothing(folder, family):
    config = FitConfig().as_dict() | {"family": family}
    path = file_of(SPEC, config=config)
    code = main(
        ["train", "--arch", "mlp(4, 1)", "--data", "two_moons", "--resume-from", path,
         "--epochs", "2", "--out", "run", "--quiet"]
    )  # fmt: skip
    assert code in (1, 2)
    assert untouched(folder)


@pytest.mark.parametrize(
    "config", [{"epochs": "9"}, {"lr": [1]}, {"family": 3}, {"augment": {"a": 1}}]
)
def test_a_damaged_configuration_is_refused(folder, config):
    path = file_of(SPEC, config=config)
    with pytest.raises(IsogonError):
        ig.fit("mlp(4, 1)", "two_moons", config=FitConfig(resume_from=path))


def test_every_sink_refuses_under_the_flag(folder, tmp_path):
    torch.save({}, "w.pt")
    refused = (
        lambda: registry.import_object(parse(EVIL)),
        lambda: ig.load("cnn@w.pt"),
        lambda: ig.load("w.pt"),
        lambda: ig.load("trained(cnn, digits)"),
        lambda: ig.fit("cnn", "digits"),
        lambda: ig.batches("digits(test)"),
        lambda: ig.batches("a.npz"),
        lambda: ig.batches(EVIL),
        lambda: ig.family(EVIL),
        lambda: ig.group(EVIL),
        lambda: nets.build("resnet18(weights=DEFAULT)"),
    )
    for call in refused:
        with context.use(download=True), context.from_file("f.safetensors"):
            assert not context.download_allowed()
            with pytest.raises(SpecError, match="a file may not"):
                call()
    with context.from_file("f.safetensors", data=True):
        assert ig.batches("digits(test, 5)").count == 5
        for spec in ("npz('a.npz')", "imagefolder('.')", "audiofolder('.')", EVIL):
            with pytest.raises(SpecError, match="a file may not"):
                ig.batches(spec)
    assert untouched(folder)
    assert context.brought_by() is None


def test_names_code_sees_every_depth():
    for text in HOSTILE[:4]:
        assert names_code(parse(text))
        assert names_code(Spec("f", (text,)))
        assert names_code(Spec("f", ((1, (text,)),), {}))
        assert names_code(parse(f"f(g(h={text!r}))"))
    for text in ("cnn(width=3)", "f(g(a='digits', b=(1, 2)), -1.5)", "f('a b')"):
        assert not names_code(parse(text))


def test_a_worker_runs_the_job_that_was_handed_out_and_no_other(folder):
    plan = expand({"model": SPEC, "batches": "two_moons(test)", "measures": ["data-matrix"]})
    sweep = Sweep.create(folder / "sweep", plan)
    (id,) = sweep.jobs
    job = sweep.jobs[id]
    data = storage.read_json(sweep.directory / sweeps.PLAN)
    data["jobs"][id]["inputs"]["model"] = EVIL
    storage.write_json(sweep.directory / sweeps.PLAN, data)
    assert work(str(sweep.directory), id, job.digest(), Surroundings()) == "failed"
    assert "has changed" in sweep.state(id).error
    assert untouched(folder)
    evil = Job(job.measure, {**job.inputs, "model": EVIL}, job.options, job.seed)
    assert evil.digest() != job.digest()


def test_folders_of_results_run_nothing(folder):
    """Reports, listings and exports of a folder that names code: shown, never run."""
    plan = expand({"model": SPEC, "batches": "two_moons(test)", "measures": ["data-matrix"]})
    sweep = Sweep.create(folder / "sweep", plan)
    (id,) = sweep.jobs
    assert work(str(sweep.directory), id, sweep.jobs[id].digest(), Surroundings()) == "done"
    record = sweep.directory / sweep.state(id).record
    for path in (sweep.directory / sweeps.PLAN, record / "record.json"):
        text = path.read_text().replace(sweep.jobs[id].inputs["model"], EVIL)
        assert EVIL in text
        path.write_text(text)
    data = storage.read_json(sweep.directory / sweeps.PLAN)
    data["figures"] = [{"draw": {"graph": EVIL, "example": EVIL}}, {"panels": EVIL}]
    storage.write_json(sweep.directory / sweeps.PLAN, data)
    words = [
        ["report", str(sweep.directory)],
        ["status", str(sweep.directory)],
        ["status", str(sweep.directory), "--all"],
        ["show", str(sweep.directory)],
        ["show", str(record)],
        ["show", str(record), "--draw", "graph"],
        ["export", str(record), "--format", "json"],
    ]
    for command in words:
        main(command)
        assert untouched(folder), command
    assert EVIL in (sweep.directory / "report.html").read_text()


def test_a_graph_is_traced_with_what_was_typed(folder, capsys):
    typed = ["--model", "cnn(width=2)", "--batches", "digits(test, 8)"]
    rest = ["--family", "rotations(4)", "--out", "runs", "--quiet"]
    assert main(["invariance", *typed, *rest]) == 0
    (record,) = (folder / "runs").glob("invariance-*")
    capsys.readouterr()
    assert main(["show", str(record), "--draw", "graph"]) == 2
    message = capsys.readouterr().err
    assert '--model "cnn' in message or "--model 'cnn" in message
    assert main(["show", str(record), "--draw", "graph", *typed]) == 0
    assert list(record.glob("invariance-graph.png"))


def test_names_lead_out_of_no_folder(folder):
    plan = expand({"model": SPEC, "batches": "two_moons(test)", "measures": ["data-matrix"]})
    sweep = Sweep.create(folder / "sweep", plan)
    (id,) = sweep.jobs
    work(str(sweep.directory), id, sweep.jobs[id].digest(), Surroundings())
    record = sweep.directory / sweep.state(id).record
    record.rename(folder / "elsewhere")
    state = sweep.state(id)
    state.record = "../elsewhere"
    sweep.put(state)
    from isogon.survey.pages import sweep_report

    assert not sweep_report._records(sweep, sweep.states())
    data = storage.read_json(sweep.directory / sweeps.PLAN)
    data["jobs"]["../../escape"] = data["jobs"].pop(id)
    storage.write_json(sweep.directory / sweeps.PLAN, data)
    with pytest.raises(FileError):
        Sweep.read(sweep.directory)


def test_models_of_own_code_train_and_come_back(folder):
    """The counterpart: what was typed works, also from isogon's own cache of trained models."""
    (folder / "mine.py").write_text(
        "from torch import nn\n"
        "def build(inputs, classes, width=4):\n"
        "    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    try:
        spec = "trained('mine:build(width=5)', two_moons, epochs=1)"
        first, second = ig.load(spec), ig.load(spec)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
        assert isinstance(ig.fit("mine:build()", "two_moons", config=FitConfig(epochs=1)).model(),
                          torch.nn.Module)  # fmt: skip
    finally:
        sys.modules.pop("mine", None)


def test_pages_and_listings_are_made_under_the_flag(folder, monkeypatch):
    """No builder may import on behalf of the folder that is shown, whatever a figure asks for."""
    from isogon.cli import show
    from isogon.survey.pages import report, sweep_report

    plan = expand({"model": SPEC, "batches": "two_moons(test)", "measures": ["data-matrix"]})
    sweep = Sweep.create(folder / "sweep", plan)
    seen = []
    monkeypatch.setattr(sweep_report, "study", lambda *a: seen.append(context.brought_by()) or [])
    monkeypatch.setattr(report, "render", lambda s: seen.append(context.brought_by()) or "")
    monkeypatch.setattr(show, "_folder", lambda f: seen.append(context.brought_by()))
    sweep_report.write(sweep)
    report.write(Survey("a", "b", {}, directory=folder))
    main(["show", str(folder)])
    assert seen == [str(sweep.directory), str(folder), str(folder)]
