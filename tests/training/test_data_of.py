"""A model is evaluated on the data that its training made: by name, and never on other classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import isogon as ig
from isogon import storage
from isogon.cli import main
from isogon.data import samples
from isogon.errors import DataError, SpecError
from isogon.nets.accuracy import accuracy
from isogon.nets.origin import check_classes
from isogon.survey.whole.survey import survey
from isogon.training import FitConfig, fit
from isogon.training.checkpoint import KEY, Checkpoint
from isogon.training.data_of import data_spec
from isogon.training.feeds import resolve

# options of training, and the same data by name
CASES = {
    "classes": ({"classes": 3, "classes_seed": 5}, "classes(digits({}), 3, seed=5)"),
    "padded": ({"size": 12, "resize": "pad"}, "resized(digits({}), 12, how=pad)"),
    "upscaled": ({"size": 11}, "resized(digits({}), 11)"),
    "one": ({"pixel_shuffle": "one", "noise_seed": 3}, "shuffled(digits({}), seed=3)"),
    "each": ({"pixel_shuffle": "each"}, "shuffled(digits({}), each)"),
    "all": (
        {"classes": 4, "pixel_shuffle": "each", "size": 12, "resize": "nearest"},
        "resized(shuffled(classes(digits({}), 4), each), 12, how=nearest)",
    ),
}


def same(a, b) -> None:
    assert len(a) == len(b)
    assert a.classes == b.classes
    for mine, theirs in zip(a.take(slice(None)), b.take(slice(None))):
        assert torch.equal(mine, theirs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An untrained checkpoint of each case."""
    found = {}
    for name, (options, _) in CASES.items():
        folder = tmp_path_factory.mktemp(name)
        options = {**options, "epochs": 0, "validation": 0.25, "label_noise": 0.2}
        found[name] = fit("cnn(width=2)", "digits", config=FitConfig(**options), out=folder).path
    return found


@pytest.mark.parametrize("name", CASES)
def test_data_of_a_checkpoint_are_those_of_its_training(runs, name):
    options, by_name = CASES[name]
    config = FitConfig(**options, epochs=0, validation=0.25, label_noise=0.2)
    sets = resolve("digits", config)
    spec = f"data_of('{runs[name]}', {{}})"
    same(samples(spec.format("train")), sets.train)
    same(samples(spec.format("val")), sets.validation)
    same(samples(spec.format("test")), sets.test)
    same(samples(by_name.format("test")), sets.test)
    same(samples(by_name.format("test, 40")), samples(by_name.format("test")).limited(40)) if (
        name in ("padded", "upscaled", "one")
    ) else None
    whole = resolve("digits", dataclasses.replace(config, validation=0.0, label_noise=0.0))
    same(samples(by_name.format("train")), whole.train)
    trained = ", ".join(f"{k}={v}" for k, v in options.items())
    same(samples(f"data_of(trained(cnn, digits, {trained}), test)"), sets.test)
    same(samples(f"data_of(cnn@{runs[name]}, test, 7)"), sets.test.limited(7))


def test_views_are_data_sets_like_others():
    assert len(samples("classes(digits(test), 3, 20)")) == 20
    assert len(samples("subset(digits(test), 20, seed=1)")) == 20
    assert samples("resized(classes(digits(test), 3), 16)[2]").shape == (1, 16, 16)
    assert len(samples("classes(digits(test), 3)[-1]")) == 1
    # a view without a split is learned from, and tested, like the data within
    for spec in ("classes(digits, 3)", "resized(digits(train, 100), 12)"):
        sets = resolve(spec, FitConfig())
        same(sets.train, samples(spec.replace("digits,", "digits(train),")))
        assert sets.test.name.endswith("digits(test)")
    assert len(resolve("classes(digits(train, 99), 2)", FitConfig()).test) == len(
        samples("classes(digits(test), 2)")
    )
    with pytest.raises(DataError, match="only images"):
        samples("resized(two_moons(test), 16)")


def test_classes_without_names_are_counted_over_all_splits(tmp_path):
    """A test part that lacks the highest label chooses the same classes."""
    x = np.arange(8.0).reshape(8, 1)
    arrays = {"x_train": x, "y_train": np.arange(8), "x_test": x, "y_test": np.arange(8) % 3}
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    for seed in range(4):
        train = samples(f"classes(npz('{path}', train), 4, seed={seed})")
        kept = train.take(slice(None))[0][:, 0].long().tolist()
        expected = [i for i in range(8) if i % 3 in kept]
        try:
            test = samples(f"classes(npz('{path}', test), 4, seed={seed})")
        except DataError:
            assert not expected
            continue
        assert test.take(slice(None))[0][:, 0].long().tolist() == expected


def test_other_classes_are_refused_with_the_spec_of_the_right_ones(runs, tmp_path, capsys):
    model = ig.load(str(runs["classes"]))
    wrong, right = ig.batches("digits(test)"), ig.batches(f"data_of('{runs['classes']}', test)")
    spec = f"data_of('{runs['classes']}', test)"
    for measure in (
        lambda data: accuracy(model, data),
        lambda data: survey(str(runs["classes"]), data.name, out=tmp_path / "s"),
        lambda data: ig.invariance(model, data, "rotations(2)", by_class=True),
    ):
        with pytest.raises(DataError, match="other classes") as caught:
            measure(wrong)
        assert spec in str(caught.value)
    assert 0 <= accuracy(model, right) <= 1
    assert len(ig.invariance(model, right, "rotations(2)", by_class=True).table)
    ig.invariance(model, wrong, "rotations(2)")  # labels play no part
    x, y = wrong.first(8)
    assert 0 <= accuracy(model, [(x, y % 3)]) <= 1, "data without names pass"
    assert main(["survey", str(runs["classes"]), "--batches", "digits(test)"]) == 1
    assert spec in capsys.readouterr().err
    with pytest.raises(DataError, match="other classes") as caught:
        survey("trained(cnn(width=2), digits, classes=3, epochs=0)", "digits(test)", out=tmp_path)
    assert "data_of(trained(cnn(width=2), digits, classes=3, epochs=0), test)" in str(caught.value)
    # an architecture in front changes nothing; a copy neither
    with pytest.raises(DataError, match="other classes"):
        accuracy(ig.load(f"cnn@{runs['classes']}"), wrong)
    padded = ig.load(str(runs["padded"]))
    assert padded.isogon_origin.classes == tuple("0123456789")
    with pytest.warns(UserWarning, match=r"\[1, 8, 8\] for a model .* \[1, 12, 12\]; .*data_of"):
        check_classes(padded, wrong)


def test_what_a_checkpoint_names_is_data(tmp_path, runs):
    """Its data set is one of isogon's own; code and paths in it are refused, with what to type."""
    tensors, metadata = storage.read_tensors(runs["classes"], framework="pt")
    import json

    meta = json.loads(metadata[KEY])
    np.savez(tmp_path / "own.npz", x=np.zeros((9, 3)), y=np.arange(9))
    for data, typed in (
        ("os:getcwd()", "classes(os:getcwd(), 3, seed=5)"),
        (f"npz('{tmp_path / 'own.npz'}')", "classes(npz("),
        (f"imagefolder('{tmp_path}')", "classes(imagefolder("),
        (f"classes(npz('{tmp_path / 'own.npz'}'), 2)", "classes(classes(npz("),
        (f"data_of('{runs['padded']}')", "data_of("),
    ):
        path = tmp_path / "bad.safetensors"
        storage.write_tensors(path, tensors, {KEY: json.dumps({**meta, "data": data})})
        with pytest.raises(SpecError) as caught:
            samples(f"data_of('{path}', test)")
        assert "type the data yourself" in str(caught.value)
        assert typed in str(caught.value)


def test_the_shortest_spec_of_a_models_data(runs, tmp_path):
    assert str(data_spec(str(runs["classes"]))) == f"data_of('{runs['classes']}', test)"
    plain = fit("cnn(width=2)", "digits(train, 50)", config=FitConfig(epochs=0), out=tmp_path).path
    assert str(data_spec(str(plain))) == "digits(test)"
    assert str(data_spec(str(plain), "train")) == "digits(train, 50)"
    assert str(data_spec("trained(cnn, mnist)", "train")) == "mnist(train)"
    assert str(data_spec("trained(cnn, mnist, label_noise=0.1)", "train")).startswith("data_of(")
    x, y = ig.batches("digits(test)").first(40)
    fit("cnn(width=2)", (x, y), config=FitConfig(epochs=0), out=tmp_path / "own")
    with pytest.raises(DataError, match="does not name its data"):
        data_spec(str(tmp_path / "own" / "last.safetensors"))
    with pytest.raises(SpecError, match="not a trained model"):
        samples("data_of(cnn, test)")
    assert Checkpoint.load(plain).meta["data"] == "digits(train, 50)"
