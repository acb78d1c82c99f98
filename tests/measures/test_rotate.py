"""Elements of a group between layers: what a linear tail undoes, and what nothing does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import DataError, OptionError


def net(norm=False):
    """A small network whose classes are about equally frequent."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.ReLU(),
        nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        z = model(torch.randn(500, 6))
        model[-1].bias -= z.mean(0)
        model[-1].weight /= z.std(0)[:, None]
        model[-1].bias /= z.std(0)
    return model


def data(model, count=160, batch=16, seed=0):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        y = model(x).argmax(1)
    return list(zip(x.split(batch), y.split(batch)))


def accuracy(model, batches):
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def test_before_retraining_by_definition():
    model, generator = net(norm=True), torch.Generator().manual_seed(5)
    test = data(model, seed=1)
    found = ig.rotate(
        model, ig.group("orthogonal"), test, test, epochs=0, repeats=2, generator=generator
    )
    generator = torch.Generator().manual_seed(5)
    rows = iter(found.to_frame().itertuples())
    for site, width in (("2", 16), ("4", 12)):
        for repeat in range(2):
            element, row = ig.group("orthogonal").sample(width, generator), next(rows)
            head, tail = model[: int(site) + 1], model[int(site) + 1 :]
            turned = lambda x, h=head, e=element, t=tail: t(e(h(x)))  # noqa: E731
            assert (row.site, row.repeat, row.baseline) == (site, repeat, 1.0)
            assert row.accuracy == accuracy(turned, test)
            assert row.penalty == pytest.approx(1 - row.accuracy)
            assert not row.in_block


def test_a_linear_tail_undoes_any_element_and_a_relu_only_those_of_its_group():
    def bottleneck(behind):
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), behind, nn.Linear(6, 3)).eval()
        with torch.no_grad():
            model[0].weight.copy_(2 * torch.eye(6))
            model[0].bias.copy_(torch.full((6,), 0.3))
            model[3].weight.copy_(4 * torch.eye(6)[:3])
            model[3].bias.zero_()
        return model

    def penalty(behind, group, epochs):
        model = bottleneck(behind)
        train, test = data(model, 640, 32), data(model, 320, seed=1)
        options = {"lr": 0.1, "sites": "1", "epochs": epochs, "repeats": 2}
        return ig.rotate(model, ig.group(group), train, test, **options).table["penalty"]

    for group in ("orthogonal", "permutations"):
        assert penalty(nn.Identity(), group, 0).max() > 0.2
        assert penalty(nn.Identity(), group, 15).abs().max() <= 0.03
    # nothing in front of this ReLU can be trained: what it cuts off is lost
    assert penalty(Rectified(), "permutations", 15).abs().max() <= 0.03
    assert penalty(Rectified(), "orthogonal", 15).min() > 0.05


class Rectified(nn.Module):
    """A ReLU that is no site of its own."""

    def forward(self, x):
        return x.relu() + 0.0


def test_near_the_identity_costs_little():
    model = net()
    test = data(model, seed=1)
    small, large = (
        ig.rotate(model, ig.group(g), test, test, epochs=0, repeats=4, sites="4").table["penalty"]
        for g in ("orthogonal(power=0.05)", "orthogonal")
    )
    assert small.max() < 0.2 < large.min()


def test_it_is_drawn_again_and_leaves_the_model_alone():
    model = net(norm=True)
    before = copy.deepcopy(model.state_dict())
    train, test = data(model, 64), data(model, 64, seed=1)
    state = torch.get_rng_state()
    runs = [
        ig.rotate(model, ig.group("permutations"), train, test, epochs=2, lr=0.01, repeats=2,
                  generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]  # fmt: skip
    assert runs[0].equals(runs[1])
    assert not runs[0].equals(runs[2])
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    summary = runs[0].summary()
    assert list(summary["repeats"]) == [2, 2]
    assert summary["sd"].notna().all()


def test_the_layers_before_are_frozen_and_the_identity_is_retrained_too():
    """With the identity inserted, retraining is that of the last layer by Adam, step by step."""
    model, generator = net(), torch.Generator().manual_seed(0)
    train, test = data(model, 64), data(model, seed=1)
    wrong = [(x, (y + 1) % 3) for x, y in train]
    found = ig.rotate(model, ig.group("permutations"), wrong, test, epochs=3, lr=0.05, sites="4")
    generator = torch.Generator().manual_seed(0)
    ig.group("permutations").sample(12, generator)
    last = copy.deepcopy(model[5])
    steps = torch.optim.Adam(last.parameters(), lr=0.05)
    x, y = (torch.cat(t) for t in zip(*wrong))
    for _ in range(3):
        order = torch.randperm(64, generator=generator)
        for part in order.split(16):
            steps.zero_grad()
            with torch.no_grad():
                h = model[:5](x[part])
            nn.functional.cross_entropy(last(h), y[part]).backward()
            steps.step()
    exact = accuracy(lambda x: last(model[:5](x)), test)
    assert found.table["baseline"][0] == exact
    assert exact < 0.7


def test_batch_norms_behind_the_site_are_trained_as_in_training():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)
    ).eval()  # fmt: skip
    train, test = data(model, 64), data(model, seed=1)
    wrong = [(x, (y + 1) % 3) for x, y in train]
    found = ig.rotate(model, ig.group("permutations"), wrong, test, epochs=2, lr=0.02, sites="1")
    generator = torch.Generator().manual_seed(0)
    ig.group("permutations").sample(16, generator)
    head, tail = model[:2], copy.deepcopy(model[2:])
    steps = torch.optim.Adam(tail.parameters(), lr=0.02)
    x, y = (torch.cat(t) for t in zip(*wrong))
    tail.train()
    for _ in range(2):
        for part in torch.randperm(64, generator=generator).split(16):
            steps.zero_grad()
            with torch.no_grad():
                h = head(x[part])
            nn.functional.cross_entropy(tail(h), y[part]).backward()
            steps.step()
    tail.eval()
    assert found.table["baseline"][0] == accuracy(lambda x: tail(head(x)), test)
    single = [(x[:1], y[:1]) for x, y in train]
    with pytest.raises(DataError, match="one sample has no variance"):
        ig.rotate(model, ig.group("permutations"), single, test, epochs=1, sites="1")


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.relu = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()

    def forward(self, x):
        return x + self.outer(self.relu(self.inner(x)))


def test_within_a_block_the_path_around_is_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(Skip(), nn.Linear(6, 3)).eval()
    test = data(model)
    found = ig.rotate(model, ig.group("permutations"), test, test, epochs=0, sites="0.relu")
    assert found.table["in_block"].all()
    element = ig.group("permutations").sample(6, torch.Generator().manual_seed(0))
    block = model[0]
    turned = lambda x: model[1](x + block.outer(element(block.inner(x).relu())))  # noqa: E731
    assert found.table["accuracy"][0] == accuracy(turned, test)
    assert found.table["penalty"][0] > 0


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"repeats": 0}, {"lr": 0.0}])
def test_options_out_of_range(wrong):
    model = net()
    with pytest.raises(OptionError, match="out of range"):
        ig.rotate(model, ig.group("orthogonal"), data(model), data(model), **wrong)


def test_labels_of_other_classes_are_refused():
    model = net()
    train = [(x, y + 3) for x, y in data(model)]
    with pytest.raises(DataError, match="labels"):
        ig.rotate(model, ig.group("orthogonal"), train, data(model), epochs=1)
