from __future__ import annotations

import dataclasses
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from isogon import context, nets
from isogon.errors import DataError, FileError, ModelError, OptionError, SpecError
from isogon.nets.load import load
from isogon.training import Checkpoint, FitConfig, evaluate, fit
from isogon.training.config import from_options
from isogon.training.snapshots import Snapshots

TINY = FitConfig(epochs=2, batch_size=64)
ARCH = "mlp(width=16, depth=1)"


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_default_options_learn_digits():
    found = fit("cnn", "digits", config=FitConfig(epochs=5))
    assert found.metrics["test_accuracy"] > 0.95
    assert len(found.history) == 5


def test_equal_seeds_give_equal_weights_and_others_do_not():
    torch.manual_seed(1)
    first = fit(ARCH, "digits", config=TINY)
    torch.manual_seed(2)
    assert same(first.weights, fit(ARCH, "digits", config=TINY).weights)
    other = fit(ARCH, "digits", config=dataclasses.replace(TINY, seed=1))
    assert not same(first.weights, other.weights)


def test_global_random_states_are_untouched():
    before = (
        torch.get_rng_state(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
        random.getstate(),
    )
    fit("lenet", "digits", config=FitConfig(epochs=1, batch_size=512))  # has dropout
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state(legacy=False)["state"]["key"]).all()
    assert before[2] == random.getstate()


def test_a_module_is_copied_not_trained():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    held = {k: v.clone() for k, v in module.state_dict().items()}
    found = fit(module, "digits", config=TINY)
    assert same(held, module.state_dict())
    assert not module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not same(found.weights, held)
    assert same(found.model().state_dict(), found.weights)


def test_file_round_trip_builds_the_same_function(tmp_path):
    found = fit(ARCH, "digits", config=TINY, out=tmp_path)
    x = torch.rand(5, 1, 8, 8)
    path = tmp_path / "last.safetensors"
    for model in (found.model(), Checkpoint.load(path).model(), load(str(path))):
        assert not model.training
        assert torch.equal(model(x), found.model()(x))
    assert torch.equal(load(f"{ARCH}@{path}")(x), found.model()(x))
    assert (tmp_path / "metrics.parquet").exists()


def test_first_layer_holds_the_statistics_of_the_training_pixels():
    from isogon.data import samples

    found = fit(ARCH, "digits", config=dataclasses.replace(TINY, epochs=0))
    x, _ = samples("digits(train)").take(slice(None))
    layer = found.model().normalize
    assert float(layer.mean) == pytest.approx(float(x.mean()), rel=1e-5)
    assert float(layer.std) == pytest.approx(float(x.std(unbiased=False)), rel=1e-5)
    bare = fit(ARCH, "digits", config=dataclasses.replace(TINY, epochs=0, normalize="none"))
    assert not hasattr(bare.model(), "normalize")
    with pytest.raises(OptionError, match="normalize=data"):
        fit(ARCH, "digits", config=dataclasses.replace(TINY, normalize="known"))


def test_one_step_of_sgd_is_the_textbook_formula():
    x, y = torch.rand(8, 3), torch.randint(0, 2, (8,))
    y[:2] = torch.tensor([0, 1])
    config = FitConfig(
        epochs=1, batch_size=8, optimizer="sgd", lr=0.5, momentum=0.0, schedule="constant"
    )
    module = nn.Linear(3, 2)
    nn.functional.cross_entropy(module(x), y).backward()
    found = fit(module, (x, y), config=config)
    for name, p in module.named_parameters():
        assert p.grad is not None
        assert torch.allclose(found.weights[name], (p - 0.5 * p.grad).detach(), atol=1e-6)


def test_schedules():
    from isogon.training.schedule import learning_rate

    def rates(steps, **options):
        config = FitConfig(lr=1.0, epochs=4, **options)
        return [learning_rate(config, s, 10) for s in steps]

    assert rates((0, 19, 20, 39), schedule="step", lr_step=2) == [1, 1, 0.1, 0.1]
    assert rates((0, 20), schedule="linear") == pytest.approx([1, 0.5])
    assert rates((0, 20), schedule="cosine") == pytest.approx([1, 0.5])
    assert rates((0, 20), schedule="exponential") == pytest.approx([1, 0.01])
    warm = rates(range(12), schedule="constant", warmup=1.0)
    assert warm[0] < warm[5] < warm[10] == warm[11] == 1


def test_fractions_of_training_are_those_of_the_nearest_step(tmp_path):
    config = FitConfig(epochs=1, batch_size=1, snapshot_at=(0.24, 0.58))  # of 10 steps
    data = (torch.rand(10, 2), torch.arange(10) % 2)
    fit(nn.Linear(2, 2), data, config=config, out=tmp_path)
    names = sorted(p.name for p in (tmp_path / "snapshots").iterdir())
    assert names == ["step-00000002.safetensors", "step-00000006.safetensors"]


def test_float_labels_are_regression():
    torch.manual_seed(0)
    x = torch.rand(64, 2)
    config = FitConfig(epochs=30, batch_size=16, lr=0.1)
    found = fit(nn.Linear(2, 1), (x, x @ torch.tensor([1.0, -2.0])), config=config)
    assert found.metrics["running_loss"] < 1e-2
    assert "running_accuracy" not in found.metrics


def test_snapshots_every_until_and_at_fractions(tmp_path):
    config = dataclasses.replace(
        TINY, epochs=4, snapshot_every=4, snapshot_until=1, snapshot_at=(0, 0.5, 0.6)
    )
    fit(ARCH, "digits", config=config, out=tmp_path)
    names = sorted(p.name for p in (tmp_path / "snapshots").iterdir())
    assert names == [
        "epoch-0000.safetensors",
        "epoch-0001.safetensors",
        "epoch-0002.safetensors",
        "epoch-0004.safetensors",
        "step-00000055.safetensors",
    ]
    initial = Checkpoint.load(tmp_path / "snapshots" / "epoch-0000.safetensors")
    assert same(initial.weights, fit(ARCH, "digits", config=FitConfig(epochs=0)).weights)


def test_running_again_computes_nothing_and_another_run_is_refused(tmp_path):
    first = fit(ARCH, "digits", config=TINY, out=tmp_path)
    stamp = (tmp_path / "last.safetensors").stat().st_mtime_ns
    again = fit(ARCH, "digits", config=TINY, out=tmp_path)
    assert same(first.weights, again.weights)
    with pytest.raises(OptionError, match="another lr"):
        fit(ARCH, "digits", config=dataclasses.replace(TINY, lr=0.1), out=tmp_path)
    with pytest.raises(OptionError, match="another spec"):
        fit("mlp(width=8)", "digits", config=TINY, out=tmp_path)
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == stamp


def test_evaluate_counts_every_sample_and_restores_modes():
    from isogon.data import samples

    data = samples("digits(test)")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    model[1].eval()
    found = evaluate(model, data, batch_size=100)
    assert [m.training for m in model] == [True, False, True]
    x, y = data.take(slice(None))
    logits = model.eval()(x).detach()
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == y).double().mean()))
    expected = nn.functional.cross_entropy(logits.double(), y)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr": -1.0}, "lr is out of range"),
        ({"lr": float("nan")}, "lr is out of range"),
        ({"optimizer": "lion"}, "optimizer has the wrong type"),
        ({"epochs": 1.5}, "epochs has the wrong type"),
        ({"epoch": 1}, "Did you mean 'epochs'"),
        ({"snapshot_at": (2.0,)}, "snapshot_at is out of range"),
    ],
)
def test_wrong_options_are_refused(options, match):
    with pytest.raises(OptionError, match=match):
        from_options(options)


def test_misfits_are_said_in_one_line(tmp_path):
    with pytest.raises(ModelError, match="one logit per class"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "digits", config=TINY)
    with pytest.raises(ModelError, match="does not take these inputs"):
        fit(nn.Linear(3, 10), "digits", config=TINY)
    with pytest.raises(DataError, match="cross-entropy needs class labels"):
        fit(
            nn.Linear(2, 1),
            (torch.rand(4, 2), torch.rand(4)),
            config=FitConfig(loss="cross_entropy"),
        )
    with pytest.raises(OptionError, match="Set out"):
        fit(ARCH, "digits", config=FitConfig(snapshot_every=1))
    (tmp_path / "last.safetensors").write_bytes(b"junk")
    with pytest.raises(FileError):
        fit(ARCH, "digits", config=TINY, out=tmp_path)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_losses_are_of_logits_and_probabilities_are_not_trained_on(end):
    from isogon.data import samples

    torch.manual_seed(0)
    data = samples("digits(test, 60)")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    ended = nn.Sequential(*net, end)
    assert evaluate(ended, data) == evaluate(net, data)
    config = FitConfig(epochs=1, normalize="none")
    if isinstance(end, nn.LogSoftmax):  # of log-probabilities it is the same loss
        plain = fit(net, data, config=config).history["running_loss"].iloc[-1]
        assert fit(ended, data, config=config).history["running_loss"].iloc[-1] == pytest.approx(
            plain
        )
        return
    with pytest.raises(ModelError, match=r"ends in a softmax.*before the softmax"):
        fit(ended, data, config=config)


def test_divergence_keeps_the_good_file(tmp_path):
    config = FitConfig(epochs=2, optimizer="sgd", lr=1e20, normalize="none")
    with pytest.raises(ModelError, match="Lower lr"):
        fit("mlp", "digits", config=config, out=tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_checkpoint_never_runs_code(tmp_path):
    found = fit(ARCH, "digits", config=dataclasses.replace(TINY, epochs=0))
    found.meta["spec"] = "os:system('touch pwned')"
    found.save(tmp_path / "evil.safetensors")
    with pytest.raises(ModelError, match="code outside isogon"):
        Checkpoint.load(tmp_path / "evil.safetensors").model()
    found.meta["spec"] = "mlp(width=10000000, depth=2)"  # small file, huge model
    found.save(tmp_path / "bomb.safetensors")
    with pytest.raises(SpecError, match="a file asks for width"):
        Checkpoint.load(tmp_path / "bomb.safetensors").model()


def test_progress_reaches_the_end():
    seen = []
    with context.use(progress=lambda done, total, what: seen.append((done, total, what))):
        fit(ARCH, "digits", config=dataclasses.replace(TINY, epochs=1))
    assert seen[0][0] == 0
    assert seen[-1] == (23, 23, "training on digits")


def test_trained_is_memoised(tmp_path):
    with context.use(cache_root=tmp_path):
        spec = "trained(mlp(width=16, depth=1), digits, epochs=1, lr=0.01)"
        first = load(spec)
        (folder,) = [p for p in (tmp_path / "trained").iterdir() if p.is_dir()]
        stamp = (folder / "last.safetensors").stat().st_mtime_ns
        assert same(first.state_dict(), load(spec).state_dict())
        assert (folder / "last.safetensors").stat().st_mtime_ns == stamp
        (folder / "last.safetensors").write_bytes(b"damaged")
        assert same(first.state_dict(), load(spec).state_dict())
        load("trained(mlp(width=16, depth=1), digits, epochs=1, lr=0.01, seed=1)")
        assert len([p for p in (tmp_path / "trained").iterdir() if p.is_dir()]) == 2
        with pytest.raises(OptionError, match="Did you mean 'lr'"):
            load("trained(mlp, digits, lrr=0.1)")


def test_built_models_are_as_the_architecture_makes_them():
    found = fit("cnn(width=4)", "digits", config=dataclasses.replace(TINY, epochs=0))
    assert found.spec == "cnn(channels=1, classes=10, size=8, width=4)"
    assert found.weights.keys() == nets.build(found.spec).state_dict().keys()


class Killed(BaseException):
    pass


def test_trained_goes_on_after_a_kill_and_leaves_random_states_alone(tmp_path):
    spec = "trained(mlp(width=16, depth=1), digits, epochs=2, checkpoint_every=5)"

    def kill(done, total, what):
        if done == 50:
            raise Killed

    with context.use(cache_root=tmp_path / "calm"):
        before = torch.get_rng_state()
        calm = load(spec)
        calm = load(spec)
        assert torch.equal(before, torch.get_rng_state())
    with context.use(cache_root=tmp_path / "killed"):
        with pytest.raises(Killed), context.use(progress=kill):
            load(spec)
        (file,) = (tmp_path / "killed").rglob("last.safetensors")
        assert Checkpoint.load(file).step == 46  # the end of an epoch
        assert same(load(spec).state_dict(), calm.state_dict())


def test_trained_trains_once_when_several_ask(tmp_path):
    starts, found = [], []

    def ask():
        def note(done, total, what):
            if done == 0:
                starts.append(what)

        with context.use(cache_root=tmp_path, progress=note):
            found.append(load("trained(mlp(width=8, depth=1), digits, epochs=1)").state_dict())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(starts) == 1
    assert len(found) == 3
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_other_data_or_initial_weights_are_another_run(tmp_path):
    x, y = torch.rand(32, 4), torch.arange(32) % 3
    module = nn.Linear(4, 3)
    fit(module, (x, y), config=TINY, out=tmp_path)
    with pytest.raises(OptionError, match="another data_digest"):
        fit(module, (x + 1, y), config=TINY, out=tmp_path)
    with pytest.raises(OptionError, match="another initial"):
        fit(nn.Linear(4, 3), (x, y), config=TINY, out=tmp_path)


def test_snapshots_of_a_trained_model_have_a_name(tmp_path):
    from isogon.training.snapshots import snapshots

    with context.use(cache_root=tmp_path):
        found = snapshots("trained(mlp(width=8, depth=1), digits, epochs=2, snapshot_every=1)")
        assert list(found) == ["epoch-0001", "epoch-0002"]
        assert len(snapshots("trained(mlp(width=8, depth=1), digits, epochs=2)")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"normalize": {"mean": "x", "std": [1.0]}},
        {"normalize": {"mean": [0.0]}},
        {"history": [3]},
        {"epoch": -1},
        {"step": True},
        {"state": None},
        {"spec": 7},
    ],
    ids=str,
)
def test_metadata_that_lies_is_refused(tmp_path, change):
    found = fit(ARCH, "digits", config=dataclasses.replace(TINY, epochs=0))
    found.meta |= change
    found.save(tmp_path / "x.safetensors")
    with pytest.raises(FileError, match="not a valid checkpoint"):
        Checkpoint.load(tmp_path / "x.safetensors")


def test_snapshots_of_own_code_need_no_code(tmp_path, monkeypatch):
    """Their states are compared with a model that the user names; the file builds nothing."""
    (tmp_path / "of_mine.py").write_text(
        "from torch import nn\n"
        "def build(inputs=2, classes=2):\n    return nn.Sequential(nn.Linear(inputs, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = FitConfig(epochs=2, snapshot_every=1)
    done = fit("of_mine:build()", "two_moons", config=config, out=tmp_path / "run")
    model = done.model().state_dict()
    for found in (Snapshots.of(tmp_path / "run"), Snapshots.of([done.path])):
        states = [found[name] for name in found]
        assert states[-1].keys() == model.keys()
        assert all(torch.equal(states[-1][k], model[k]) for k in model)
