from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.cpwl.program import Program, dense, mlp
from isogon.cpwl.stages import Affine, Join, Kink, Max, relu
from isogon.errors import ModelError


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def kink(knots, slopes, value=0.0):
    return Kink(output="y", inputs=("x",), site="k", knots=knots, slopes=slopes, value=value)


def test_mlp_is_the_module(generator):
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.LeakyReLU(0.1), torch.nn.Linear(5, 2)
    ).double()
    program = mlp(
        [model[0].weight.detach(), model[2].weight.detach()],
        [model[0].bias.detach(), model[2].bias.detach()],
        slope=0.1,
    )
    x = torch.randn(17, 3, dtype=torch.float64, generator=generator)
    assert torch.allclose(program.evaluate(x, chunk=4), model(x), atol=1e-14)
    assert torch.allclose(program.preactivations(x)["relu0"], model[0](x), atol=1e-14)


@pytest.mark.parametrize(
    ("knots", "slopes", "value", "function"),
    [
        (tensor(0), tensor(0, 1), 0.0, torch.relu),
        (tensor(0), tensor(-1, 1), 0.0, torch.abs),
        (tensor(0, 6), tensor(0, 1, 0), 0.0, torch.nn.functional.relu6),
        (tensor(-1, 1), tensor(0, 1, 0), -1.0, torch.nn.functional.hardtanh),
        (tensor(-3, 3), tensor(0, 1 / 6, 0), 0.0, torch.nn.functional.hardsigmoid),
    ],
)
def test_kinks(knots, slopes, value, function):
    z = torch.linspace(-8, 8, 333, dtype=torch.float64)[:, None]
    stage = kink(knots, slopes, value)
    assert torch.allclose(stage(z), function(z), atol=1e-14)
    piece = stage.piece(z)
    assert torch.allclose(stage.on_piece(z, piece), function(z), atol=1e-14)
    near = (z[:, :, None] - knots).abs().amin(-1) > 0.03
    difference = (function(z + 0.02) - function(z - 0.02)) / 0.04
    assert torch.allclose(stage.slope(piece)[near], difference[near], atol=1e-10)


def test_slope_per_channel():
    stage = relu("y", "x", "k", slope=tensor(0.1, 0.5)[:, None])
    z = tensor(-1, 2).expand(3, 2, 2)
    assert torch.equal(stage(z), torch.nn.functional.prelu(z, tensor(0.1, 0.5)))
    assert torch.equal(stage.on_piece(z, stage.piece(z)), stage(z))


def test_max_with_padding_and_two_inputs():
    stage = Max(
        output="m", inputs=("a", "b"), site="m", shape=(2,),
        index=torch.tensor([[0, 2, -1], [1, 3, 0]]),
    )  # fmt: skip
    a, b = tensor(-5, 1)[None], tensor(-3, 0)[None]
    assert stage(a, b).tolist() == [[-3, 1]]
    assert stage.choose(torch.tensor([[0, 2]]), a, b).tolist() == [[-5, -5]]


def test_skip_connection_and_liveness():
    add = Join(output="s", inputs=("h", "input"), linear=torch.add)
    half = Affine(output="t", inputs=("s",), linear=lambda x: x / 2, bias=tensor(1, 1))
    program = Program([relu("h", "input", "r"), add, half], (2,))
    assert program.evaluate(tensor(-1, 1)[None]).tolist() == [[0.5, 2]]
    assert program.dead_after(0) == []
    assert set(program.dead_after(1)) == {"input", "h"}
    assert program.sites == ["r"]
    assert program.units(program.cuts[0]) == 2


def test_wrong_order_is_refused():
    with pytest.raises(ModelError, match="topological"):
        Program([dense("z", "h", torch.eye(2), None)], (2,))
    with pytest.raises(ModelError, match="one site name"):
        Program([relu("a", "input", "r"), relu("b", "a", "r")], (2,))


@st.composite
def programs(draw):
    """Random graphs of sums, kinks and maxima of one width, the output anywhere among them."""
    stages, names = [], ["input"]
    for i in range(draw(st.integers(1, 8))):
        a, b = (draw(st.sampled_from(names)) for _ in range(2))
        name, kind = f"t{i}", draw(st.sampled_from(["scale", "join", "relu", "max"]))
        if kind == "scale":
            factor = draw(st.sampled_from([-2.0, 0.5, 3.0]))
            stage = Affine(
                output=name, inputs=(a,), linear=lambda x, f=factor: x * f, bias=tensor(1, -1, 2)
            )
        elif kind == "join":
            stage = Join(output=name, inputs=(a, b), linear=lambda x, y: x - 2 * y)
        elif kind == "relu":
            stage = relu(name, a, f"site{i}", slope=0.25)
        else:
            index = torch.tensor([[0, 3], [1, 4], [2, 5]])
            stage = Max(output=name, inputs=(a, b), site=f"site{i}", index=index, shape=(3,))
        stages.append(stage)
        names.append(name)
    return Program(stages, (3,), output=draw(st.sampled_from(names[1:])))


def everything(program, x):
    """The literal twin: every tensor is made and kept."""
    values = {program.input: x}
    for stage in program.stages:
        values[stage.output] = stage(*(values[name] for name in stage.inputs))
    return values


def read_later(program, position):
    """What is made before a stage and read by it or a later one, or is the output."""
    made = [program.input, *(s.output for s in program.stages[:position])]
    wanted = {name for s in program.stages[position:] for name in s.inputs} | {program.output}
    return {name for name in made if name in wanted}


@settings(deadline=None, max_examples=60)
@given(programs(), st.data())
def test_a_walk_holds_what_is_still_read(program, data):
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, count = everything(program, x), len(program.stages)
    dropped, seen = [], []
    values = {program.input: x}

    def visit(position, stage, arguments):
        assert set(values) == read_later(program, position) == set(program.alive(position))
        assert all(map(torch.equal, arguments, (whole[name] for name in stage.inputs)))
        seen.append(position)
        return stage(*arguments)

    stop = data.draw(st.integers(0, count))
    program.run(values, 0, stop, visit, dropped.append)
    assert set(values) == read_later(program, stop)
    assert program.run(values, stop, None, visit, dropped.append) is values
    assert seen == list(range(count))
    assert set(values) == {program.output} == set(program.alive(count))
    assert torch.equal(values[program.output], whole[program.output])
    others = {name for name in whole if name != program.output}
    assert sorted(dropped) == sorted(others)  # each once


@settings(deadline=None, max_examples=30)
@given(programs())
def test_steps_and_run_are_one_walk(program):
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = everything(program, x)
    for stage, arguments, result in program.steps(x):
        assert all(map(torch.equal, arguments, (whole[name] for name in stage.inputs)))
        assert torch.equal(result, whole[stage.output])
    assert torch.equal(program.evaluate(x, chunk=3), whole[program.output])
    cuts = [i for i, stage in enumerate(program.stages) if isinstance(stage, Kink | Max)]
    found = [program.next_cut(-1)]
    while found[-1] < len(program.stages):
        found.append(program.next_cut(found[-1]))
    assert found == [*cuts, len(program.stages)]


def test_a_visit_may_carry_anything():
    """Bounds in place of values: what comes out is what the visits made of what they were given."""
    program = mlp([torch.eye(2), torch.ones(1, 2)], [None, None])

    def depth(position, stage, arguments):
        return 1 + max(arguments)

    assert program.run({"input": 0}, visit=depth) == {program.output: 3}
