from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isogon as ig
from isogon.errors import DataError, IsogonError, ModelError, OptionError
from isogon.measures.manifold import tangent as tangent_module
from isogon.measures.manifold.data_matrix import data_matrix, rank_column
from isogon.measures.manifold.tangent import tangent

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import slow_fisher


def net(seed: int, inputs: int, classes: int, hidden: int = 7, act=nn.Tanh, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, hidden), act(), nn.Linear(hidden, hidden), act()]
    return nn.Sequential(*layers, nn.Linear(hidden, classes)).to(dtype)


@pytest.fixture
def points(generator):
    return torch.rand(6, 9, generator=generator, dtype=torch.float64)


def labels(n):
    return torch.arange(n) % 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(2, 6), st.sampled_from([1.0, 8.0]))
def test_is_the_slow_twin_and_the_hessian_of_kl(seed, inputs, classes, scale):
    model = net(seed, inputs, classes)
    with torch.no_grad():
        model[-1].weight.mul_(scale)
    x = torch.randn(3, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values, trace = tangent(model, x).spectrum()
    for i in range(3):
        g = slow_fisher.data_matrix(model, x[i])
        h = slow_fisher.kl_hessian(model, x[i])
        assert torch.allclose(g, h, atol=1e-9 * float(trace[i]) + 1e-12)
        dense = torch.linalg.eigvalsh(g).flip(0)[: classes - 1]
        assert torch.allclose(dense, values[i, : len(dense)], atol=1e-10 * float(trace[i]) + 1e-15)
        assert torch.allclose(g.trace(), trace[i], rtol=1e-10)
        assert torch.linalg.matrix_rank(g) <= classes - 1


def test_columns_and_ranks(points):
    reading = data_matrix(net(0, 9, 4), [(points, labels(6))])
    table = reading.to_frame()
    assert list(table) == [
        "sample", "label", "prediction", "probability", "trace", "rank@1e-3", "rank@1e-6",
        "stable_rank", "participation_ratio", "entropy_rank",
        "eigenvalue_1", "eigenvalue_2", "eigenvalue_3",
    ]  # fmt: skip
    ls = table[["eigenvalue_1", "eigenvalue_2", "eigenvalue_3"]].to_numpy()
    assert np.allclose(ls.sum(1), table["trace"], rtol=1e-12)
    assert np.allclose(table["stable_rank"], ls.sum(1) / ls[:, 0])
    assert np.allclose(table["participation_ratio"], ls.sum(1) ** 2 / (ls**2).sum(1))
    q = ls / ls.sum(1, keepdims=True)
    assert np.allclose(table["entropy_rank"], np.exp(-(q * np.log(q)).sum(1)))
    assert (table["rank@1e-3"] == (ls > 1e-3 * ls[:, :1]).sum(1)).all()
    p = torch.softmax(net(0, 9, 4)(points), 1).max(1)
    assert np.allclose(table["probability"], p.values.detach())


def test_independent_of_batch_size_and_chunks(points, monkeypatch):
    model = net(1, 9, 5)
    whole = data_matrix(model, [(points, labels(6))]).to_frame()
    ones = data_matrix(model, [(points[i : i + 1], labels(6)[i : i + 1]) for i in range(6)])
    monkeypatch.setattr(tangent_module, "BUDGET", 80)
    monkeypatch.setattr(tangent_module, "FEW", 0)
    chunked = data_matrix(model, [(points, labels(6))]).to_frame()
    for other in (ones.to_frame(), chunked):
        assert np.allclose(whole.to_numpy(dtype=float), other.to_numpy(dtype=float), rtol=1e-9)


def test_log_softmax_and_one_logit(points):
    model = net(2, 9, 2)
    plain = data_matrix(model, [(points, labels(6))]).to_frame()
    soft = data_matrix(nn.Sequential(*model, nn.LogSoftmax(1)), [(points, labels(6))]).to_frame()
    assert np.allclose(plain.to_numpy(float), soft.to_numpy(float), rtol=1e-12)
    one = net(2, 9, 2)
    with torch.no_grad():  # the logit of class 1 against class 0
        last = nn.Linear(7, 1).double()
        last.weight.copy_(one[-1].weight[1:] - one[-1].weight[:1])
        last.bias.copy_(one[-1].bias[1:] - one[-1].bias[:1])
    binary = nn.Sequential(*list(one)[:-1], last)
    single = data_matrix(binary, [(points, labels(6))]).to_frame()
    assert np.allclose(plain.to_numpy(float), single.to_numpy(float), rtol=1e-9)
    with pytest.raises(ModelError, match="regression"):
        data_matrix(binary, [(points, torch.rand(6))])


def test_constant_model_has_no_direction(points):
    model = net(3, 9, 3)
    nn.init.zeros_(model[-1].weight)
    row = data_matrix(model, [(points, labels(6))]).to_frame().iloc[0]
    assert row["trace"] == row["stable_rank"] == row["entropy_rank"] == row["rank@1e-6"] == 0


def test_confident_images_keep_their_spectrum_in_float32(points):
    model = net(4, 9, 4, act=nn.ReLU)
    with torch.no_grad():
        model[-1].weight.mul_(20.0)
        model[-1].bias[0] = 16.0
    exact = data_matrix(model, [(points, labels(6))]).to_frame()
    assert (exact["probability"] > 1 - 1e-5).any()
    single = data_matrix(model.float(), [(points.float(), labels(6))]).to_frame()
    assert np.allclose(single["stable_rank"], exact["stable_rank"], rtol=1e-3)
    # logits of 40 carry 4e-6, and probabilities of rare classes that much relatively
    assert np.allclose(single["trace"], exact["trace"], rtol=1e-3)


def test_eigenvectors_are_eigenvectors(points):
    model = net(5, 9, 4)
    reading = data_matrix(model, [(points, labels(6))], eigenvectors=2)
    vectors = torch.from_numpy(reading.arrays["eigenvectors"])
    for i in range(6):
        g = slow_fisher.data_matrix(model, points[i])
        for k in range(2):
            want = reading.table[f"eigenvalue_{k + 1}"][i]
            assert torch.allclose(g @ vectors[i, k], want * vectors[i, k], atol=1e-12)


def test_model_is_left_as_it_was(points):
    model = nn.Sequential(net(6, 9, 4), nn.BatchNorm1d(4).double(), nn.Dropout(0.5)).train()
    model[0][0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data_matrix(model, [(points, labels(6))])
    assert model.training
    assert model[1].training
    assert not model[0][0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(IsogonError):
        data_matrix(model, [(points[:, :5], labels(6))])
    assert model.training


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda m, x: (m, []), DataError, "sample"),
        (lambda m, x: (m, [(x[:, :5], labels(6))]), IsogonError, "does not take these inputs"),
        (lambda m, x: (m, [(x * float("nan"), labels(6))]), DataError, "finite"),
        (lambda m, x: (nn.Sequential(m, nn.Unflatten(1, (2, 2))), [(x, labels(6))]), ModelError,
         "row of logits"),
        (lambda m, x: (nn.Embedding(5, 3), [(torch.ones(6, dtype=torch.long), labels(6))]),
         ModelError, "real-valued"),
    ],
)  # fmt: skip
def test_refusals(points, change, error, says):
    model, batches = change(net(7, 9, 4), points)
    with pytest.raises(error, match=says):
        data_matrix(model, batches)


def test_refuses_nan_weights_and_bad_tolerances(points):
    model = net(8, 9, 4)
    with pytest.raises(OptionError, match="tolerances"):
        data_matrix(model, [(points, labels(6))], tolerances=(2.0,))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"0\.weight"):
        data_matrix(model, [(points, labels(6))])


def test_names_of_ranks():
    assert [rank_column(t) for t in (1e-3, 1e-6, 0.5, 2.5e-4, 0.0)] == [
        "rank@1e-3", "rank@1e-6", "rank@5e-1", "rank@2.5e-4", "rank@0",
    ]  # fmt: skip


def test_reads_back_and_draws(points, tmp_path):
    reading = ig.data_matrix(net(9, 9, 4), [(points, labels(6))], eigenvectors=1)
    reading.save(tmp_path)
    again = ig.read(tmp_path)
    assert again.equals(reading)
    ig.draw(again).savefig(tmp_path / "a.png")
    ig.draw(again, eigenvectors=True).savefig(tmp_path / "b.png")
    with pytest.raises(OptionError, match="no option"):
        ig.draw(again, colour="red")
