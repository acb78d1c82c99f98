"""Right answers and losses over data, by one pass or by several shares of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isogon.data import Samples
from isogon.errors import DataError
from isogon.measures.evolution.states import Score, score
from isogon.nets.accuracy import Correct, accuracy
from isogon.nets.passes import LOGITS, PerSample, all_passes
from isogon.training.config import FitConfig
from isogon.training.evaluation import LossSum, evaluate, loss_of

few = settings(max_examples=20, deadline=None)


def stream(n, size, seed, classes=3):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 4, generator=g), torch.randint(classes, (n,), generator=g)
    return x, y, list(zip(x.split(size), y.split(size)))


def net(seed, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, classes), nn.LogSoftmax(1))


@few
@given(
    n=st.integers(1, 20), size=st.integers(1, 7), shares=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_shares_add_up_to_the_whole(n, size, shares, seed):
    model, (x, y, batches) = net(seed), stream(n, size, seed)
    with torch.no_grad():
        z = model[0](x)
    right = float((z.argmax(1) == y).double().mean())
    entropy = float(nn.functional.cross_entropy(z.double(), y))
    each = PerSample(lambda x, y: [(float(a.sum()), int(b)) for a, b in zip(x, y)])
    watchers = [Correct(), Score(), LossSum(*loss_of(FitConfig(), y)), each]
    assert all_passes(model, batches, watchers, shards=shares) == n
    assert watchers[0].result() == pytest.approx(right)
    assert watchers[1].result() == pytest.approx((right, entropy), rel=1e-6)
    assert watchers[2].result() == pytest.approx({"loss": entropy, "accuracy": right}, rel=1e-5)
    found = [pair for part in each.result() for pair in part]
    assert [label for _, label in found] == y.tolist()
    assert [total for total, _ in found] == pytest.approx([float(a.sum()) for a in x], abs=1e-5)
    assert accuracy(model, batches) == pytest.approx(right)
    assert score(model, batches) == pytest.approx((right, entropy), rel=1e-6)
    samples = Samples(x, y, name="s")
    assert evaluate(model, samples, batch_size=size) == pytest.approx(
        {"loss": entropy, "accuracy": right}, rel=1e-5
    )


def test_models_of_a_zoo_in_one_pass():
    _, _, batches = stream(17, 5, 0)
    zoo = {f"seed {k}": net(k) for k in range(4)}
    watchers = {name: Correct((name, LOGITS)) for name in zoo}
    all_passes(zoo, batches, list(watchers.values()))
    for name, watcher in watchers.items():
        assert watcher.result() == accuracy(zoo[name], batches)


def test_gradients_are_there_for_what_is_computed_of_inputs_and_the_model_is_in_eval_mode():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    model.train()

    def slopes(x, y):
        assert not model.training
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
        return g

    _, _, batches = stream(7, 3, 0)
    watcher = PerSample(slopes)
    all_passes(model, batches, [watcher, Correct()])
    torch.testing.assert_close(
        torch.cat(watcher.result()), model[0].weight[:1].detach().expand(7, 4)
    )
    assert model.training


def test_the_loss_of_a_run_that_diverged_is_no_number_and_no_error():
    x, y, _ = stream(6, 3, 0)
    model = net(0)
    model[0].weight.data.fill_(torch.inf)
    found = evaluate(model, Samples(x, y, name="s"))
    assert found["loss"] != found["loss"]
    with pytest.raises((DataError, ValueError), match="NaN or infin"):
        accuracy(model, [(x, y)])
