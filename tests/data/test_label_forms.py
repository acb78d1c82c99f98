"""Labels and inputs in any form: numbers are read, anything else is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.data import Samples
from isogon.data.labels import numbers
from isogon.data.samples import as_samples
from isogon.errors import DataError
from isogon.nets.accuracy import accuracy

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
NAMES = ["cat", "dog", "eel"] * 4


class Listed(torch.utils.data.Dataset):
    """A map-style data set whose labels are what a list holds."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], self.labels[i]


def loader(labels):
    return torch.utils.data.DataLoader(Listed(labels), batch_size=5)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


MEASURES = {
    "data matrix": ig.data_matrix,
    "reset": lambda net, data: ig.reset(net, None, data, random=1, bootstrap=0),
    "accuracy": lambda net, data: accuracy(
        net, data if isinstance(data, list | torch.utils.data.DataLoader) else ig.batches(data)
    ),
}
TEXT = {
    "list": [(X, NAMES)],
    "array": [(X, np.array(NAMES))],
    "objects": [(X, np.array(NAMES, object))],
    "bytes": [(X, np.array(NAMES, "S"))],
    "nested": [(X, [[n] for n in NAMES])],
    "loader": loader(NAMES),
    "data set": Listed(NAMES),
    "pair": (X, NAMES),
    "pair of arrays": (X.numpy(), np.array(NAMES)),
}


@pytest.mark.parametrize("form", TEXT)
@pytest.mark.parametrize("measure", MEASURES)
def test_names_are_no_labels(net, form, measure):
    with pytest.raises(DataError, match=r"labels.* are no numbers.*cat.*numpy\.unique") as error:
        MEASURES[measure](net, TEXT[form])
    assert "\n" not in str(error.value)


OTHERS = {
    "dict": ({"kind": Y}, r"are no numbers.*dict with 'kind'.*y\['kind'\]"),
    "a name": ("cat", "are no numbers.*'cat'"),
    "ragged": ([[0], [0, 1]] * 6, "are no numbers.*list of 12"),
    "dates": (np.array(["2020-01-01"] * 12, "M8[D]"), "are no numbers.*datetime64"),
    "one number": (1, "differ in number"),
    "one tensor": (torch.tensor(1), "differ in number"),
    "two tensors": ((Y, Y), "differ"),
}


@pytest.mark.parametrize("form", OTHERS)
def test_what_else_is_no_label(net, form):
    labels, words = OTHERS[form]
    for data in ([(X, labels)], (X, labels)):
        for measure in MEASURES.values():
            with pytest.raises(DataError, match=f"{words}|different number"):
                measure(net, data)


def test_a_data_set_of_dicts_as_labels():
    with pytest.raises(DataError, match="labels of data set user data are no numbers"):
        ig.batches(Listed([{"a": 1}] * 12))


NUMBERS = {
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "tensors": list(Y),
    "numpy": Y.numpy(),
    "numpy numbers": list(Y.numpy()),
    "objects": np.array(Y.tolist(), object),
    "extended": Y.numpy().astype(np.longdouble),
    "other byte order": Y.numpy().astype(Y.numpy().dtype.newbyteorder()),
    "backwards": Y.numpy()[::-1].copy()[::-1],
}


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers_are_read_whatever_they_came_in(net, form):
    expected = accuracy(net, [(X, Y)])
    y = NUMBERS[form]
    for data in ((X, y), (X.numpy(), y), [(X, y)]):
        assert torch.equal(ig.batches(data).first(12)[1].long(), Y)
        assert accuracy(net, ig.batches(data)) == expected
        assert ig.reset(net, None, data, random=1, bootstrap=0).meta["accuracy"] == expected
    assert accuracy(net, [(X, y)]) == expected
    assert torch.equal(as_samples((X, y), name="mine").labels.long(), Y)


def test_none_beside_inputs_is_no_label(net):
    for data in ((X, None), [(X, None)]):
        assert ig.data_matrix(net, data).table["label"].isna().all()
        with pytest.raises(DataError, match="have no labels"):
            ig.reset(net, None, data, random=1)
    with pytest.raises(DataError, match="have no labels"):
        accuracy(net, [(X, None)])
    assert as_samples((X, None), name="mine").labels.isnan().all()


def test_a_pair_as_a_list_says_what_to_write():
    with pytest.raises(DataError, match=r"a tuple \(x, y\)"):
        list(ig.batches([X, Y]))


def test_inputs_that_are_no_numbers_and_such_as_torch_has_no_type_for(net):
    for x in (np.full((12, 4), "a"), np.full((12, 4), {}, object)):
        for data in ((x, Y), [(x, Y)]):
            with pytest.raises(DataError, match=r"inputs of .* are no numbers"):
                ig.batches(data)
    wide = X.numpy().astype(np.longdouble)
    for data in ((wide, Y), [(wide, Y)], (X.numpy().astype(">f8"), Y)):
        x, _ = ig.batches(data).first(12)
        assert x.dtype == torch.float64
        assert torch.equal(x, X.double())


def test_targets_in_words_beside_pairs_in_numbers():
    data = Listed(Y)
    data.targets = NAMES
    assert as_samples(data, name="mine").labels.tolist() == Y.tolist()


def test_labels_of_different_shape_are_told_from_inputs():
    data = Listed([torch.zeros(1 + i % 2) for i in range(12)])
    with pytest.raises(DataError, match=r"mixes labels of different shape: got \[1\], \[2\]"):
        ig.batches(data).first(12)


def test_samples_keep_their_labels_when_the_array_changes():
    y = Y.numpy().copy()
    data = Samples(X, y, name="mine")
    y[:] = 0
    assert torch.equal(data.labels, Y)


def test_a_read_only_array_is_copied_without_a_word():
    y = Y.numpy().copy()
    y.flags.writeable = False
    assert torch.equal(numbers(y), Y)
