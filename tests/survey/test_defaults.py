"""What a survey supplies for inputs that it was not given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import isogon as ig
from isogon import registry
from isogon.survey.whole import defaults
from isogon.survey.whole.defaults import NAMED, Subject


def named(text: str, model: str, batches: str) -> str | None:
    return NAMED[text](Subject(model, batches, None, None))


@pytest.mark.parametrize(
    ("model", "batches", "snapshots", "train", "test"),
    [
        ("trained(cnn, digits, epochs=5)", "digits(test)", "trained(cnn, digits, epochs=0)",
         "digits(train, 2000)", "digits(test, 2000)"),
        ("trained(mlp(4), two_moons(train, 100), epochs=3, snapshot_every=1)", "two_moons(test)",
         "trained(mlp(4), two_moons(train, 100), epochs=3, snapshot_every=1)",
         "two_moons(train, 100)", "two_moons(test, 2000)"),
        ("cnn(width=2)", "digits(test, 24)", None, "digits(train, 24)", "digits(test, 24)"),
        ("cnn(width=2)", "digits(all)", None, None, "digits(all, 2000)"),
        ("cnn", "my.data:test_set()", None, None, "subset(my.data:test_set(), 2000)"),
        ("cnn", "digits", None, "digits(train, 2000)", "digits(test, 2000)"),
        ("cnn", "arr.npz", None, None, "npz('arr.npz', all, 2000)"),
        ("cnn", "imagefolder('imgs', test)", None, "imagefolder(imgs, train, 2000)",
         "imagefolder(imgs, test, 2000)"),
        ("cnn", "imagefolder('imgs')", None, None, "imagefolder(imgs, limit=2000)"),
        ("trained(cnn, digits, classes=3)", "digits(test)",
         "trained(cnn, digits, classes=3, epochs=0)",
         "data_of(trained(cnn, digits, classes=3), train, 2000)", "digits(test, 2000)"),
        ("cnn", "resized(classes(digits(test), 3), 16)", None,
         "resized(classes(digits(train), 3), 16, 2000)",
         "resized(classes(digits(test), 3), 16, 2000)"),
    ],
)  # fmt: skip
def test_snapshots_and_data_follow_from_the_specs(model, batches, snapshots, train, test):
    assert named("@snapshots", model, batches) == snapshots
    assert named("@train", model, batches) == train
    assert named("@batches", model, batches) == test


def test_the_snapshots_beside_a_file_of_weights(tmp_path):
    model = f"cnn@{tmp_path}/last.safetensors"
    assert named("@snapshots", model, "digits(test)") is None
    (tmp_path / "snapshots").mkdir()
    assert named("@snapshots", model, "digits(test)") == str(tmp_path)


def test_a_plane_around_a_sample(monkeypatch):
    data = ig.batches("digits(test, 30)")
    subject = Subject("cnn(width=2)", "digits(test, 30)", None, data)
    monkeypatch.setattr(defaults, "_radius", lambda *_: 0.25)
    assert NAMED["@around"](subject) == "anchors(digits(test, 30)[0], radius=0.25)"
    monkeypatch.setattr(defaults, "_radius", lambda *_: None)
    assert NAMED["@around"](subject).startswith("through(")


@pytest.mark.parametrize("cut", [1.0, 0.25])
def test_the_radius_holds_the_wanted_regions_at_the_density_of_the_pilot(monkeypatch, cut):
    data = ig.batches("digits(test, 30)")
    subject = Subject("cnn(width=2)", "digits(test, 30)", None, data)
    anchors = (subject.sample(0),)
    density, get = 7000.0, registry.get  # regions per area, of which the pilot cuts a share

    def pilot(model, plane, max_regions):
        n = round(density * plane.area * cut)
        whole = np.arange(2 * n) < n
        area = np.where(whole, cut, 1 - cut) * plane.area / n
        return SimpleNamespace(finished=whole, area=area, plane=plane)

    def fake(kind, name):
        known = kind == "measure" and name == "partition"
        return SimpleNamespace(build=pilot) if known else get(kind, name)

    monkeypatch.setattr(registry, "get", fake)
    radius = defaults._radius(subject, [0, 1, 2], anchors)
    assert density * (2 * radius) ** 2 == pytest.approx(defaults.REGIONS, rel=0.02)
    density = 500.0  # all of the plane holds fewer: no radius
    assert defaults._radius(subject, [0, 1, 2], anchors) is None
