"""One traced graph per model: same function, any batch, the model untouched."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isogon.errors import ModelError
from isogon.nets.trace import fingerprint, place, shape, trace
from isogon.nets.unwrap import unwrap


class Functional(nn.Module):
    """Functional, in-place, shared and reused activations in one network."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, 3)
        self.block = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Dropout())
        self.again = self.relu

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = F.relu(self.again(x - 0.1) - 0.1)
        x = F.relu(self.fc(x.view(x.size(0), -1)))
        x = self.block(x) + torch.relu(self.block(x))
        return x


class Body(nn.Module):
    """A forward given as a function, with a linear layer before it."""

    def __init__(self, function, width=6):
        super().__init__()
        self.fc = nn.Linear(6, width)
        self.function = function

    def forward(self, x):
        return self.function(self.fc(x))


def snapshot(model):
    """Everything of a model that a call must leave as it was, by identity and value."""
    return [
        (
            path,
            m.training,
            {k: v if not isinstance(v, dict) else (id(v), dict(v)) for k, v in vars(m).items()},
            {
                k: (v.clone(), v._version, v.requires_grad)
                for k, v in m._parameters.items()
                if v is not None
            },
            {k: (v.clone(), v._version) for k, v in m._buffers.items() if v is not None},
        )
        for path, m in model.named_modules()
    ]


def assert_same(before, after):
    for (p, mode, plain, weights, buffers), (q, mode2, plain2, weights2, buffers2) in zip(
        before, after, strict=True
    ):
        assert (p, mode) == (q, mode2)
        assert plain.keys() == plain2.keys()
        for key, value in plain.items():
            if isinstance(value, tuple) and isinstance(value[-1], dict):
                assert value[0] == plain2[key][0], key
                assert value[1].keys() == plain2[key][1].keys()
                assert all(v is plain2[key][1][k] for k, v in value[1].items())
            else:
                assert value is plain2[key] or value == plain2[key], key
        for one, two in ((weights, weights2), (buffers, buffers2)):
            assert one.keys() == two.keys()
            for key in one:
                assert torch.equal(one[key][0], two[key][0])
                assert one[key][1:] == two[key][1:]


def vision(name, **options):
    import torchvision

    return getattr(torchvision.models, name)(num_classes=5, **options)


ZOO = {
    "sequential": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (6,)),
    "functional": (Functional, (1, 8, 8)),
    "integer lookup": (
        lambda: nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3)),
        (3,),
    ),
    "table": (lambda: Body(lambda x: x @ torch.arange(12.0).view(6, 2)), (6,)),
    "written into": (lambda: Body(lambda x: _write(x)), (6,)),
    "view, then in place": (lambda: Body(_view_in_place), (6,)),
    "view read after": (lambda: Body(lambda x: _read_after(x)), (6,)),
    "augmented": (lambda: Body(lambda x: _augmented(x)), (6,)),
    "no_grad inside": (lambda: Body(lambda x: _no_grad(x)), (6,)),
    "old weight norm": (lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 3))), (6,)),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), nn.ReLU()),
        (6,),
    ),
    "same size as the batch": (lambda: Body(lambda x: x + torch.ones(2, 1)[:1] * x, 2), (6,)),
    "double": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU()).double(), (6,)),
    "resnet18": (lambda: vision("resnet18"), (3, 32, 32)),
    "squeezenet": (lambda: vision("squeezenet1_1"), (3, 32, 32)),
}  # fmt: skip
HEAVY = {
    "shufflenet": (lambda: vision("shufflenet_v2_x1_0"), (3, 32, 32)),
    "mobilenet": (lambda: vision("mobilenet_v2"), (3, 32, 32)),
    "mobilenet_v3": (lambda: vision("mobilenet_v3_large"), (3, 32, 32)),
    "vgg11_bn": (lambda: vision("vgg11_bn"), (3, 32, 32)),
    "densenet": (lambda: vision("densenet121"), (3, 32, 32)),
    "googlenet": (lambda: vision("googlenet", init_weights=False, aux_logits=False), (3, 32, 32)),
    "vit": (lambda: vision("vit_b_16", image_size=32), (3, 32, 32)),
}


def _view_in_place(x):
    return x.view(x.size(0), 2, 3).relu_().flatten(1)


def _write(x):
    x[:, 0] = 0.0
    return x * 2


def _read_after(x):
    head = x[:, :2]
    x.relu_()
    return head + x[:, 2:4]


def _augmented(x):
    x += 1
    y = x
    x = x * 2
    y -= 3
    return x + y


def _no_grad(x):
    with torch.no_grad():
        shift = x.mean(1, keepdim=True)
    return x - shift


def example(size, dtype=torch.float32, n=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.int64:
        return torch.randint(10, (n, *size), generator=generator)
    return torch.rand(n, *size, generator=generator, dtype=dtype)


def check(build, size):
    torch.manual_seed(0)
    model = build()
    if any(isinstance(m, nn.Embedding) for m in model.modules()):
        dtype = torch.int64
    else:
        dtype = next(model.parameters()).dtype
    before = snapshot(model)
    graph = trace(model, example(size, dtype))
    assert_same(before, snapshot(model))
    assert trace(model, example(size, dtype, 3)) is graph
    model.eval()
    for n in (1, 2, 5):
        x = example(size, dtype, n, seed=n)
        given = x.clone()
        with torch.no_grad():
            assert torch.equal(graph.module(x), model(given.clone()))
        assert torch.equal(x, given)
    for node in graph.nodes:
        assert not (node.target._schema.is_mutable if hasattr(node.target, "_schema") else False)
        assert place(node).name
        assert isinstance(shape(node), tuple)
    for name, tensor in graph.module.named_parameters():
        assert tensor is model.get_parameter(name)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", ZOO)
def test_same_function_model_untouched(name):
    check(*ZOO[name])


@pytest.mark.long
@pytest.mark.parametrize("name", HEAVY)
def test_same_function_heavy(name):
    check(*HEAVY[name])


def test_names():
    graph = trace(Functional(), example((1, 8, 8)))
    relus = [place(n) for n in graph.nodes if "relu" in str(n.target)]
    assert [p.name for p in relus] == [
        "relu", "relu:1", ":relu#0", ":relu#1", "block.1", "block.1:1", ":relu#2",
    ]  # fmt: skip
    assert relus[1].path == "relu"
    assert relus[1].call == 1
    assert relus[1].op == "ReLU"
    assert relus[2].op == "relu"
    assert relus[2].functional
    convs = [n for n in graph.nodes if "conv2d" in str(n.target)]
    assert place(convs[0]).name == "conv"
    assert shape(convs[0]) == (None, 4, 6, 6)


def test_names_of_a_block_that_is_called_twice():
    block = Body(lambda x: F.relu(F.relu(x) - 1))
    graph = trace(nn.Sequential(block, block), example((6,)))
    assert [place(n).name for n in graph.nodes if "relu" in str(n.target)] == [
        "0:relu#0", "0:relu#1", "0:relu#0:1", "0:relu#1:1",
    ]  # fmt: skip


REFUSED = {
    "integer batch": (lambda x: x.view(int(x.shape[0]), -1), "number of samples"),
    "loop over the batch": (lambda x: torch.stack([row * 2 for row in x]), "number of samples"),
    "range over the batch": (
        lambda x: torch.stack([x[i] * 2 for i in range(x.shape[0])]),
        "number of samples",
    ),
    "branch on values": (lambda x: x if x.sum() > 0 else -x, "branches on the values"),
    "item": (lambda x: x * float(x.max().item() > 0.5), "branches on the values"),
    "failure": (lambda x: x @ torch.zeros(7, 7), "can't be traced"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_failing_patterns_are_refused_with_the_fix(name):
    function, says = REFUSED[name]
    model = Body(function)
    model.fc.register_forward_hook(lambda *a: None)
    before = snapshot(model)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ModelError, match=says) as caught:
            trace(model, example((6,)))
        assert caught.value.fix
        assert "\n" not in str(caught.value)
    assert_same(before, snapshot(model))


def test_no_example():
    for wrong in (torch.zeros(0, 3), torch.tensor(1.0), "x"):
        with pytest.raises(ModelError, match="example"):
            trace(nn.Linear(3, 2), wrong)


def test_hooks_neither_run_nor_shape_the_graph():
    model, seen = nn.Sequential(nn.Linear(6, 3), nn.ReLU()), []
    model[0].register_forward_hook(lambda m, i, o: seen.append(o) or o * 100)
    model.register_forward_pre_hook(lambda m, i: seen.append(i))
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *a: seen.append(a))
    try:
        graph = trace(model, example((6,)))
        assert not seen
        model(example((6,)))
        assert len(seen) == 5
    finally:
        handle.remove()
    assert len(graph.nodes) == 2


def test_wrappers():
    inner = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    for wrapped in (
        nn.DataParallel(inner),
        torch.compile(inner),
        torch.compile(nn.DataParallel(inner)),
    ):
        assert unwrap(wrapped) is inner
        assert trace(wrapped, example((6,))) is trace(inner, example((6,)))


def test_cache_follows_the_model():
    model = nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2)).eval()
    x = example((6,), n=3)
    first = trace(model, x)
    # values in place: the same graph, the new values
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert trace(model, x) is first
    assert torch.equal(first.module(x), model(x))

    def retraced():
        graph = trace(model, x)
        with torch.no_grad():
            assert torch.equal(graph.module(x), model(x))
        return graph

    model[2].weight = nn.Parameter(torch.randn(2, 4))
    second = retraced()
    assert second is not first
    model[1].negative_slope = 0.5
    third = retraced()
    assert third is not second
    model[1] = nn.Tanh()
    assert retraced() is not third
    model.append(nn.Linear(2, 2))
    retraced()
    assert trace(model, example((6,), n=7)) is trace(model, x)
    x = x.double()
    model.double()
    retraced()


def test_cache_is_weak():
    model = nn.Sequential(nn.Linear(6, 4))
    trace(model, example((6,)))
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None


def test_gradients_flow_to_the_models_weights():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    twin = copy.deepcopy(model)
    x = example((6,), n=3)
    trace(model, x).module(x).sum().backward()
    twin(x).sum().backward()
    for p, q in zip(model.parameters(), twin.parameters()):
        assert torch.equal(p.grad, q.grad)


def test_a_tensor_that_is_a_plain_attribute_is_traced_anew_when_it_is_changed_in_place():
    """It is a constant of the graph: the same tensor with other numbers is another graph."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = torch.zeros(3)

        def forward(self, x):
            return torch.relu(x + self.shift)

    model, x = Shifted(), torch.ones(2, 3)
    first = trace(model, x)
    assert trace(model, x) is first
    before = fingerprint(model)
    assert before == fingerprint(model)
    model.shift.add_(1)
    assert before != fingerprint(model)
    assert trace(model, x) is not first
