"""Which tensor of an output is the logits; what else a model may be called with."""

from __future__ import annotations

import dataclasses
import enum
import math
import shlex
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isogon as ig
from isogon import context
from isogon.cpwl.lower import lower
from isogon.errors import ModelError, UnsupportedOp
from isogon.nets import Output
from isogon.nets.accuracy import accuracy
from isogon.nets.outputs import logits
from isogon.nets.trace import trace
from isogon.specs import parse

X = torch.rand(4, 6)


@dataclasses.dataclass
class Data:
    logits: Tensor | None = None
    hidden: tuple | None = None


class ModelOutput(OrderedDict):
    """As Hugging Face's: a dict whose keys are attributes too."""

    def __getattr__(self, name):
        return self[name]


Pair = namedtuple("Pair", ["logits", "aux"])
Boxes = namedtuple("Boxes", ["boxes", "scores"])


class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.fc, self.shape = nn.Linear(6, 3), shape

    def forward(self, x):
        return self.shape(self.fc(x))


TOLD = {
    "tensor": lambda z: z,
    "tuple of one": lambda z: (z,),
    "list of one": lambda z: [z],
    "tuple with None": lambda z: (None, z, 3),
    "dict of one": lambda z: {"out": z},
    "dict with logits": lambda z: {"boxes": z * 2, "logits": z},
    "named tuple": lambda z: Pair(z, z * 2),
    "dataclass": lambda z: Data(z, (z * 2, z * 3)),
    "model output": lambda z: ModelOutput(hidden=z * 2, logits=z),
    "nested": lambda z: {"a": {"b": [z]}},
}
OPEN = {
    "tuple": (lambda z: (z * 2, z), "0 [4, 3], 1 [4, 3]", (1,)),
    "dict": (lambda z: {"boxes": z * 2, "scores": z}, "boxes [4, 3], scores [4, 3]", ("scores",)),
    "dataclass": (lambda z: Data(None, (z * 2, z)), "hidden[0] [4, 3], hidden[1]", ("hidden", 1)),
    "named tuple": (lambda z: Boxes(z * 2, z), "boxes [4, 3], scores [4, 3]", ("scores",)),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_logits_are_found(name):
    net = Net(TOLD[name])
    assert torch.equal(logits(net, X), net.fc(X))
    graph = trace(net, X)
    assert len(graph.outputs) == 1
    assert torch.allclose(lower(net, X).evaluate(X.double()), net.fc(X).double(), atol=1e-6)
    assert ig.data_matrix(net, X).table["trace"].min() > 0
    assert not net._forward_hooks


@pytest.mark.parametrize("name", OPEN)
def test_several_tensors_are_refused_with_their_names_and_the_wrapper(name):
    shape, names, path = OPEN[name]
    net = Net(shape)
    for call in (
        lambda: logits(net, X),
        lambda: lower(net, X),
        lambda: ig.data_matrix(net, X),
        lambda: ig.segments(net, X[0], X[1]),
        lambda: ig.walk(net, X, steps=1),
        lambda: accuracy(net, [(X, torch.zeros(4))]),
        lambda: ig.reset(net, None, [(X, torch.zeros(4))], random=1),
    ):
        with pytest.raises(ModelError) as caught:
            call()
        assert "isogon.nets.Output(model" in str(caught.value)
        assert "none of them is called logits" in str(caught.value)
    with pytest.raises(ModelError) as caught:
        logits(net, X)
    assert names in str(caught.value)
    wrapped = Output(net, *path)
    assert torch.equal(logits(wrapped, X), net.fc(X))
    assert torch.allclose(lower(wrapped, X).evaluate(X.double()), net.fc(X).double(), atol=1e-6)
    with pytest.raises(ModelError, match="has no 'nothing'"):
        Output(net, "nothing")(X)


def test_a_tensor_by_its_place_from_either_end():
    net = Net(lambda z: (z, z * 2, z * 3))
    for place in range(-3, 3):
        assert torch.equal(Output(net, place)(X), net.fc(X) * (place % 3 + 1))
    named = Net(lambda z: {"a": z, "b": z * 2})
    assert torch.equal(Output(named, -1)(X), named.fc(X) * 2)
    for place in (3, -4):
        with pytest.raises(ModelError, match="has no"):
            Output(net, place)(X)


def test_the_line_that_the_message_gives_works():
    net = Net(lambda z: {"a": z, "b": z * 2})
    with pytest.raises(ModelError) as caught:
        logits(net, X)
    line = str(caught.value).split("Say which: model = ")[1].split(" takes")[0]
    import isogon.nets

    made = eval(line, {"isogon": isogon, "model": net})
    assert torch.equal(logits(made, X), net.fc(X))


class Kind(enum.Enum):
    SCORES = 1


class Word(enum.StrEnum):
    SCORES = "the scores"


# Of every one the first tensor is the scores.
NESTED = {
    "dict in dict": lambda z: {"out": {"scores": z}, "h": z * 2},
    "list in dict": lambda z: {"scores": [z, z * 2]},
    "tuple in tuple": lambda z: ((z, z * 2), z * 3),
    "named tuple in tuple": lambda z: (Boxes(z, z * 2), z * 3),
    "dataclass in list": lambda z: [Data(None, (z, z * 2))],
    "list in list in dict": lambda z: {"a": [[None, z]], "b": z * 2},
    "blank": lambda z: {"main out": z, "h": z * 2},
    "two blanks": lambda z: {" main  out   ": z, " main out ": z * 2},
    "apostrophe": lambda z: {"it's": z, "h": z * 2},
    "quotes": lambda z: {'"q"': z, "'q'": z * 2},
    "both quotes": lambda z: {"\"'$x\\`": z, "h": z * 2},
    "line break": lambda z: {"a\nb\t": z, "h": z * 2},
    "nothing": lambda z: {"": z, "h": z * 2},
    "word of a spec": lambda z: {"True": z, "none": z * 2},
    "file": lambda z: {"a/b.onnx": z, "a.pt": z * 2},
    "spec": lambda z: {"f(1)[2]@x": z, "h": z * 2},
    "dots": lambda z: {"a.b": {"c.d": z}, "h": z * 2},
    "not ascii": lambda z: {"größe": z, "h": z * 2},
    "digits": lambda z: {"495": z, "7": z * 2},
    "integers": lambda z: {5: z, 3: z * 2},
    "integers that are places": lambda z: {1: z, 0: z * 2},
    "negative": lambda z: {-1: z, 0: z * 2},
    "bool": lambda z: {True: z, False: z * 2},
    "tuple": lambda z: {("a", 1): z, "h": z * 2},
    "float": lambda z: {0: None, 0.5: z, 2: z * 2},
    "enumeration": lambda z: {Kind.SCORES: {"x": z}, "h": z * 2},
    "enumeration of texts": lambda z: {Word.SCORES: z, "h": z * 2},
    "None": lambda z: {None: z, "h": z * 2},
}


@pytest.mark.parametrize("name", NESTED)
def test_what_the_message_says_to_write_takes_that_tensor(name):
    import isogon.nets

    net = Net(NESTED[name])
    with pytest.raises(ModelError) as caught:
        logits(net, X)
    said = str(caught.value)
    line = said.split("Say which: model = ")[1].split(" takes the first;")[0]
    made = eval(line, {"isogon": isogon, "model": net})
    assert torch.equal(made(X), net.fc(X))
    (typed,) = shlex.split(said.split("on the command line ")[1].removesuffix("."))
    with context.handing_over({"m": net}):
        spec = typed.replace("MODEL", "given(m)")
        assert torch.equal(ig.load(spec)(X), net.fc(X)), spec
        assert torch.equal(ig.load(str(parse(spec)))(X), net.fc(X)), spec


def test_names_in_the_message_are_written_as_in_python():
    net = Net(lambda z: {"out": {"scores": z, "a b": z}, "list": [z], "main out": z, 3: [z]})
    with pytest.raises(ModelError) as caught:
        logits(net, X)
    names = "out.scores [4, 3], out['a b'] [4, 3], list[0] [4, 3], 'main out' [4, 3], 3[0] [4, 3]"
    assert names in str(caught.value)


def test_activations_need_no_logits():
    net = Net(lambda z: (z.relu(), z))
    x = torch.rand(4, 1, 6, 6)

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(36, 6)
            self.net = net

        def forward(self, x):
            return self.net(self.fc(x.flatten(1)).relu())

    assert len(ig.invariance(Images(), x, "rotations(4)").table)


def test_outputs_that_are_no_logits():
    with pytest.raises(ModelError, match=r"not real-valued: got int64 \[4\]"):
        logits(Net(lambda z: z.argmax(1)), X)
    with pytest.raises(ModelError, match="not a tensor"):
        logits(Net(lambda z: {"a": None}), X)
    with pytest.raises(ModelError, match="sample axis"):
        logits(Net(lambda z: z.sum()), X)


def test_models_of_several_inputs_and_of_star_args():
    class Two(nn.Module):
        def forward(self, x, t):
            return x + t

    class Star(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, *inputs):
            return self.fc(inputs[0]).relu()

    for call in (
        lambda m: logits(m, X),
        lambda m: ig.data_matrix(m, X),
        lambda m: ig.invariance(m, X[:, None, None], "rotations(4)"),
        lambda m: ig.segments(m, X[0], X[1]),
        lambda m: ig.walk(m, X, steps=1),
        lambda m: trace(m, X),
    ):
        with pytest.raises(ModelError, match=r"other inputs than one tensor: got forward\(x, t\)"):
            call(Two())
    net = Star()
    assert torch.equal(trace(net, X).module(X), net(X))
    assert len(ig.segments(net, X[0], X[1]).table) >= 1


def test_an_error_of_the_model_itself_is_not_taken_for_that():
    class Broken(nn.Module):
        def forward(self, x):
            return len(x.dim())

    with pytest.raises(TypeError, match="has no len"):
        logits(Broken(), X)


@pytest.mark.parametrize(
    ("axes", "dim"), [(2, 1), (2, -1), (3, 2), (3, 1), (4, 1), (4, -3), (4, None)]
)
def test_below_a_trailing_softmax_of_maps_and_tokens(axes, dim):
    """Logits and the lowered network agree on what is cut off, whatever the axes."""
    shape = (3, *(2,) * (axes - 2)) if dim != 2 else (2, 3)
    net = Net(lambda z: z)
    net.fc = nn.Linear(6, math.prod(shape))
    net.shape = lambda z: nn.functional.softmax(z.reshape(-1, *shape), dim=dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = net.fc(X).reshape(-1, *shape)
        assert torch.equal(logits(net, X), expected)
        assert ig.verify(net, X).passed
        over_samples = Net(lambda z: torch.softmax(z, 0))
        assert torch.equal(logits(over_samples, X), over_samples(X))


def test_another_softmax_after_the_one_that_is_returned():
    net = Net(lambda z: (z.softmax(1), (2 * z).softmax(1))[0])
    assert torch.equal(logits(net, X), net.fc(X))


ENDS = {
    "flatten": lambda p: p.flatten(1),
    "view": lambda p: p.view(p.shape[0], -1),
    "squeeze": lambda p: p.squeeze(3).squeeze(2),
    "indices": lambda p: p[:, :, 0, 0],
    "mean of one place": lambda p: p.mean((2, 3)),
    "module": nn.Flatten(),
    "its logarithm": lambda p: p.flatten(1).log(),
}


class Convolutional(nn.Module):
    """Classes lie along the channels of a map of one place, as ONNX files and detectors have it."""

    def __init__(self, end, size: int = 1) -> None:
        super().__init__()
        self.net, self.end, self.size = nn.Linear(6, 4 * size * size), end, size

    def forward(self, x):
        z = self.net(x).reshape(-1, 4, self.size, self.size)
        return self.end(z.softmax(1))


@pytest.mark.parametrize("end", ENDS)
def test_a_softmax_whose_result_is_only_reshaped_is_trailing(end):
    torch.manual_seed(0)
    net, x = Convolutional(ENDS[end]).double().eval(), torch.rand(3, 6, dtype=torch.float64)
    assert torch.equal(logits(net, x), net.net(x))
    data = [(x, torch.arange(3))]
    plain = ig.data_matrix(net.net, data).to_frame()["trace"]
    assert ig.data_matrix(net, data).to_frame()["trace"].tolist() == plain.tolist()
    seen = ig.segments(net, x[0], x[1])
    assert np.allclose(seen.outputs[0].ravel(), net.net(x[0]).detach().numpy(), atol=1e-12)


def test_a_mean_of_a_softmax_over_places_is_none():
    """The mean of distributions is no softmax of anything that the network computes."""
    net, x = Convolutional(lambda p: p.mean((2, 3)), 2).eval(), torch.rand(3, 6)
    assert torch.equal(logits(net, x), net(x))
    with pytest.raises(UnsupportedOp, match="couples"):
        ig.segments(net, x[0], x[1])


class MeanOfSoftmaxes(nn.Module):
    """What ensembles return; with `log`, as log-probabilities."""

    def __init__(self, log=False):
        super().__init__()
        torch.manual_seed(0)
        self.members = nn.ModuleList(nn.Linear(5, 3) for _ in range(2))
        self.log = log

    def forward(self, x):
        p = sum(m(x).softmax(1) for m in self.members) / 2
        return p.log() if self.log else p


def test_probabilities_that_no_softmax_gives_are_refused_where_a_softmax_is_taken_of_them():
    x = torch.randn(8, 5)
    labelled = [(x, torch.arange(8) % 3)]
    for call in (
        lambda m: ig.data_matrix(m, labelled),
        lambda m: ig.walk(m, x, steps=2),
        lambda m: ig.rotate(m, "permutations", labelled, labelled, epochs=0, sites="all"),
    ):
        with pytest.raises(ModelError, match="log-probabilities"):
            call(MeanOfSoftmaxes())
    found = ig.data_matrix(MeanOfSoftmaxes(log=True).double(), [(x.double(), labelled[0][1])])
    net = MeanOfSoftmaxes().double()
    for i, row in enumerate(x.double()):
        p, J = (
            net(row[None])[0].detach(),
            torch.autograd.functional.jacobian(lambda r: net(r[None])[0], row),
        )
        trace = float((J.square().sum(1) / p).sum())  # sum over classes of |grad p|^2 / p
        assert found.table["trace"][i] == pytest.approx(trace, rel=1e-9)


def test_an_error_keeps_its_words_in_a_graph():
    """The interpreter of graphs writes the node and a trace into what it lets through."""

    class Raising(nn.Module):
        def forward(self, x):
            raise ModelError("a reason", got=1, expected=2, fix="Do this.")

    net = nn.Sequential(Raising())

    class Leaf(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, Raising)

    graph = torch.fx.GraphModule(net, Leaf().trace(net))
    with pytest.raises(ModelError) as caught:
        torch.fx.Interpreter(graph).run(torch.zeros(1))
    assert str(caught.value) == "a reason: got 1, expected 2. Do this."
