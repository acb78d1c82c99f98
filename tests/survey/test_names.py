"""The same words with other content are another record, another object, another network."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from isogon import context, registry
from isogon.data import Samples
from isogon.data.batches import Batches
from isogon.readings import SampleTable
from isogon.storage import modules, write_tensors
from isogon.survey.declaring.job import Job
from isogon.survey.running import run as runner
from isogon.survey.running.record import load
from isogon.survey.running.run import Session, run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory and a cache of its own; the modules in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ISOGON_DATA", str(tmp_path / "data"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if str(tmp_path) in path:
            del sys.modules[name]
            modules._loaded.pop(name, None)


def write(path, text):
    """A source file, as long as before where the text is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def npz(path, *, behind=0.0, n=500):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    x[400:] += behind
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=np.arange(n) % 2)


def measured(model="mlp(4)", batches="npz('d.npz')", session=None, **options):
    job = Job("data_matrix", {"model": model, "batches": batches}, options)
    return run(job, out="records", session=session)


def noticed(change, *args, session=False, **kwargs):
    """Whether the same job is computed anew after a change, and found before and after it."""
    kept = Session() if session else None
    first = measured(*args, session=kept, **kwargs)
    assert not first.reused
    assert measured(*args, session=kept, **kwargs).reused
    change()
    second = measured(*args, session=kept, **kwargs)
    assert measured(*args, session=kept, **kwargs).reused
    return not second.reused and second.key != first.key


# --------------------------------------------------------------------------- data


@pytest.mark.parametrize("session", [False, True], ids=["new session", "one session"])
def test_samples_behind_the_first_batch_count(here, session):
    npz(here / "d.npz")
    assert noticed(lambda: npz(here / "d.npz", behind=1.0), session=session)
    assert not measured(batches="d.npz").reused, "other words, and so another record"


def test_a_relative_path_is_what_it_leads_to_from_here(here, monkeypatch):
    npz(here / "a" / "d.npz")
    npz(here / "b" / "d.npz", behind=1.0)
    session = Session()
    found = []
    for folder in "ab":
        monkeypatch.chdir(here / folder)
        job = Job("data_matrix", {"model": "mlp(4)", "batches": "npz('d.npz')"})
        found.append(run(job, out=here / "records", session=session))
    assert not found[1].reused
    assert not found[0].reading.equals(found[1].reading)
    for folder in "ab":
        with context.use(data_root=here / folder):
            monkeypatch.chdir(here)
            assert run(job, out=here / "records", session=session).reused


def test_data_of_a_users_function_count_to_the_last_sample_and_with_its_helpers(here):
    source = """
        import torch
        from myhelp.values import LAST

        def data(n):
            x = torch.zeros(n, 3)
            x[-1] = LAST
            return x, torch.arange(n) % 2
        """
    write(here / "mydata.py", source)
    write(here / "myhelp" / "__init__.py", "")
    write(here / "myhelp" / "values.py", "LAST = 1.0\n")
    assert noticed(
        lambda: write(here / "myhelp" / "values.py", "LAST = 2.0\n"),
        "mlp(4, inputs=3, classes=2)", "mydata:data(400)", session=True,
    )  # fmt: skip


def test_a_loader_of_a_users_function_counts_to_the_last_batch(here):
    def source(last):
        return f"""
            import torch
            from torch.utils.data import DataLoader, TensorDataset

            def data():
                x = torch.zeros(100, 3)
                x[-1] = {last}
                return DataLoader(TensorDataset(x, torch.arange(100) % 2), 16)
            """

    write(here / "myloader.py", source(1.0))
    assert noticed(
        lambda: write(here / "myloader.py", source(2.0)),
        "mlp(4, inputs=3, classes=2)", "myloader:data()", session=True,
    )  # fmt: skip


def test_the_data_behind_a_slice_count(here):
    npz(here / "d.npz")
    plane = "through(npz('d.npz')[450], npz('d.npz')[1], npz('d.npz')[2])"
    inputs = {"model": "mlp(4)", "plane": plane}

    def found():
        return run(Job("partition", inputs), out="records")

    first = found()
    assert found().reused
    npz(here / "d.npz", behind=1.0)
    second = found()
    assert not second.reused
    assert second.key != first.key


# --------------------------------------------------------------------------- models


MODEL = """
    import torch
    {imports}

    class Net(torch.nn.Module):
        def __init__(self, classes=2):
            super().__init__()
            self.layer = torch.nn.Linear(3, classes)

        def forward(self, x):
            return {factor} * self.layer(x)

    def build(classes=2):
        return Net(classes)
    """


@pytest.mark.parametrize("session", [False, True], ids=["new session", "one session"])
@pytest.mark.parametrize(
    ("imports", "helper"),
    [
        ("from helper import factor", "helper.py"),
        ("import helper; factor = helper.factor", "helper.py"),
        ("from inner.deep import factor", "inner/deep.py"),
        ("from inner import factor", "inner/__init__.py"),
        ("from between import factor", "farther.py"),
        ("import importlib; factor = importlib.import_module('helper').factor", "helper.py"),
    ],
)
def test_what_a_users_model_imports_counts(here, imports, helper, session):
    write(here / "inner" / "__init__.py", "factor = 0.5\n")
    write(here / "between.py", "from farther import factor\n")
    write(here / helper, "factor = 0.5\n")
    write(here / "mymodel.py", MODEL.format(imports=imports, factor="factor"))
    npz(here / "d.npz", n=20)

    def change():
        write(here / helper, "factor = 1.5\n")

    job = Job("data_matrix", {"model": "mymodel:build()", "batches": "npz('d.npz')"})
    kept = Session() if session else None
    first = run(job, out="records", session=kept)
    change()
    second = run(job, out="records", session=kept)
    assert not second.reused
    ratio = second.reading.table["trace"] / first.reading.table["trace"]
    assert (ratio > 1.5).all(), "and what was measured is the new code"


def test_a_users_module_counts_alone_and_in_a_package_with_relative_imports(here):
    write(here / "pack" / "__init__.py", "")
    write(here / "pack" / "sub" / "__init__.py", "from ..scale import factor\n")
    write(here / "pack" / "scale.py", "factor = 0.5\n")
    source = MODEL.format(imports="from .sub import factor", factor="factor")
    write(here / "pack" / "model.py", source)
    npz(here / "d.npz", n=20)
    assert noticed(
        lambda: write(here / "pack" / "scale.py", "factor = 1.5\n"), "pack.model:build()"
    )
    assert measured("pack.model:build()").reused
    write(here / "pack" / "unused.py", "factor = 7\n")
    assert measured("pack.model:build()").reused, "what it does not import does not count"


def test_weights_behind_a_spec_count(here):
    npz(here / "d.npz", n=20)

    def weights(seed):
        torch.manual_seed(seed)
        net = nn.Linear(3, 2)
        write_tensors(here / "w.safetensors", {"weight": net.weight, "bias": net.bias})
        torch.save(net.state_dict(), here / "w.pt")

    source = """
        import torch

        def build(path=None):
            net = torch.nn.Linear(3, 2)
            if path:
                net.load_state_dict(torch.load(path))
            return net
        """
    write(here / "plain.py", source)
    weights(0)
    specs = [
        "plain:build()@w.safetensors",
        "plain:build()@w.pt",
        "plain:build('w.pt')",
        "plain:build(path='w.pt')",
    ]
    kept = Session()
    for spec in specs:
        assert not measured(spec, session=kept).reused
        assert measured(spec, session=kept).reused
    sizes = (here / "w.safetensors").stat().st_size
    weights(1)
    assert (here / "w.safetensors").stat().st_size == sizes
    assert [measured(spec, session=kept).reused for spec in specs] == [False] * 4


# --------------------------------------------------------------------------- sessions, records


def test_a_session_tells_data_of_one_name_apart():
    def like(shape, classes, value=0):
        data = Samples(np.full((4, *shape), value, np.float32), np.arange(4) % classes, name="same",
                       classes=[str(c) for c in range(classes)])  # fmt: skip
        return Batches(data)

    session = Session()
    a, b = like((1, 8, 8), 2), like((3, 8, 8), 4)
    first, second = (session.get("Module", "cnn(width=2)", like=d) for d in (a, b))
    assert first(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
    assert second(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert session.get("Module", "cnn(width=2)", like=like((1, 8, 8), 2)) is first
    assert session.get("Module", "cnn(width=2)", like=like((1, 8, 8), 2, value=1)) is not first
    assert session.get("Module", "cnn(width=2)") is not first


def test_fingerprints_of_data_depend_on_the_data():
    def batches(value):
        x = np.zeros((600, 2), np.float32)
        x[-1, -1] = value
        return Batches(Samples(x, np.zeros(600, np.int64), name="same"), 16)

    assert runner.fingerprint(batches(0), "digits") == runner.fingerprint(batches(0), "digits")
    assert runner.fingerprint(batches(0), "digits") != runner.fingerprint(batches(1), "digits")


def test_a_record_whose_reading_was_swapped_or_edited_is_none(here):
    npz(here / "d.npz", n=20)
    one, other = measured(), measured(eigenvectors=1)
    assert load(one.directory) is not None
    manifest = one.directory / "reading" / "reading.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"complete": true', '"complete": false'))
    assert manifest.read_text() != text
    assert load(one.directory) is None
    manifest.write_text(text)
    assert load(one.directory) is not None
    (arrays,) = (other.directory / "reading").glob("arrays-*")
    data = arrays.read_bytes()
    arrays.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # another number, in a whole file
    assert load(other.directory) is None
    arrays.write_bytes(data)
    assert load(other.directory) is not None
    shutil.rmtree(one.directory / "reading")
    shutil.copytree(other.directory / "reading", one.directory / "reading")
    assert load(one.directory) is None, "a whole reading, but of another record"


def test_a_record_of_another_key_or_format_is_none(here):
    """A whole one: only what it says of itself differs."""
    npz(here / "d.npz", n=20)
    record = measured()
    assert load(record.directory, record.key) is not None
    assert load(record.directory, record.key[:-1] + "x") is None
    path = record.directory / "record.json"
    text = path.read_text()
    data = json.loads(text)
    path.write_text(json.dumps(data | {"format": data["format"] - 1}))
    assert load(record.directory) is None
    path.write_text(json.dumps(data))
    assert load(record.directory) is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_stands_in_the_reading_and_in_the_key(here, dtype):
    name = str(dtype).removeprefix("torch.")
    npz(here / "d.npz", n=20)
    write(here / "prec.py", "import torch\n\n\ndef build(to='float32'):\n"
          "    return torch.nn.Linear(3, 2).to(getattr(torch, to))\n")  # fmt: skip
    plain, other = (measured(f"prec:build({to})") for to in ("float32", name))
    assert plain.reading.meta["dtype"] == plain.provenance["dtype"] == "float32"
    assert other.reading.meta["dtype"] == other.provenance["dtype"] == name
    assert other.key != plain.key
    again = measured(f"prec:build({name})")
    assert again.reused
    assert again.reading.meta["dtype"] == name


# --------------------------------------------------------------------------- code that measures


@pytest.fixture
def mine(here):
    """A measure of a package of the user's own, registered and gone again afterwards."""
    registry.names("measure")
    kept = dict(registry._entries["measure"])
    write(here / "ext" / "__init__.py", "")
    write(here / "ext" / "core.py", "FACTOR = 1.0\n")
    write(here / "ext" / "measures.py", """
        import pandas as pd
        from isogon.readings import SampleTable
        from isogon.registry import measure
        from ext.core import FACTOR

        @measure(name="ext_mean")
        def ext_mean(model: "Module", batches: "Batches") -> SampleTable:
            '''Mean output.'''
            rows = [FACTOR * model(x).mean().item() for x, _ in batches]
            return SampleTable("ext_mean", pd.DataFrame({"sample": range(len(rows)), "e": rows}))
        """)  # fmt: skip
    yield here
    registry._entries["measure"].clear()
    registry._entries["measure"].update(kept)


def test_an_improved_measure_of_a_package_is_not_answered_by_an_old_record(mine):
    npz(mine / "d.npz", n=20)
    job = Job("ext_mean", {"model": "mlp(4)", "batches": "npz('d.npz')"})

    def found():
        for name in [n for n in sys.modules if n.split(".")[0] == "ext"]:
            del sys.modules[name]
        registry._entries["measure"].pop("ext_mean", None)
        with registry.importable_cwd():
            __import__("ext.measures")
        return run(job, out="records")

    first = found()
    assert first.reading.meta["dtype"] == "float32", "said for measures that do not say it"
    assert found().reused
    write(mine / "ext" / "core.py", "FACTOR = 2.0\n")
    os.utime(mine / "ext" / "core.py", (1, 1))  # so that Python does not take the old bytecode
    second = found()
    assert not second.reused
    assert second.reading.table["e"][0] == pytest.approx(2 * first.reading.table["e"][0])


def test_a_measure_that_no_file_holds_counts_by_its_code():
    def declared(text):
        scope = {"__name__": "nowhere", "pd": pd, "SampleTable": SampleTable}
        exec(text, scope)
        registry.names("measure")
        kept = dict(registry._entries["measure"])
        try:
            registry.measure(name="typed")(scope["typed"])
            from isogon.survey.declaring import catalogue

            return runner.code_of(catalogue.declaration("typed"))
        finally:
            registry._entries["measure"].clear()
            registry._entries["measure"].update(kept)

    text = "def typed(model: 'Module'):\n    '''D.'''\n    return {}\n"
    assert declared(text.format(1)) == declared(text.format(1)) != declared(text.format(2))


def test_a_file_that_comes_to_lie_before_another_one_is_taken(here):
    """A relative path is looked up here first, then under the data root."""
    npz(here / "data" / "d.npz")
    session = Session()
    assert not measured(session=session).reused
    assert measured(session=session).reused
    npz(here / "d.npz", behind=1.0)
    assert not measured(session=session).reused
    (here / "d.npz").unlink()
    assert measured(session=session).reused


def test_an_image_that_is_added_or_removed_counts(here):
    from PIL import Image

    def image(name):
        path = here / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(seen)).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        seen.append(path)

    seen = []

    for name in ("a/0.png", "a/1.png", "b/0.png"):
        image(name)
    session = Session()
    spec = {"model": "cnn(width=2)", "batches": "imagefolder('photos')"}

    def found():
        return run(Job("data_matrix", spec), out="records", session=session)

    assert len(found().reading.table) == 3
    assert found().reused
    image("b/1.png")
    assert len(found().reading.table) == 4
    (here / "photos" / "b" / "1.png").unlink()
    assert found().reused
