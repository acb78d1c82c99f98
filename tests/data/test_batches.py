"""Batches: re-iterable, the same every time, refused otherwise."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

import isogon as ig
from isogon import registry
from isogon.data import Batches, Samples, as_batches, batches, points, sample, samples
from isogon.errors import DataError, FileError, OptionError, SpecError

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)


class Noisy:
    """Another draw on every pass."""

    def __iter__(self):
        yield torch.randn(3, 3), Y[:3]


class Late:
    """The same until the second full pass (two passes only look at the first batch)."""

    def __init__(self, change):
        self.passes, self.change = 0, change

    def __iter__(self):
        self.passes += 1
        found = [(X[:4], Y[:4]), (X[4:8], Y[4:8]), (X[8:], Y[8:])]
        yield from self.change(found) if self.passes > 3 else found


class Images(Dataset):
    """A map-style data set of user's own."""

    classes = ["a", "b"]

    def __len__(self):
        return 5

    def __getitem__(self, i):
        if not 0 <= i < 5:
            raise IndexError(i)
        return torch.full((1, 2, 2), float(i)), i % 2


def same(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for s, t in zip(a, b) for p, q in zip(s, t))


def test_two_passes_are_bitwise_equal():
    b = ig.batches("digits(test, 100)", batch_size=32)
    assert same(list(b), list(b))
    assert [len(x) for x, _ in b] == [32, 32, 32, 4]
    assert len(b) == 4
    assert b.count == 100


@given(size=st.integers(1, 50), limit=st.integers(1, 40))
def test_batch_size_does_not_change_the_samples(size, limit):
    b = batches(f"two_moons(test, {limit}, n=30)", batch_size=size)
    x = torch.cat([x for x, _ in b])
    assert torch.equal(x, points("two_moons(test, n=30)")[:limit])
    assert len(b) == -(-min(limit, 30) // size) == len(list(b))


def test_limit_seed_and_index():
    whole = samples("digits(test)")
    assert torch.equal(points("digits(test, 16)"), whole.take(range(16))[0])
    small, large = points("digits(test, 5, seed=3)"), points("digits(test, 50, seed=3)")
    assert torch.equal(small, large[:5])
    assert not torch.equal(small, whole.take(range(5))[0])
    assert not torch.equal(small, points("digits(test, 5, seed=4)"))
    assert torch.equal(sample("digits(test)[3]"), whole[3][0])
    assert torch.equal(sample("digits(test)[-1]"), whole[len(whole) - 1][0])
    assert points("digits(test)[3]").shape == (1, 1, 8, 8)
    assert len(samples("digits(test, 100000)")) == 355  # a limit is an upper bound


@pytest.mark.parametrize(
    "bad", ["digits(test)[355]", "digits(tset)", "digitz", "net.onnx", "digits@w.pt"]
)
def test_wrong_specs_are_usage_errors(bad):
    with pytest.raises(SpecError) as error:
        batches(bad)
    assert "expected" in str(error.value)
    assert error.value.exit_code == 2


def test_empty_and_negative():
    with pytest.raises(DataError, match="empty"):
        batches("digits(test, 0)")
    with pytest.raises(OptionError, match="negative"):
        batches("digits(test, -1)")
    with pytest.raises(OptionError):
        batches("digits(test)", batch_size=0)
    with pytest.raises(SpecError, match="one sample"):
        sample("digits(test, 2)")


@pytest.mark.parametrize(
    "source",
    [
        [(X, Y)],
        (X, Y),
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=3),
        [(X[:6], Y[:6]), (X[6:6], Y[6:6]), (X[6:], Y[6:].tolist())],
    ],
)
def test_whatever_a_caller_has(source):
    b = as_batches(source)
    for _ in range(3):
        assert torch.equal(torch.cat([x for x, _ in b]), X)
    assert b.count == 10
    assert len(b) == len(list(b))
    assert torch.equal(b.first(7)[1], Y[:7])
    assert torch.equal(b.samples.take(range(10))[0], X)
    assert as_batches(b) is b
    assert batches(source).count == 10
    assert batches(b) is b


@pytest.mark.parametrize(
    "source",
    [
        iter([(X, Y)]),
        ((X, Y) for _ in range(2)),
        Noisy(),
        DataLoader(TensorDataset(X, Y), shuffle=True, generator=torch.Generator().manual_seed(0)),
        [],
        [(X[:0], Y[:0])],
        [(X, Y, Y)],
        [X[0]],
        [(X, Y[:4])],
        [("a", "b")],
        [(X * float("nan"), Y)],
        {"x": X},
        3,
    ],
)
def test_sources_that_are_refused(source):
    with pytest.raises(DataError) as error:
        as_batches(source)
    assert "expected" in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:2],
        lambda found: [*found, found[0]],
        lambda found: [found[0], found[2], found[1]],
        lambda found: [*found[:2], (found[2][0], found[2][1] + 1)],
        lambda found: [*found[:2], (found[2][0] + 1e-7, found[2][1])],
        lambda found: [*found[:2], (found[2][0].double(), found[2][1])],
    ],
)
def test_a_change_on_a_later_pass_is_refused(change):
    b = as_batches(Late(change))
    assert sum(1 for _ in b) == 3
    with pytest.raises(DataError, match="changes between passes"):
        list(b)


def test_an_interrupted_pass_is_no_change():
    b = as_batches(DataLoader(TensorDataset(X, Y), batch_size=3))
    for _ in b:
        break
    assert len(list(b)) == len(list(b)) == 4


def test_map_style_data_is_read_on_demand_and_watched():
    b = as_batches(Images())
    assert b.classes == ["a", "b"]
    assert b.samples.shape == (1, 2, 2)
    assert b.samples.labels.tolist() == [0, 1, 0, 1, 0]
    assert b.samples.subset([3, 1]).labels.tolist() == [1, 1]
    assert b.samples.relabelled(torch.ones(5, dtype=torch.long)).take([0])[1].tolist() == [1]

    class Augmented(Images):
        def __getitem__(self, i):
            return torch.rand(1, 2, 2), 0

    with pytest.raises(DataError, match="changes between passes"):
        as_batches(Augmented())


def test_integer_inputs_and_float_labels_pass_through():
    x, y = torch.arange(12).reshape(4, 3), torch.rand(4, dtype=torch.float64)
    b = as_batches((x, y))
    assert torch.equal(b.first(4)[0], x)
    assert b.first(4)[0].dtype == torch.int64
    assert torch.equal(b.first(4)[1], y)


def test_samples_never_hand_out_their_own_memory():
    made = Samples(X.clone(), Y, name="mine")
    made.take(range(3))[0].zero_()
    assert torch.equal(made.take(range(3))[0], X[:3])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_same(workers):
    b = batches("digits(test, 40)", batch_size=16, workers=workers)
    assert same(list(b), list(batches("digits(test, 40)", batch_size=16)))


def test_samples_pickle():
    made = samples("digits(test, 5)")
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(made.take(range(5))[0], again.take(range(5))[0])


def test_user_functions(tmp_path, monkeypatch):
    (tmp_path / "mydata_of_user.py").write_text(
        "import torch, numpy as np\n"
        "from torch.utils.data import TensorDataset\n"
        "def pair(n=4): return torch.ones(n, 2), torch.zeros(n)\n"
        "def arrays(): return np.ones((3, 2)), np.zeros(3)\n"
        "def dataset(): return TensorDataset(torch.ones(5, 2), torch.zeros(5))\n"
        "def mapped(): return [(torch.ones(2), 0)] * 6\n"
        "def wrong(): return 3\n"
        "def loader(**kw):\n"
        "    from torch.utils.data import DataLoader\n"
        "    return DataLoader(dataset(), batch_size=2, **kw)\n"
        "class Changing:\n"
        "    def __iter__(self): yield torch.rand(3, 2), torch.zeros(3)\n"
        "class Augmented:\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, i): return torch.rand(2), 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    counts = {"loader": 5, "pair(7)": 7, "arrays()": 3, "dataset": 5, "mapped": 6}
    for call, count in counts.items():
        assert batches(f"mydata_of_user:{call}").count == count
    assert torch.equal(sample("mydata_of_user:pair(7)[2]"), torch.ones(2))
    assert torch.equal(sample("mydata_of_user:loader[2]"), torch.ones(2))
    assert len(samples("mydata_of_user:loader")) == 5
    for name in ("Changing", "Augmented"):
        with pytest.raises(DataError, match="changes between passes"):
            batches(f"mydata_of_user:{name}")
    with pytest.raises(SpecError, match="no such sample"):
        batches("mydata_of_user:pair(7)[7]")
    with pytest.raises(DataError, match="not a data set"):
        batches("mydata_of_user:wrong")
    with pytest.raises(SpecError):
        batches("mydata_of_user:pair(k=3)")
    with pytest.raises(SpecError):
        batches("mydata_of_user:nothing")


def test_split_where_the_spec_gives_none():
    assert len(samples("digits", split="train")) == 1442
    assert len(samples("digits(test)", split="train")) == 355
    assert len(samples("digits(limit=7)", split="train")) == 7
    assert len(samples("digits")) == 355


def test_nouns_are_registered():
    assert isinstance(registry.get("noun", "Batches").build("digits(test, 2)"), Batches)
    assert registry.get("noun", "Points").build("digits(test, 2)").shape == (2, 1, 8, 8)


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(FileError, match="--data-root") as error:
        batches("mnist(test)", root=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "--download" in str(error.value)


@pytest.mark.shared
def test_mnist(shared):
    b = batches("mnist(test, 512)", root=shared / "data")
    x, y = b.first(512)
    assert x.shape == (512, 1, 28, 28)
    assert x.dtype == torch.float32
    assert float(x.max()) == 1
    assert y[:5].tolist() == [7, 2, 1, 0, 4]
    assert b.classes == list("0123456789")
    raw = np.fromfile(shared / "data/MNIST/raw/t10k-images-idx3-ubyte", np.uint8)[16:]
    assert torch.equal(x.flatten(), torch.from_numpy(raw[: x.numel()]).float() / 255)


class TestWithoutLabels:
    """Inputs alone are data of every form; their labels are NaN, which what needs them refuses."""

    X = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))

    class Bare(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return TestWithoutLabels.X[i]

    class Single(Bare):
        def __getitem__(self, i):
            return (TestWithoutLabels.X[i],)

    class Nothing(Bare):
        def __getitem__(self, i):
            return TestWithoutLabels.X[i], None

    FORMS = (
        X,
        [X[:4], X[4:]],
        [(X, None)],
        torch.utils.data.TensorDataset(X),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), batch_size=4),
        Bare(),
        Single(),
        Nothing(),
    )

    @pytest.mark.parametrize("form", range(len(FORMS)))
    def test_they_are_measured(self, form):
        batches = ig.batches(self.FORMS[form])
        x, y = batches.first(6)
        assert torch.equal(x, self.X)
        assert y.isnan().all()
        model = ig.load("mlp(4, inputs=2, classes=3)")
        assert ig.data_matrix(model, batches).table["label"].isna().all()
        with pytest.raises(DataError, match="no labels"):
            ig.reset(model, [], batches, random=1)

    def test_a_triple_is_none(self):
        class Triple(self.Bare):
            def __getitem__(self, i):
                return TestWithoutLabels.X[i], 0, 1

        with pytest.raises(DataError, match="not a pair"):
            ig.batches(Triple())
