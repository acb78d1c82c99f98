"""Lowering whole networks: names, refusals with the way out, extension, real architectures."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isogon import registry
from isogon.cpwl.certificate import CertificateError
from isogon.cpwl.lower import lower
from isogon.cpwl.stages import Affine, Kink, Max
from isogon.cpwl.verify import verify
from isogon.errors import ModelError, UnsupportedOp


class Call(nn.Module):
    def __init__(self, function, width=4):
        super().__init__()
        self.fc = nn.Linear(4, width)
        self.function = function

    def forward(self, x):
        return self.function(self.fc(x))


def x(*shape, n=3, dtype=torch.float32):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(5), dtype=dtype)


# --------------------------------------------------------------------------- refusals

SMOOTH = {
    "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "softplus": F.softplus, "elu": F.elu, "selu": F.selu, "celu": F.celu, "hardswish": F.hardswish,
    "sin": torch.sin, "exp": torch.exp, "pow": lambda z: z**2, "log_sigmoid": F.logsigmoid,
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_are_refused_with_the_fix(name):
    with pytest.raises(UnsupportedOp, match=rf"^{name} at ':{name}#0' is smooth") as caught:
        lower(Call(SMOOTH[name]), x(4))
    assert "ig.piecewise" in caught.value.fix
    assert "\n" not in str(caught.value)


REFUSED = {
    "layer norm": (lambda z: F.layer_norm(z, (4,)), "layer_norm.*not a scalar activation"),
    "group norm": (lambda z: F.group_norm(z, 2), "group_norm.*spread of its own input"),
    "attention": (
        lambda z: F.scaled_dot_product_attention(z[:, None], z[:, None], z[:, None]),
        "scaled_dot_product_attention.*multiplies its input with itself",
    ),
    "softmax inside": (lambda z: z.softmax(1) @ torch.ones(4, 2), "softmax.*couples"),
    "gate": (lambda z: z * F.relu(z), "mul.*multiplies two branches"),
    "product": (lambda z: z[:, None] @ z[:, :, None], "matmul.*multiplies two branches"),
    "quotient": (lambda z: z / (1 + z.abs()), "div.*divides by a branch"),
    "sign": (torch.sign, "sign.*not continuous"),
    "round": (torch.round, "round.*not continuous"),
    "jumping threshold": (lambda z: F.threshold(z, 1.0, 0.0), "jumps from 0 to 1.*value == thr"),
    "jumping where": (lambda z: torch.where(z > 0, z, z + 1), "jumps by 1 "),
    "jumping mask": (lambda z: z * (z > 1), "jumps by 1 "),
    "where on another branch": (
        lambda z: torch.where(z > 0, z, F.relu(z)),
        "chooses between branches",
    ),
    "comparison of branches": (lambda z: torch.where(z > -z, z, -z), "compares two branches"),
    "comparison as a number": (lambda z: z + (z > 0), "comparison as a number"),
    "comparison as the output": (lambda z: z > 0, "is the output, and jumps"),
    "positions of maxima": (lambda z: z.max(1, keepdim=True)[1] + z, "positions of maxima"),
    "integer cast": (lambda z: z.to(torch.int64) + z, "rounds to integers"),
    "mean over the batch": (lambda z: z - z.mean(0), "axis of the samples"),
    "maximum over the batch": (lambda z: z - z.max(), "mixes the samples"),
    "sum over the batch": (lambda z: z - z.sum(), "mixes the samples"),
    "transposed batch": (lambda z: z.T.relu().T, "axis of the samples"),
    "swapped batch": (lambda z: z.transpose(0, 1).relu().mT, "axis of the samples"),
    "what a mask keeps": (
        lambda z: z[:, torch.tensor([True, False, True, False])].sum(1, keepdim=True),
        "size that depends on values.*nonzero",
    ),
    "merged batch": (lambda z: z.view(-1, 1).relu(), "axis of the samples"),
    "batch statistics": (
        lambda z: F.batch_norm(z, None, None, training=True),
        "statistics of the batch",
    ),
    "training dropout": (lambda z: F.dropout(z, 0.5, True), "random in training mode"),
    "random": (lambda z: z + torch.rand(4), "is random"),
    "unknown": (lambda z: torch.logcumsumexp(z, 1), 'no rule lowers logcumsumexp.*@isogon'),
    "constant": (lambda z: torch.zeros(z.shape[0], 2), "does not depend on its input"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    function, says = REFUSED[name]
    with pytest.raises((UnsupportedOp, ModelError), match=says) as caught:
        lower(Call(function), x(4))
    assert "\n" not in str(caught.value)


def test_refusal_names_op_and_module():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU(), nn.Linear(4, 4), nn.SiLU()))
    with pytest.raises(UnsupportedOp, match=r"gelu at '1.0' \(and 1 more smooth sites\)"):
        lower(model, x(4))
    model = nn.Sequential(nn.GELU(), nn.LayerNorm(4))
    with pytest.raises(UnsupportedOp, match="layer_norm at '1' divides"):
        lower(model, x(4))


def test_nan_weights_are_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"0\.weight holds NaN"):
        lower(model, x(4))


# --------------------------------------------------------------------------- structure


def test_stages_and_sites():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 5), nn.PReLU(), nn.Linear(5, 3), nn.Softmax(1),
    )  # fmt: skip
    program = lower(model, x(1, 8, 8))
    assert program.sites == ["2", "3", "6"]
    assert [type(s) for s in program.cuts] == [Kink, Max, Kink]
    assert [s.op for s in program.stages if isinstance(s, Affine)] == [
        "batch_norm", "flatten", "linear", "linear",
    ]  # fmt: skip
    assert program.shape == (1, 8, 8)
    assert program.shapes[program.output] == (3,)


def test_reused_and_functional_sites_have_their_names():
    relu = nn.ReLU()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Linear(4, 4), nn.Linear(4, 4), relu

        def forward(self, x):
            return F.relu(self.b(self.act(self.a(self.act(x)))))

    assert lower(Net(), x(4)).sites == ["act", "act:1", ":relu#0"]


def test_unused_branches_are_dropped():
    def function(z):
        a, b = z.chunk(2, 1)
        F.relu(b)
        return F.relu(a)

    assert len(lower(Call(function), x(4)).stages) == 3


@pytest.mark.parametrize(
    "end", [nn.Softmax(1), nn.LogSoftmax(-1), nn.Sequential(nn.Softmax(1), nn.Dropout())]
)
def test_trailing_softmax_is_cut_off(end):
    body = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    points = x(4, dtype=torch.float64)
    program = lower(nn.Sequential(body, end), points)
    assert torch.equal(program.evaluate(points), copy.deepcopy(body).double()(points))


def test_float32_models_are_computed_in_float64_and_left_alone():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    program = lower(model, x(4))
    points = x(4, dtype=torch.float64)
    torch.testing.assert_close(
        program.evaluate(points), copy.deepcopy(model).double()(points), rtol=1e-14, atol=1e-14
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_lower_reads_the_weights_of_now():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    points = x(4, dtype=torch.float64)
    lower(model, points)
    with torch.no_grad():
        model[0].weight.mul_(2)
    torch.testing.assert_close(lower(model, points).evaluate(points), model(points))


# --------------------------------------------------------------------------- extension


def test_custom_op_from_outside():
    library = torch.library.Library("isogon_test", "DEF")
    library.define("triangle(Tensor x) -> Tensor")

    def triangle(x):
        return 1 - (x.clamp(-1, 1)).abs()

    library.impl("triangle", triangle, "CompositeExplicitAutograd")
    library.impl("triangle", torch.empty_like, "Meta")
    model, points = Call(lambda z: torch.ops.isogon_test.triangle(z)), x(4)
    with pytest.raises(UnsupportedOp, match=r'lowers\("isogon_test.triangle.default"\)'):
        lower(model, points)
    name = "isogon_test.triangle.default"
    try:

        @registry.lowers(name)
        def rule(lower, z):
            return lower.kink(z, [-1.0, 0.0, 1.0], [0.0, 1.0, -1.0, 0.0], 0.0)

        assert verify(model, points).passed
    finally:
        registry._entries["lowers"].pop(name, None)


# --------------------------------------------------------------------------- verify


def test_verify_fails_for_another_models_program():
    torch.manual_seed(0)
    one, two = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
    points = x(4)
    assert verify(one, points)
    certificate = verify(one, points, program=lower(two, points))
    assert not certificate
    with pytest.raises(CertificateError, match="relative error"):
        certificate.require()
    assert "FAILED" in str(certificate)
    assert list(certificate.to_frame()["passed"]) == [False, True]


def test_verify_notices_a_hook_that_changes_the_output():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model[0].register_forward_hook(lambda module, given, output: output + 1)
    assert not verify(model, x(4)).passed


def test_verify_with_single_precision_inside():
    model = Call(lambda z: F.relu(z.float() @ torch.ones(4, 2)))
    certificate = verify(model, x(4))
    assert certificate.passed
    assert "own casts" in certificate.facts["precision"]


# --------------------------------------------------------------------------- networks

# the random graphs: every block keeps [N, 4, 6, 6]
BLOCKS = {
    "conv": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)),
    "bn": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2)),
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
    "skip": lambda: Skip(nn.Conv2d(4, 4, 3, padding=1)),
    "concat": lambda: Concat(),
    "max": lambda: Larger(nn.Conv2d(4, 4, 1)),
    "twice": lambda: Twice(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardtanh())),
    "abs": lambda: Apply(lambda z: (z - 0.1).abs()),
    "prelu": lambda: nn.PReLU(4),
    "shuffle": lambda: nn.ChannelShuffle(2),
    "average": lambda: nn.AvgPool2d(3, 1, 1),
    "upsample": lambda: nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)),
}


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Skip(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        out = self.body(x)
        out += x
        return F.relu(out)


class Larger(Skip):
    def forward(self, x):
        return torch.maximum(self.body(x), x)


class Twice(Skip):
    def forward(self, x):
        return self.body(self.body(x))


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        left, right = x.chunk(2, 1)
        return torch.cat([F.relu(self.a(right)), self.b(left)], 1)


def network(blocks, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(*(BLOCKS[b]() for b in blocks), nn.Flatten(), nn.Linear(144, 3))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5), st.integers(0, 99))
def test_random_graphs_verify(blocks, seed):
    model = network(blocks, seed)
    certificate = verify(model, x(4, 6, 6, n=2), points=16)
    assert certificate.require()
    assert model.training


def vision(name):
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(num_classes=10, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def check_vision(name):
    certificate = verify(vision(name), torch.rand(2, 3, 64, 64), points=4)
    assert certificate.require()
    assert certificate.facts["precision"] == "float64"


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torchvision(name):
    check_vision(name)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["vgg11_bn", "mobilenet_v2", "googlenet", "densenet121", "shufflenet_v2_x1_0"]
)
def test_torchvision_heavy(name):
    check_vision(name)


@pytest.mark.long
def test_torchvision_refused():
    with pytest.raises(UnsupportedOp, match=r"hardswish at 'features\.0\.2'"):
        lower(vision("mobilenet_v3_large"), torch.rand(1, 3, 32, 32))
    import torchvision

    model = torchvision.models.vit_b_16(num_classes=10, image_size=32)
    with pytest.raises(UnsupportedOp) as caught:
        lower(model, torch.rand(1, 3, 32, 32))
    for part in (
        "layer_norm at 'encoder.layers.encoder_layer_0.ln_1'",
        "attention",
        "ig.piecewise",
    ):
        assert part in str(caught.value)
