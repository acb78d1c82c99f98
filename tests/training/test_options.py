from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from isogon import registry
from isogon.data import samples
from isogon.errors import OptionError
from isogon.training import Checkpoint, FitConfig, feeds, fit
from isogon.training.config import CIRCUMSTANCES
from isogon.training.evaluation import loss_of, right

TINY = FitConfig(epochs=2, batch_size=128)
ARCH = "mlp(width=16, depth=1)"


def change(**options):
    return dataclasses.replace(TINY, **options)


def test_every_option_is_documented():
    text = FitConfig.__doc__ or ""
    for field in dataclasses.fields(FitConfig):
        assert f"        {field.name}: " in text, field.name
    assert {f.name for f in dataclasses.fields(FitConfig)} >= CIRCUMSTANCES


def test_validation_is_held_out_and_stratified():
    config = change(validation=0.2, stratified=True)
    sets = feeds.resolve("digits", config)
    train, held = sets.train.labels, sets.validation.labels
    assert len(train) + len(held) == len(samples("digits(train)"))
    share = torch.bincount(held) / (torch.bincount(train) + torch.bincount(held))
    assert ((share - 0.2).abs() < 0.01).all()
    row = fit(ARCH, "digits", config=dataclasses.replace(config, train_accuracy=True)).metrics
    assert {"train_accuracy", "validation_accuracy", "test_accuracy"} <= row.keys()
    with pytest.raises(OptionError, match="twice"):
        fit(ARCH, "digits", config=config, validation="digits(test)")


def test_classes_are_the_same_in_every_split_and_label_noise_only_in_training():
    config = change(classes=3, label_noise=0.5, validation=0.2)
    sets = feeds.resolve("digits", config)
    clean = feeds.resolve("digits", dataclasses.replace(config, label_noise=0.0))
    assert sets.train.classes == sets.test.classes == sets.validation.classes
    assert len(sets.train.classes) == 3
    wrong = (sets.train.labels != clean.train.labels).float().mean()
    assert 0.4 < wrong < 0.6
    assert torch.equal(sets.validation.labels, clean.validation.labels)
    found = fit("cnn(width=4)", "digits", config=config)
    assert "classes=3" in found.spec
    assert len(found.meta["classes"]) == 3


def test_size_and_pixel_shuffle():
    sets = feeds.resolve("digits", change(size=12, resize="pad", pixel_shuffle="one"))
    assert sets.train.shape == sets.test.shape == (1, 12, 12)
    found = fit("cnn(width=4)", "digits", config=change(epochs=1, size=12))
    assert "size=12" in found.spec


def test_pad_frames_what_size_has_enlarged(tmp_path):
    config = change(epochs=1, size=16, pad=32)
    sets = feeds.resolve("digits(train, 60)", config)
    large = feeds.resolve("digits(train, 60)", change(size=16)).train.take(slice(None))[0]
    x = sets.train.take(slice(None))[0]
    assert x.shape == (60, 1, 32, 32)
    assert torch.equal(x[..., 8:24, 8:24], large)
    assert float(x.sum()) == pytest.approx(float(large.sum()), rel=1e-6)
    done = fit("cnn(width=2)", "digits(train, 60)", config=config, out=tmp_path)
    assert "size=32" in done.spec
    seen = samples(f"data_of({tmp_path / 'last.safetensors'}, train)").take(slice(None))[0]
    assert torch.equal(seen, x)
    with pytest.raises(OptionError, match="wrong image size"):
        feeds.resolve("digits(train, 60)", change(size=16, pad=12))


# Each option with a value of its own on a tiny set; those that need more than one run, or more
# than a CPU, are tested by themselves.
VALUES = {
    "epochs": 1, "batch_size": 16, "seed": 3, "optimizer": "sgd", "lr": 0.01, "momentum": 0.5,
    "nesterov": True, "weight_decay": 0.01, "clip": 0.5, "objective": "penalty",
    "schedule": "step", "lr_step": 1, "lr_decay": 0.5, "warmup": 0.5, "loss": "cross_entropy",
    "label_smoothing": 0.1, "normalize": "none", "classes": 4, "classes_seed": 1,
    "label_noise": 0.3, "pixel_shuffle": "each", "noise_seed": 5, "size": 10, "resize": "nearest",
    "pad": 14, "validation": 0.25, "stratified": True, "split_seed": 7,
    "augment": ("crop(1)", "flip"), "family": "rotations(4)", "family_mode": "all",
    "shuffle": False, "train_accuracy": True, "stop_patience": 1, "stop_delta": 0.1,
    "stop_at": 0.01, "snapshot_every": 1, "snapshot_until": 1, "snapshot_at": (0.0, 0.5),
    "checkpoint_every": 1, "checkpoint_seconds": 0.5, "resume": False, "evaluate_only": True,
    "precision": "bf16", "channels_last": True, "workers": 1, "observe": "data-matrix",
    "observe_every": 2, "observe_data": "digits(test, 8)",
}  # fmt: skip
ELSEWHERE = {  # option: where it is tested
    "predict": "test_predicts_the_transformation_in_standard_units",
    "restarts": "test_restarts_try_the_next_seed_until_the_target_is_reached",
    "resume_from": "test_resume.py", "override": "test_resume.py",
    "device": "test_devices_that_are_not_there_are_refused",
    "devices": "test_two_processes_are_one_large_batch", "nodes": "tests/e2e/test_slurm.py",
    "strategy": "test_two_processes_are_one_large_batch", "tensorboard": "test_logs",
    "log_file": "test_logs",
}  # fmt: skip
WITH = {  # what an option needs to say anything
    "nesterov": {"optimizer": "sgd"}, "momentum": {"optimizer": "sgd"},
    "objective": {"weight_decay": 0.1}, "lr_step": {"schedule": "step"},
    "lr_decay": {"schedule": "exponential"}, "classes_seed": {"classes": 4},
    "noise_seed": {"label_noise": 0.5}, "resize": {"size": 10}, "pad": {"size": 10},
    "stratified": {"validation": 0.25}, "split_seed": {"validation": 0.25},
    "family_mode": {"family": "rotations(4)"}, "stop_delta": {"stop_patience": 1},
    "observe_every": {"observe": "data-matrix"}, "observe_data": {"observe": "data-matrix"},
}  # fmt: skip


def test_every_option_has_a_value_here_or_a_test_of_its_own():
    assert VALUES.keys() | ELSEWHERE.keys() == {f.name for f in dataclasses.fields(FitConfig)}
    default = FitConfig()
    assert not [k for k, v in VALUES.items() if getattr(default, k) == v]


@pytest.fixture(scope="module")
def plain():
    held = {}

    def run(**options):
        key = tuple(sorted(options.items()))
        if key not in held:
            config = change(**{"batch_size": 24, **options})
            held[key] = fit("mlp(width=4, depth=1)", "digits(train, 96)", config=config)
        return held[key]

    return run


@pytest.mark.parametrize("name", VALUES)
def test_every_option_trains_and_says_so(name, plain, tmp_path):
    """Options of the trajectory change the weights; the others leave every bit of them."""
    base = WITH.get(name, {})
    config = change(**{"batch_size": 24, **base, name: VALUES[name]})
    done = fit("mlp(width=4, depth=1)", "digits(train, 96)", config=config, out=tmp_path)
    assert done.meta["config"][name] == (
        list(VALUES[name]) if isinstance(VALUES[name], tuple) else VALUES[name]
    )
    without = plain(**{k: v for k, v in base.items() if not k.startswith("observe")})
    same = done.weights.keys() == without.weights.keys() and all(
        v.shape == without.weights[k].shape and torch.equal(v, without.weights[k])
        for k, v in done.weights.items()
    )
    if name == "evaluate_only":
        assert done.step == 0
        assert (tmp_path / "evaluation.parquet").exists()
    elif name in CIRCUMSTANCES or name == "loss":
        assert same
    elif name in ("stop_patience", "stop_delta", "stop_at"):
        assert same or len(done.history) < len(without.history)
    elif name == "channels_last":  # no maps in this network
        assert same
    else:
        assert not same


def test_augmentation_is_keyed_by_epoch_and_position():
    config = change(augment=("crop(1)", "noise(0.1)"), family=None)
    feed = feeds.Feed(samples("digits(train)"), config)
    first, again = list(feed.epoch(0)), list(feed.epoch(0, 3))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first[3:], again, strict=True))
    assert not torch.equal(first[0][0], next(iter(feed.epoch(1)))[0])
    with pytest.raises(OptionError, match="unknown augmentation"):
        fit(ARCH, "digits", config=change(augment=("flop",)))


@pytest.fixture
def quarter_turns():
    def build():
        return [lambda x, k=k: torch.rot90(x, k, (-2, -1)) for k in range(1, 4)]

    registry.register("family", "quarter_turns_of_a_test")(build)
    yield "quarter_turns_of_a_test"
    del registry._entries["family"]["quarter_turns_of_a_test"]


def test_family_all_shows_every_sample_under_every_member(quarter_turns):
    data = samples("digits(train, 10)")
    feed = feeds.Feed(data, change(family=quarter_turns, family_mode="all", batch_size=7))
    x, y = (torch.cat(parts) for parts in list(zip(*feed.epoch(0)))[:2])
    expected = torch.cat([torch.rot90(data.take(slice(None))[0], k, (-2, -1)) for k in range(4)])
    assert sorted(map(str, x.flatten(1).tolist())) == sorted(map(str, expected.flatten(1).tolist()))
    assert torch.equal(torch.bincount(y), 4 * torch.bincount(data.labels))


def test_family_random_draws_a_member_per_sample_and_epoch(quarter_turns):
    data = samples("digits(train, 40)")
    feed = feeds.Feed(data, change(family=quarter_turns, shuffle=False, batch_size=40))
    clean = data.take(slice(None))[0]
    seen = []
    for epoch in range(3):
        ((x, _, _, _),) = feed.epoch(epoch)
        turns = [
            [k for k in range(4) if torch.equal(x[i], torch.rot90(clean[i], k, (-2, -1)))]
            for i in range(40)
        ]
        assert all(turns)
        seen.append([t[0] for t in turns])
    assert set(seen[0]) == {0, 1, 2, 3}
    assert seen[0] != seen[1] != seen[2]


def test_plateau_and_target_accuracy_end_training(tmp_path):
    flat = fit(ARCH, "digits", config=change(epochs=50, lr=1e-12, stop_patience=2, stop_delta=0.1))
    assert len(flat.history) == 3
    assert "no smaller" in flat.meta["state"]["stopped"]
    good = fit(ARCH, "digits", config=change(epochs=50, stop_at=0.8), out=tmp_path)
    assert good.metrics["running_accuracy"] >= 0.8
    assert len(good.history) < 50
    assert len(
        fit(ARCH, "digits", config=change(epochs=50, stop_at=0.8), out=tmp_path).history
    ) == len(good.history)


def test_evaluation_only_trains_nothing(tmp_path):
    first = fit(ARCH, "digits", config=TINY, out=tmp_path)
    path = tmp_path / "last.safetensors"
    before = path.read_bytes()
    config = FitConfig(resume_from=str(path), evaluate_only=True, train_accuracy=True)
    found = fit(ARCH, "digits", config=config, out=tmp_path)
    assert path.read_bytes() == before
    assert found.metrics["test_accuracy"] == first.metrics["test_accuracy"]
    assert "train_accuracy" in found.metrics
    assert (tmp_path / "evaluation.parquet").exists()


def test_penalty_alone_shrinks_every_weight():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    config = change(
        epochs=1, objective="penalty", optimizer="sgd", momentum=0.0, lr=0.1, weight_decay=0.5,
        schedule="constant",
    )  # fmt: skip
    found = fit(module, "digits", config=config)
    factor = (1 - 0.1 * 0.5) ** found.step
    for name, p in module.named_parameters():
        assert torch.allclose(found.weights[name], factor * p.detach(), rtol=1e-4)


def test_the_penalty_is_what_decay_adds_to_the_loss():
    from isogon.training import penalty

    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    by_hand = sum(float(p.detach().double().square().sum()) for p in
                  (module[0].weight, module[1].weight, module[1].bias))  # fmt: skip
    assert penalty(module, 0.5) == pytest.approx(0.25 * by_hand)
    # its gradient is weight decay: one step on it alone is one step of sgd with decay
    config = change(epochs=1, batch_size=90, objective="penalty", optimizer="sgd", momentum=0.0,
                    lr=0.1, weight_decay=0.5, schedule="constant")  # fmt: skip
    start = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    done = fit(start, "digits(train, 90)", config=config).model()
    twin = [p.detach().double().requires_grad_() for p in start.parameters()]
    loss = 0.5 / 2 * sum(p.square().sum() for p in twin)
    grads = torch.autograd.grad(loss, twin)
    for p, q, g in zip(done.parameters(), twin, grads, strict=True):
        assert torch.allclose(p.double(), q - 0.1 * g, atol=1e-6)


def test_begins_from_the_weights_of_a_file(tmp_path):
    first = fit(ARCH, "digits", config=TINY, out=tmp_path)
    spec = f"{ARCH}@{tmp_path / 'last.safetensors'}"
    found = fit(spec, "digits", config=change(epochs=0))
    assert all(torch.equal(found.weights[k], first.weights[k]) for k in first.weights)
    assert "@" not in found.spec


def test_float64_modules_train_in_float64():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    found = fit(module, "digits", config=change(epochs=5))
    assert found.weights["1.weight"].dtype == torch.float64
    assert found.metrics["test_accuracy"] > 0.5


def test_layout_in_memory_changes_the_numbers_at_most_by_rounding():
    plain = fit("cnn(width=4)", "digits", config=change(epochs=1))
    other = fit("cnn(width=4)", "digits", config=change(epochs=1, channels_last=True))
    for k in plain.weights:
        assert torch.allclose(plain.weights[k], other.weights[k], atol=1e-3)


def test_logs(tmp_path):
    pytest.importorskip("tensorboard")
    config = change(log_file=str(tmp_path / "log.jsonl"), tensorboard=str(tmp_path / "tb"))
    fit(ARCH, "digits", config=config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert list((tmp_path / "tb").glob("events.*"))


@pytest.mark.parametrize("workers", [2])
def test_workers_change_nothing(workers):
    config = change(epochs=1, augment=("crop(1)",))
    alone = fit(ARCH, "digits", config=config)
    helped = fit(ARCH, "digits", config=dataclasses.replace(config, workers=workers))
    assert all(torch.equal(alone.weights[k], helped.weights[k]) for k in alone.weights)


def test_a_stand_in_for_an_empty_share_counts_for_nothing(monkeypatch):
    """With several processes, one whose share of a batch is empty computes on a sample of another.

    Here every batch has as many samples again that don't count.
    """
    plain = fit(ARCH, "digits(train, 90)", config=change(epochs=1, batch_size=30))
    take = feeds.Feed.__getitem__

    def padded(self, wanted):
        x, y, counted, count = take(self, wanted)
        return torch.cat([x, x]), torch.cat([y, y]), counted, count

    monkeypatch.setattr(feeds.Feed, "__getitem__", padded)
    more = fit(ARCH, "digits(train, 90)", config=change(epochs=1, batch_size=30))
    for k, v in plain.weights.items():
        assert torch.allclose(more.weights[k], v, atol=1e-5)
    for k in ("running_loss", "running_accuracy"):
        assert more.metrics[k] == pytest.approx(plain.metrics[k], rel=1e-5)


@pytest.mark.parametrize("targets", [torch.zeros(0, dtype=torch.long), torch.zeros(0)])
def test_a_worker_whose_share_of_the_last_batch_is_empty(targets):
    _, loss = loss_of(FitConfig(), targets)
    outputs = torch.zeros(0, 1 if targets.is_floating_point() else 10)
    assert loss(outputs, targets).shape == (0,)
    if not targets.is_floating_point():
        assert right(outputs, targets) == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "adam", "lr": 1e-3, "label_noise": 0.2, "workers": 1}, {"clip": 0.5}],
    ids=lambda o: "-".join(o) or "plain",
)
def test_two_processes_are_one_large_batch(tmp_path, options):
    """Gradients averaged over two processes (gloo) are those of the whole batch, to rounding."""
    config = FitConfig(
        **{"epochs": 1, "batch_size": 101, "optimizer": "sgd", "lr": 0.05, **options},
        devices=2,
        strategy="ddp_spawn",
    )
    data = "digits(train, 405)"  # last batch: one sample, for one of the processes
    both = fit(ARCH, data, config=config, out=tmp_path)
    alone = fit(ARCH, data, config=dataclasses.replace(config, devices=1))
    assert both.step == alone.step == 5
    for k in alone.weights:
        assert torch.allclose(both.weights[k], alone.weights[k], atol=1e-5)
    for k, v in alone.metrics.items():
        assert k == "seconds" or both.metrics[k] == pytest.approx(v, rel=1e-4)
    states = Checkpoint.load(tmp_path / "last.safetensors").random
    assert not torch.equal(states["torch"], states["1/torch"])


def test_restarts_try_the_next_seed_until_the_target_is_reached(tmp_path):
    config = change(epochs=1, stop_at=0.62, restarts=3, validation=0.2)
    reached = [
        fit(ARCH, "digits", config=change(epochs=1, validation=0.2, seed=s)).metrics
        for s in range(4)
    ]
    values = [row["validation_accuracy"] for row in reached]
    config = dataclasses.replace(config, stop_at=sorted(values)[2])  # two of the four suffice
    wanted = next(i for i, v in enumerate(values) if v >= config.stop_at)
    found = fit(ARCH, "digits", config=config, out=tmp_path)
    assert found.meta["seed"] == wanted
    assert Checkpoint.load(tmp_path / "last.safetensors").meta["seed"] == wanted
    assert len(list(tmp_path.glob("restart-*"))) == wanted + 1
    with pytest.raises(OptionError, match="without a target"):
        change(restarts=1)


def test_predicts_the_transformation_in_standard_units(tmp_path):
    config = FitConfig(
        epochs=6, batch_size=32, family="translations(1)", predict="transformation", lr=0.01
    )
    sets = feeds.resolve("digits", config)
    table = sets.train.table
    assert sets.train.parameters == ["right", "down"]
    assert torch.allclose(table.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(table.std(0, unbiased=False), torch.ones(2))
    found = fit("mlp(width=32)", "digits(train, 700)", config=config)
    assert "classes=2" in found.spec
    assert found.metrics["test_loss"] < 0.7 < 1.0  # 1 is what a constant answer costs
    _, y = sets.test.take([0, 5])
    assert torch.equal(y, sets.test.labels[[0, 5]])
    with pytest.raises(OptionError, match="no transformation"):
        change(predict="transformation")


@pytest.mark.long
def test_two_processes_resume_to_the_same_bits(tmp_path):
    config = FitConfig(
        epochs=2, batch_size=100, schedule="constant", devices=2, strategy="ddp_spawn",
        augment=("crop(1)",),
    )  # fmt: skip
    arch, data = "mlp_bn(width=16, bottleneck=8, depth=1)", "digits(train, 405)"
    straight = fit(arch, data, config=config, out=tmp_path / "a")
    fit(arch, data, config=dataclasses.replace(config, epochs=1), out=tmp_path / "b")
    resumed = fit(arch, data, config=config, out=tmp_path / "b")
    assert all(torch.equal(straight.weights[k], resumed.weights[k]) for k in straight.weights)
    assert all(torch.equal(straight.random[k], resumed.random[k]) for k in straight.random)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_devices_that_are_not_there_are_refused():
    with pytest.raises(OptionError, match="0 here"):
        fit(ARCH, "digits", config=change(device="cuda"))
    with pytest.raises(OptionError, match="needs a GPU"):
        fit(ARCH, "digits", config=change(precision="16"))
