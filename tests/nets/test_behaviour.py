"""Models that are no function of one sample, or have no gradient, are refused; others pass."""

from __future__ import annotations

import random
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import isogon as ig
from isogon import context
from isogon.data.finite import check_inputs
from isogon.errors import DataError, ModelError
from isogon.nets.accuracy import accuracy
from isogon.nets.behaviour import companions, examine
from isogon.nets.finite import check_finite, first_site
from isogon.nets.passes import LOGITS, one_pass

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()


class Of(nn.Module):
    def __init__(self, how, net=None):
        super().__init__()
        self.net, self.how, self.calls = net or cnn(), how, 0
        self.register_buffer("count", torch.zeros(()))
        self.eval()

    def forward(self, x):
        return self.how(self, x)


def counting(m, x):
    m.count += 1
    return m.net(x) + 0.1 * m.count


def in_python(m, x):
    m.calls += 1
    return m.net(x) * (1 + m.calls)


def clamping(m, x):
    m.net[0].weight.data.clamp_(-0.01, 0.01)
    return m.net(x)


def replacing(m, x):
    m.net[0].weight.data = m.net[0].weight.data * 0.9
    return m.net(x)


def sorted_batch(m, x):
    return m.net(x[x.flatten(1).sum(1).argsort()])


REFUSED = {
    "mean of the batch": (lambda m, x: m.net(x - x.mean(0)), "depends on the other samples"),
    "a little of it": (lambda m, x: m.net(x - 0.02 * x.mean(0)), "depends on the other"),
    "largest of the batch": (lambda m, x: m.net(x / x.amax()), "depends on the other samples"),
    "place in the batch": (
        lambda m, x: m.net(x) + torch.arange(len(x))[:, None], "depends on the other"
    ),
    "sorted": (sorted_batch, "depends on the other samples"),
    "dropout": (lambda m, x: F.dropout(m.net(x), 0.1, True), "random in evaluation mode"),
    "noise": (lambda m, x: m.net(x + 0.1 * torch.randn_like(x)), "random in evaluation mode"),
    "NumPy's noise": (
        lambda m, x: m.net(x) + torch.from_numpy(np.random.rand(3)), "random in evaluation"
    ),
    "Python's noise": (lambda m, x: m.net(x) * (1 + random.random()), "random in evaluation"),
    "a buffer that counts": (counting, "keeps a state"),
    "a number that counts": (in_python, "keeps a state"),
    "four at a time": (lambda m, x: m.net(x.view(4, 1, 8, 8)), "one number of samples only"),
    "weights clamped": (clamping, "writes to the model's weights: got 'net.0.weight'"),
    "weights replaced": (replacing, "writes to the model's weights|keeps a state"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_a_sample_is_refused(name):
    how, says = REFUSED[name]
    model = Of(how)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    for k in range(2):
        with pytest.raises(ModelError, match=says):
            examine(model, X, gradient=bool(k))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with context.use(check=False):
        examine(model, X, gradient=True)
        if name != "four at a time":
            assert ig.reset(model, None, [(X, torch.zeros(6))], random=1).meta["check"] is False


def test_a_batch_norm_without_statistics_is_named():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    with pytest.raises(ModelError, match="BatchNorm2d '1' has no running statistics"):
        examine(net, X)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_single_input_is_enough_to_see_it(count):
    for name in ("mean of the batch", "dropout", "a buffer that counts"):
        with pytest.raises(ModelError):
            examine(Of(REFUSED[name][0]), X[:count])
    examine(cnn(), X[:count], gradient=True)


def test_a_rare_event_is_called_random_too():
    """One in some calls: the fourth of the same inputs shows it, with this seed."""
    torch.manual_seed(8)
    with pytest.raises(ModelError, match="random in evaluation mode"):
        examine(Of(lambda m, x: m.net(x) + (torch.rand(()) < 0.3)), X)


FINE = {
    "plain": cnn,
    "training mode": lambda: cnn().train(),
    "half": lambda: cnn().half(),
    "bfloat16": lambda: cnn().bfloat16(),
    "float64": lambda: cnn().double(),
    "dropout that is off": lambda: nn.Sequential(cnn(), nn.Dropout(0.5)).eval(),
    "counts to no effect": lambda: Of(lambda m, x: m.count.add_(1) * 0 + m.net(x)),
    "constant": lambda: Of(lambda m, x: m.net(x * 0)),
    "far from zero": lambda: Of(lambda m, x: 1e4 + m.net(x)),
    # as products of other shapes round: by the number of samples, and by no more than that
    "rounding alone": lambda: Of(lambda m, x: 1e4 + 1e-3 * (m.net(x) + 0.2 * len(x))),
    "saturated": lambda: Of(lambda m, x: 30 * m.net(1e3 * x).sigmoid()),
    "no parameters": lambda: nn.Flatten(),
    "dict": lambda: Of(lambda m, x: {"logits": m.net(x), "batch": x.mean()}),
    "masked class": lambda: Of(
        lambda m, x: m.net(x).masked_fill(torch.tensor([1, 0, 0], dtype=torch.bool), -torch.inf)
    ),
    "deep": lambda: nn.Sequential(
        nn.Flatten(), *(k() for _ in range(30) for k in (lambda: nn.Linear(64, 64), nn.GELU))
    ).eval(),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_functions_of_a_sample_pass(name):
    model = FINE[name]()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    mode = model.training
    examine(model, X)
    if name != "dict":
        examine(model, X, gradient=name not in ("constant",))
    assert model.training is mode
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_integer_inputs_and_embeddings_pass():
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    examine(net, torch.randint(0, 9, (6, 5)))
    assert companions(torch.arange(8).reshape(2, 4))[0].tolist() == [[3, 2, 1, 0]]
    with pytest.raises(ModelError, match="depends"):
        examine(Of(lambda m, x: m.net(x - x.min()), net), 3 + torch.randint(0, 6, (6, 5)))


class Rounded(torch.autograd.Function):
    """Rounding whose gradient is said to be 3."""

    @staticmethod
    def forward(_, x):
        return (x * 4096).round() / 4096

    @staticmethod
    def backward(_, g):
        return 3 * g


NO_GRADIENT = {
    "detached": (lambda m, x: m.net(x.detach()), "no gradient in the input"),
    "NumPy": (lambda m, x: torch.from_numpy(m.net(x).detach().numpy()), "no gradient"),
    "rounded": (lambda m, x: m.net((x * 64).round() / 64), "no gradient in the input"),
    "a branch detached": (lambda m, x: m.net(x).detach() + 0.1 * m.net(x), "not that of its"),
    "made up": (lambda m, x: m.net(Rounded.apply(x)), "not that of its outputs"),
    # outputs that stand still, and a gradient that says they move
    "straight through": (lambda m, x: m.net(through(x, x.sign())), "not that of its outputs"),
    "coarse, through": (lambda m, x: m.net(through(x, x.round())), "not that of its outputs"),
    "finer, through": (lambda m, x: m.net(through(x, (x * 16).round() / 16)), "not that of its"),
    "constant, through": (lambda m, x: m.net(through(x, 0 * x)), "not that of its outputs"),
    "binary units": (lambda m, x: m.net[2:](binary(m.net[:2](x))), "not that of its outputs"),
    # a part of the outputs that the gradient leaves out
    **{
        f"{part} detached": (
            lambda m, x, part=part: m.net(x) + part * m.net(x).detach(),
            "not that of its outputs",
        )
        for part in (0.1, 0.25, 0.5, 0.9, 1.1)
    },
}


def through(x, value):
    """A value with the gradient of x."""
    return x + (value - x).detach()


def binary(h):
    return through(h.clamp(-1, 1), h.sign())


def test_a_network_with_its_precision_written_into_it_is_compared_in_that():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 3))

        def forward(self, x):
            inner = self.net[:3](x).float()  # in double precision the last layer would refuse it
            return F.linear(inner, self.net[3].weight.float())

    examine(Single(), X, gradient=True)

    class Inside(Single):
        """Of outputs that are large for their slope: in single precision they move in steps."""

        def forward(self, x):
            return 1e-4 * self.net(x).float().double() + 16 * torch.ones(3).double()

    examine(Inside().double(), X.double(), gradient=True)

    class Within(Single):
        def forward(self, x):
            return (1e-3 * self.net[:2](x) + 16).float().to(x) @ self.net[3].weight.T

    examine(Within(), X, gradient=True)
    examine(Within().double(), X.double(), gradient=True)


def test_steps_of_rounding_are_no_made_up_gradient():
    """Values of 1e9 that cancel: outputs move in steps of 1e-7, which a derivative may be below."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        net[1].weight *= 1e-3
    lifted = Of(lambda m, x: (m.net(x) + 1e9) - 1e9, net)
    examine(lifted, X.double(), gradient=True)


def test_a_gradient_that_autograd_refuses_is_one_line():
    layer = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.net, self.reentrant = layer, reentrant

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=self.reentrant)

    with pytest.raises(ModelError, match=r"can't be computed.*use_reentrant=False"):
        ig.data_matrix(Checkpointed(True), X)
    found = ig.data_matrix(Checkpointed(False), X).table["trace"]
    assert np.allclose(found, ig.data_matrix(layer, X).table["trace"])


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_models_without_a_gradient_are_refused_where_one_is_taken(name):
    how, says = NO_GRADIENT[name]
    model = Of(how)
    examine(model, X)
    for call in (
        lambda: examine(model, X, gradient=True),
        lambda: ig.data_matrix(model, X),
        lambda: ig.integrability(model, X),
        lambda: ig.walk(model, X[:2], steps=1),
        lambda: ig.leaf_distance(model, X[:2], steps=1),
    ):
        with pytest.raises(ModelError, match=says):
            call()
    assert len(ig.invariance(model, X, "mirrors()").table)


def quantised():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})


def test_a_quantised_model_is_called_one():
    net = quantised()
    with pytest.raises(ModelError, match="a quantised model has no gradient"):
        ig.data_matrix(net, X)
    with pytest.raises(ModelError, match="float model that it was made from"):
        ig.orientation(net)
    with pytest.raises(ModelError, match="quantised"):
        ig.segments(net, X[0], X[1])


def test_models_that_are_not_there_yet():
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    meta = nn.Linear(3, 3, device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    for model, says in (
        (lazy, r"lazy layers have no weights yet: got '1.weight'.* Run it on one batch"),
        (meta, "meta device"),
        (scripted, "TorchScript module can't be looked into"),
        (lambda x: x, "not a model: got a function"),
        ({"weights": 1}, "not a model: got a dict"),
    ):
        for call in (
            check_finite,
            lambda m: ig.data_matrix(m, X),
            lambda m: ig.reset(m, None, [(X, torch.zeros(6))], random=1),
            lambda m: ig.invariance(m, X, "mirrors()"),
            lambda m: ig.walk(m, X, steps=1),
            lambda m: ig.orientation(m),
            lambda m: ig.leaf_distance(m, X, steps=1),
            lambda m: ig.segments(m, X[0], X[1]),
        ):
            with pytest.raises(ModelError, match=says):
                call(model)


def test_weights_of_inference_mode():
    with torch.inference_mode():
        net = cnn()
    assert len(ig.invariance(net, X, "mirrors()").table)
    assert len(ig.reset(net, None, [(X, torch.zeros(6))], random=1).table)
    for call in (lambda: ig.data_matrix(net, X), lambda: ig.walk(net, X, steps=1),
                 lambda: ig.segments(net, X[0], X[1])):  # fmt: skip
        with pytest.raises(ModelError, match=r"inference mode.* outside torch.inference_mode"):
            call()
    with torch.inference_mode():
        x = torch.rand(4, 1, 8, 8)
    assert len(ig.data_matrix(cnn(), x).table) == 4


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_taken_off(wrap):
    net = cnn()
    y = net(X).argmax(1)
    other = cnn()
    other[0].reset_parameters()
    assert ig.reset(wrap(net), [other], [(X, y)]).equals(ig.reset(net, [other], [(X, y)]))
    assert ig.orientation(wrap(net)).equals(ig.orientation(net))
    assert ig.data_matrix(wrap(net), X).equals(ig.data_matrix(net, X))


def test_nan_inputs_are_counted_and_numbered():
    x = X.clone()
    x[2, 0, 1, 1], x[4, 0, 0, :3] = torch.nan, torch.inf
    for given in ((x, torch.zeros(6)), [(x[:3], torch.zeros(3)), (x[3:], torch.zeros(3))], x):
        with pytest.raises(DataError, match=r"number 2") as caught:
            for _ in ig.batches(given):
                pass
        if not isinstance(given, list):
            assert "4 of them, in 2 of 6 samples (number 2, 4)" in str(caught.value)
    with pytest.raises(DataError, match="NaN and infinite"):
        check_inputs(x)
    with pytest.raises(DataError, match="the starts hold NaN and infinite"):
        ig.walk(cnn(), x, steps=1)
    with pytest.raises(DataError, match="the targets hold"):
        ig.walk(cnn(), X, toward=x, steps=1)
    with pytest.raises(DataError, match="the starts hold"):
        ig.leaf_distance(cnn(), x, steps=1)


def test_the_site_at_which_numbers_end_is_named():
    class Root(nn.Module):
        def forward(self, x):
            return (x - 0.5).sqrt()

    net = cnn()
    net.insert(3, Root())
    for call in (
        lambda: ig.data_matrix(net, X),
        lambda: ig.reset(net, None, [(X, torch.zeros(6))], random=1),
        lambda: ig.walk(net, X, steps=1),
        lambda: ig.integrability(net, X),
    ):
        with pytest.raises(DataError, match="first site where it happens is Root '3'"):
            call()
    assert first_site(cnn(), X) is None
    root = nn.Sequential(nn.Flatten(), Root(), nn.ReLU(), nn.Linear(64, 3))
    with pytest.raises(DataError, match="NaN at 2"):
        ig.invariance(root, X, "mirrors()")


def test_more_classes_than_memory_holds_are_refused_with_the_bytes():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return (self.w * x.flatten(1)[:, :1]).expand(-1, 100_000)

    x = torch.rand(2, 1, 28, 28)
    for call in (lambda: ig.data_matrix(Many(), x), lambda: ig.integrability(Many(), x),
                 lambda: ig.walk(Many(), x, steps=1)):  # fmt: skip
        with pytest.raises(ModelError, match=r"don't fit into memory: got [\d,]+ bytes"):
            call()


def test_attention_has_second_derivatives():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(64, 3)

        def forward(self, x):
            x = F.scaled_dot_product_attention(x, x * 2, x)
            return self.out(x.flatten(1))

    torch.manual_seed(0)
    net = Attention().eval()
    x = torch.rand(2, 1, 8, 8)
    found = ig.integrability(net, x).table
    net = net.double()

    def literal(t):
        weights = torch.softmax(t @ (2 * t).transpose(2, 3) / 8**0.5, 3)
        return net.out((weights @ t).flatten(1))

    g = torch.autograd.functional.jacobian(literal, x[:1].double())[0].reshape(3, 64)
    hessians = [
        torch.autograd.functional.hessian(lambda t, c=c: literal(t)[0, c], x[:1].double())
        for c in range(3)
    ]
    h = torch.stack(hessians).reshape(3, 64, 64)
    f, k = g[1:] - g[:1], h[1:] - h[:1]
    bracket = k[1] @ f[0] - k[0] @ f[1]
    q = torch.linalg.qr(f.T).Q
    residual = (bracket - q @ (q.T @ bracket)).norm() / bracket.norm()
    assert found["residual"][0] == pytest.approx(float(residual), rel=1e-3)


def test_inputs_on_a_kink_are_no_fault_of_the_model():
    """Black images: without biases every pre-activation is 0, where ReLU has no derivative."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(9, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)
    ).eval()
    examine(net, torch.zeros(4, 1, 3, 3), gradient=True)
    cut = nn.Sequential(net, Cut()).eval()
    with pytest.raises(ModelError, match="gradient"):
        examine(cut, torch.zeros(4, 1, 3, 3), gradient=True)


class Cut(nn.Module):
    """Outputs that change with the inputs, without a derivative."""

    def forward(self, x):
        return x.detach() * 1.0 + 0 * x


class Broken(nn.Module):
    """A model that runs on no input: its batch-norm was made for another width."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(5), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_a_model_that_stumbles_over_its_inputs_is_refused_in_one_line():
    net, y = Broken().eval(), torch.arange(6) % 3
    for measured in (
        lambda: ig.data_matrix(net, [(X, y)]),
        lambda: ig.integrability(net, [(X, y)]),
        lambda: ig.invariance(net, [(X, y)], "mirrors()"),
        lambda: ig.equivariance(net, [(X, y)], "mirrors()"),
        lambda: ig.similarity(net, net, [(X, y)]),
        lambda: ig.reset(net, None, [(X, y)], random=1),
        lambda: accuracy(net, [(X, y)]),
        lambda: ig.walk(net, X[:1], direction=X[1:2], steps=1),
        lambda: ig.segments(net, X[0], X[1]),
    ):
        with pytest.raises((ModelError, DataError), match=r"does not take these.*5") as caught:
            measured()
        assert "\n" not in str(caught.value)


def test_an_error_of_a_watcher_is_not_the_models():
    def fails(_):
        raise RuntimeError("of the watcher")

    class Watching:
        sites = (LOGITS,)
        update = staticmethod(lambda *_: fails(_))

    with pytest.raises(RuntimeError, match="of the watcher"):
        one_pass(cnn(), [(X, torch.zeros(6))], [Watching()])


def test_a_model_is_examined_again_once_it_has_changed():
    calls = []

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.noise = nn.Linear(3, 2), 0.0

        def forward(self, x):
            calls.append(1)
            z = self.fc(x)
            return z + self.noise * torch.randn_like(z)

    net, x = Counts(), torch.rand(4, 3)
    examine(net, x)
    assert calls
    calls.clear()
    examine(net, x)
    assert not calls
    examine(net, x, gradient=True)
    assert calls
    net.noise = 1.0
    with pytest.raises(ModelError, match="random"):
        examine(net, x)
    net.noise = 0.0
    handle = net.register_forward_hook(lambda m, i, z: z + torch.randn_like(z))
    with pytest.raises(ModelError, match="random"):
        examine(net, x)
    handle.remove()
    examine(net, x)


@pytest.mark.parametrize("kind", ["dict", "list", "object"])
def test_a_setting_within_an_attribute_is_a_change(kind):
    setting = {"dict": {0: 0.0}, "list": [0.0], "object": types.SimpleNamespace(noise=0.0)}[kind]

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.setting = nn.Linear(3, 2), setting

        def forward(self, x):
            z = self.fc(x)
            noise = setting.noise if kind == "object" else setting[0]
            return z + noise * torch.randn_like(z)

    net, x = Noisy(), torch.rand(4, 3)
    examine(net, x)
    if kind == "object":
        setting.noise = 1.0
    else:
        setting[0] = 1.0
    with pytest.raises(ModelError, match="random"):
        examine(net, x)
