"""What a file may have built: counted while it is built, at most what its weights explain."""

from __future__ import annotations

import itertools
import json
import sys
import time

import pytest
import torch
from torch import nn

from isogon import context, registry, storage
from isogon.errors import IsogonError, ModelError, SpecError
from isogon.nets import budget
from isogon.nets.load import build, load

SMALL = {"weight": torch.zeros(4, 4)}


def endless():
    while True:
        pass


def counted():
    total = 0
    for _ in itertools.count():
        total += 1
    return total


RUNAWAYS = {
    "layers without weights": lambda: nn.Sequential(*[nn.Identity() for _ in range(10**8)]),
    "numbers before any layer": lambda: [0.1 * i for i in range(10**9)],
    "layers": lambda: nn.ModuleList(nn.Linear(1, 1) for _ in range(10**8)),
    "one layer": lambda: nn.Linear(2**20, 2**20),
    "a buffer": lambda: nn.BatchNorm1d(2**40),
    "an endless loop": endless,
    "an endless count": counted,
}


@pytest.mark.parametrize("name", RUNAWAYS)
def test_a_runaway_is_stopped_early(name):
    start = time.process_time()
    with pytest.raises(ModelError, match="far larger model than the one that it holds"):
        budget.built(RUNAWAYS[name], SMALL, "f.safetensors")
    assert time.process_time() - start < 5
    assert sys.gettrace() is None
    nn.Linear(2**12, 2**12, device="meta")  # hooks are gone: 2**24 values


def test_what_was_traced_before_is_traced_again():
    seen = []

    def mine(frame, event, given):
        seen.append(event)

    before = sys.gettrace()
    sys.settrace(mine)
    try:
        budget.built(lambda: nn.Linear(2, 2), SMALL, "f")
        now = sys.gettrace()
    finally:
        sys.settrace(before)
    assert now is mine


QUICK = ("resnet18", "mobilenet_v2", "squeezenet1_0", "regnet_x_400mf", "cct", "scattering",
         "scattering1d", "mlp", "mlp_bn", "siren", "inr", "cnn", "lenet", "normalized")  # fmt: skip
NAMES = [
    n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in registry.names("arch")
]


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_fits_its_own_budget_and_a_stranger_s_does_not(name):
    with torch.device("meta"):
        model = build(name)
    made = budget.built(lambda: build(name), model.state_dict(), "f")
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    if sum(v.numel() for v in model.state_dict().values()) > 2 * budget.FREE_VALUES:
        with pytest.raises(ModelError, match="far larger model"):
            budget.built(lambda: build(name), SMALL, "f")


def named(folder, spec, shape=(4, 4)):
    path = folder / "f.safetensors"
    text = json.dumps({"format": 1, "spec": spec})
    storage.write_tensors(path, {"model.w": torch.zeros(shape)}, {"isogon": text})
    return path


@pytest.mark.parametrize(
    "spec",
    [
        "siren(depth=100000000)",
        "cct(layers=100000)",
        "mlp(8, depth=1000000000)",
        "mlp(width=1000000000)",
        "mlp(widths=(1, 2, 99999999))",
        "normalized(mlp(8, depth=1000000000))",
        "normalized('mlp(8, depth=1000000000)')",
        "normalized(normalized(mlp(8, depth=1000000000)))",
        "mlp(4, depth=4000)",
        "siren(2, 4096)",
    ],
)
def test_a_file_s_word(tmp_path, spec):
    path = named(tmp_path, spec)
    start = time.process_time()
    with pytest.raises(IsogonError, match=r"a file asks for|can't be built"):
        load(path)
    name = spec.partition("(")[0]
    with pytest.raises(IsogonError):
        load(f"{name}()@{path}")
    assert time.process_time() - start < 10


def test_numbers_follow_from_the_weights(tmp_path):
    model = build("mlp(20000, depth=1, inputs=9)")
    weights = {f"model.{k}": v for k, v in model.state_dict().items()}
    path = tmp_path / "f.safetensors"
    meta = {"isogon": json.dumps({"format": 1, "spec": "mlp(20000, depth=1, inputs=9)"})}
    storage.write_tensors(path, weights, meta)
    assert load(path)[1].out_features == 20000  # the file has that axis


def test_seeds_are_no_sizes():
    with context.from_file("f", largest=10):
        context.check_numbers("seed", 10**15, "f(seed=...)")
        context.check_numbers("depth", 10, "f(depth=10)")
        context.check_numbers("scale", float("inf"), "f")
        for bad in (11, -11, (1, (2, 11)), 1e9):
            with pytest.raises(SpecError, match="at most 10"):
                context.check_numbers("depth", bad, "f(depth=...)")
    context.check_numbers("depth", 10**9, "typed")
