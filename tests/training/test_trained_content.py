"""Cached and resumed networks stand for content: the same words with other content train anew."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isogon import context
from isogon.data import Samples
from isogon.errors import OptionError
from isogon.nets import load
from isogon.storage import modules, write_tensors
from isogon.training import FitConfig, fit
from isogon.training import trained as cache

SPEC = "trained({arch}, {data}, epochs=1, batch_size=16{more})"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory and a cache of its own; the modules in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
            modules._loaded.pop(name, None)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def npz(path, *, behind=0.0, n=60):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    x[50] += behind  # in the training part, as every fifth sample is not
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=np.arange(n) % 2)


def photos(folder, *, last=0):
    for i in range(10):
        path = folder / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4), 20 * i + last * (i == 6), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=0)


def weights(arch="mlp(2, depth=1)", data="npz('d.npz')", more=""):
    """The weights, and whether they were trained just now."""
    steps = []

    def note(done, total, what):
        if what.startswith("training on"):
            steps.append(done)

    with context.use(progress=note):
        net = load.load(SPEC.format(arch=arch, data=data, more=more))
    return torch.cat([p.detach().flatten() for p in net.parameters()]), bool(steps)


def anew(change, **kwargs):
    """Whether a change makes other weights, which are then found like the first ones."""
    first, trained = weights(**kwargs)
    assert trained
    found, trained = weights(**kwargs)
    assert not trained
    assert torch.equal(found, first)
    change()
    second, trained = weights(**kwargs)
    assert not weights(**kwargs)[1]
    return trained and not torch.equal(first, second)


def test_changed_data_train_anew(here):
    npz(here / "d.npz")
    assert anew(lambda: npz(here / "d.npz", behind=1.0))
    npz(here / "d.npz")
    assert not weights()[1], "what was trained on the old content is still there"


def test_the_same_words_in_another_folder_are_other_data(here, monkeypatch):
    npz(here / "a" / "d.npz")
    npz(here / "b" / "d.npz", behind=1.0)
    monkeypatch.chdir(here / "a")
    assert anew(lambda: monkeypatch.chdir(here / "b"))
    with context.use(data_root=here / "a"):
        monkeypatch.chdir(here)
        assert not weights()[1], "found under the data root, it is that of the first folder"


def test_changed_images_train_anew(here):
    photos(here / "photos")
    assert anew(
        lambda: photos(here / "photos", last=40),
        data="imagefolder('photos', channels=1)", arch="mlp(8, depth=1, inputs=16)",
    )  # fmt: skip


DATA = """
    import torch
    from values import VALUE

    def data():
        x = torch.linspace(0, 1, 60).reshape(20, 3)
        x[-1] = VALUE
        return x, torch.arange(20) % 2
    """
NET = """
    import torch
    from values import VALUE

    class Net(torch.nn.Module):
        def __init__(self, width, classes):
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, width), torch.nn.Linear(width, classes)

        def forward(self, x):
            return VALUE * self.b(self.a(x).relu())

    def build(width=2, classes=2):
        return Net(width, classes)
    """


@pytest.mark.parametrize("part", ["data", "arch"])
def test_a_users_function_whose_helper_changed_trains_anew(here, part):
    npz(here / "d.npz")
    write(here / "values.py", "VALUE = 0.5\n")
    write(here / "mine.py", DATA if part == "data" else NET)
    names = {"data": "'mine:data()'"} if part == "data" else {"arch": "'mine:build()'"}
    assert anew(lambda: write(here / "values.py", "VALUE = 1.5\n"), **names)


def test_what_a_users_function_reads_counts(here):
    """A file that only the function itself knows of."""
    npz(here / "d.npz")
    write(here / "width.txt", "2")
    source = """
        import torch

        def build(classes=2):
            width = int(open("width.txt").read())
            return torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, classes))
        """
    write(here / "reads.py", source)
    first, trained = weights(arch="'reads:build()'")
    assert trained
    assert not weights(arch="'reads:build()'")[1]
    write(here / "width.txt", "3")
    second, trained = weights(arch="'reads:build()'")
    assert trained
    assert len(second) > len(first)


@pytest.mark.parametrize("how", ["'plain:build()@w.safetensors'", "'plain:build(\"w.pt\")'"])
def test_weights_to_begin_with_count(here, how):
    npz(here / "d.npz")
    source = """
        import torch

        def build(path=None):
            net = torch.nn.Linear(3, 2)
            if path:
                net.load_state_dict(torch.load(path))
            return net
        """
    write(here / "plain.py", source)

    def begin(seed):
        torch.manual_seed(seed)
        net = nn.Linear(3, 2)
        write_tensors(here / "w.safetensors", dict(net.state_dict()))
        torch.save(net.state_dict(), here / "w.pt")

    begin(0)
    assert anew(lambda: begin(1), arch=how)


def test_a_family_of_a_users_own_counts(here):
    photos(here / "photos")
    source = "import torch\n\n\ndef shift():\n    return [lambda x: x, lambda x: {} - x]\n"
    write(here / "fam.py", source.format(1.0))
    data = "imagefolder('photos', channels=1)"
    options = {"data": data, "arch": "mlp(2, depth=1, inputs=16)", "more": ", family='fam:shift()'"}
    assert anew(lambda: write(here / "fam.py", source.format(0.5)), **options)


def test_finding_a_network_reads_its_data_but_does_not_train(here, monkeypatch):
    npz(here / "d.npz")
    weights()
    monkeypatch.setattr(cache, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert not weights()[1]


# --------------------------------------------------------------------------- resuming

TINY = FitConfig(epochs=1, batch_size=32)


@pytest.mark.parametrize("place", [0, 1, 498, 499])
def test_a_run_knows_every_input_that_it_learned_from(tmp_path, place):
    x, y = torch.rand(500, 3), torch.arange(500) % 2
    net = nn.Linear(3, 2)
    fit(net, (x, y), config=TINY, out=tmp_path)
    fit(net, (x.clone(), y), config=TINY, out=tmp_path)
    other = x.clone()
    other[place, 2] += 1e-6
    with pytest.raises(OptionError, match="another data_digest"):
        fit(net, (other, y), config=TINY, out=tmp_path)


def test_a_run_knows_the_network_that_it_began_with(tmp_path):
    data = torch.rand(40, 3), torch.arange(40) % 2
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    fit(net, data, config=TINY, out=tmp_path)
    net[1] = nn.Tanh()  # the same weights
    with pytest.raises(OptionError, match="another initial"):
        fit(net, data, config=TINY, out=tmp_path)


def test_a_run_of_a_users_architecture_knows_its_code(here):
    data = torch.rand(40, 3), torch.arange(40) % 2
    write(here / "values.py", "VALUE = 0.5\n")
    write(here / "mine.py", NET)
    fit("mine:build()", data, config=TINY, out=here / "run")
    fit("mine:build()", data, config=TINY, out=here / "run")
    write(here / "values.py", "VALUE = 1.5\n")
    with pytest.raises(OptionError, match="another code"):
        fit("mine:build()", data, config=TINY, out=here / "run")


def test_a_run_on_transformed_samples_knows_how(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (40, 1, 6, 6), np.uint8)
    data = Samples(x, np.arange(40) % 2, name="x", divisor=255, classes=["a", "b"])
    for change in ({"label_noise": 0.5}, {"pixel_shuffle": "one"}, {"pixel_shuffle": "each"}):
        out = tmp_path / str(change)
        first = fit("mlp(2)", data, config=FitConfig(epochs=1, **change), out=out)
        again = fit("mlp(2)", data, config=FitConfig(epochs=1, **change), out=out)
        assert first.meta["data_digest"] == again.meta["data_digest"] != data.digest()


def test_snapshots_are_due_at_the_nearest_step(tmp_path):
    """`snapshot_at` is a share of all steps, rounded: 0.35 of 10 is 4 (0.34 of it is 3)."""
    data = torch.rand(40, 3), torch.arange(40) % 2
    config = FitConfig(epochs=2, batch_size=8, snapshot_at=(0.0, 0.16, 0.34, 0.36, 0.97))
    fit(nn.Linear(3, 2), data, config=config, out=tmp_path)
    names = sorted(p.stem for p in (tmp_path / "snapshots").iterdir())
    steps = {0: 0.0, 2: 0.16, 3: 0.34, 4: 0.36, 10: 0.97}
    wanted = {"epoch-0000", "step-00000002", "step-00000003", "step-00000004", "epoch-0002"}
    assert set(names) == wanted, steps


def test_a_zoo_reads_its_data_once(here, monkeypatch):
    npz(here / "d.npz")
    read = []
    true = cache.samples
    monkeypatch.setattr(cache, "samples", lambda *a, **k: read.append(a) or true(*a, **k))
    for seed in range(3):
        assert weights(more=f", seed={seed}")[1]
    assert len(read) == 1
    npz(here / "d.npz", behind=1.0)
    assert weights()[1]
    assert len(read) == 2
