"""The graph among sites: chains, skips, branches, what is not traced."""

from __future__ import annotations

import torch
from torch import nn

import isogon as ig
from isogon.nets.wiring import wiring


def names(model, x, select="activations"):
    return [str(s) for s in ig.sites(model, select, example=x)]


class Residual(nn.Module):
    def __init__(self, before: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))
        self.r, self.s, self.t = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.before = before

    def forward(self, x):
        x = self.r(self.a(x))
        y = x + self.b(self.s(x))  # an activation on the branch
        z = self.t(y.view(y.shape[0], -1))
        return self.c(z) + y if self.before else self.c(z)


def test_a_chain():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    found = wiring(model, torch.zeros(1, 2), ["1", "3"])
    assert found.edges == (("input", "1"), ("1", "3"), ("3", "output"))
    assert found.complete
    assert found.levels() == {"input": 0, "1": 1, "3": 2, "output": 3}


def test_a_skip_ends_at_what_reads_the_sum():
    found = wiring(Residual(before=False), torch.zeros(1, 3), ["r", "s", "t"])
    assert set(found.edges) == {
        ("input", "r"), ("r", "s"), ("r", "t"), ("s", "t"), ("t", "output"),
    }  # fmt: skip


def test_a_sum_that_is_read_twice_is_a_node():
    found = wiring(Residual(before=True), torch.zeros(1, 3), ["r", "s", "t"])
    (join,) = [n for n, kind in found.nodes.items() if kind == "join"]
    assert join == ":add#0"
    assert set(found.edges) == {
        ("input", "r"), ("r", "s"), ("r", join), ("s", join), (join, "t"), (join, "output"),
        ("t", "output"),
    }  # fmt: skip


def test_resnet18():
    model = ig.load("resnet18(num_classes=10)")
    x = torch.zeros(1, 3, 32, 32)
    sites = names(model, x)
    found = wiring(model, x, sites)
    assert [n for n, kind in found.nodes.items() if kind == "site"] == sites
    into = {n: [a for a, b in found.edges if b == n] for n in found.nodes}
    assert into["layer1.0.relu:1"] == ["layer1.0.relu", "relu"]
    assert max(found.levels().values()) == 18
    assert all(into[n] for n in found.nodes if n != "input")


def test_a_container_stands_for_what_is_in_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2)))
    found = wiring(model, torch.zeros(1, 2), ["0", "1"])
    assert found.edges == (("input", "0"), ("0", "1"), ("1", "output"))


def test_what_can_not_be_traced_is_a_chain():
    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.ReLU()

        def forward(self, x):
            return torch.stack([self.r(row) for row in x])

    found = wiring(Loops(), torch.zeros(2, 3), ["r"])
    assert not found.complete
    assert found.edges == (("input", "r"), ("r", "output"))
    assert "chain" in found.note
