"""What every measure owes: a new one is tested by being registered.

Inputs come from the noun's ``example=`` (or the table below), options from the measure's
``example={...}`` where its defaults would take long.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from isogon import context, readings, registry
from isogon.cli import main
from isogon.errors import IsogonError, ModelError
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import check_job
from isogon.survey.declaring.declare import declare
from isogon.survey.declaring.job import Job
from isogon.survey.pages import bibliography
from isogon.survey.running.run import Session, call_measure, run
from isogon.training.snapshots import Snapshots

MEASURES = registry.names("measure")
_records: dict = {}


def job_of(name: str) -> Job:
    """A tiny job of a measure."""
    entry = registry.get("measure", name)
    declaration = declare(entry)
    given = dict(entry.extra.get("example", {}))
    inputs = {}
    for wanted in declaration.inputs:
        noun = registry.get("noun", wanted.noun)
        spec = given.pop(wanted.name, None)
        if spec is None and wanted.required:
            spec = noun.extra.get("example")
            assert spec, f"register the noun {wanted.noun} with example='a tiny spec'"
        if spec is not None:
            inputs[wanted.name] = spec
    return check_job(Job(name, inputs, given), declaration)[0]


def record_of(name: str):
    if name not in _records:
        _records[name] = run(job_of(name), session=Session())
    return _records[name]


def objects_of(name: str):
    job = job_of(name)
    declaration = declare(registry.get("measure", name))
    objects, _ = Session().inputs(job, declaration)
    return job, declaration, objects


@pytest.mark.parametrize("name", MEASURES)
def test_it_is_declared_in_full(name):
    entry = registry.get("measure", name)
    declaration = declare(entry)
    assert declaration.summary.rstrip().endswith((".", "?")), "a definition in one sentence"
    assert len(declaration.doc.splitlines()) > 3, "the docstring is the definition"
    for p in (*declaration.inputs, *declaration.options):
        assert p.help, f"{p.name} is not described under Args:"
    if (entry.build.__module__ or "").startswith("isogon."):
        assert declaration.cite, "its source is cited"
    for key in declaration.cite:
        if (entry.build.__module__ or "").startswith("isogon."):
            assert bibliography.work_of(key), f"{key} is not in references.bib"


@pytest.mark.parametrize("name", MEASURES)
def test_it_is_deterministic(name):
    again = run(job_of(name), session=Session())
    assert again.reading.equals(record_of(name).reading)
    assert again.key == record_of(name).key


@pytest.mark.parametrize("name", MEASURES)
def test_its_reading_comes_back_and_is_drawn(name, tmp_path):
    from matplotlib import pyplot

    from isogon.show import draw

    reading = record_of(name).reading
    assert reading.measure == name
    reading.save(tmp_path / "r")
    back = readings.read(tmp_path / "r")
    assert type(back) is type(reading)
    assert back.equals(reading)
    assert len(reading.summary().columns)
    before = pyplot.get_fignums()
    buffer = io.BytesIO()
    draw(back).savefig(buffer, format="svg")
    assert buffer.tell() > 1000
    assert pyplot.get_fignums() == before


def state(module: torch.nn.Module) -> tuple:
    """Everything of a module that a measure must leave alone, bit by bit."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    rows = []
    for path, m in module.named_modules():
        rows.append((path, id(m), m.training, *(tuple(getattr(m, h)) for h in hooks)))
        rows.append(sorted(k for k in vars(m) if not k.startswith("__")))
    for name, t in [*module.named_parameters(), *module.named_buffers()]:
        grad = None if t.grad is None else t.grad.clone().numpy().tobytes()
        bits = t.detach().contiguous().numpy().tobytes()
        rows.append((name, id(t), t.requires_grad, t.dtype, t.device, bits, grad))
    return tuple(map(str, rows))


def disturbed(module: torch.nn.Module) -> list:
    """Put a module into an unusual state: training, frozen and graded parameters, a hook."""
    module.train()
    parameters = list(module.parameters())
    for p in parameters[::2]:
        p.requires_grad_(False)
    parameters[-1].requires_grad_(True)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    seen: list = []
    module.register_forward_hook(lambda m, x, y: seen.append(1))
    return seen


@pytest.mark.parametrize("name", MEASURES)
def test_models_leave_as_they_came(name):
    job, _declaration, objects = objects_of(name)
    models = [o for o in objects.values() if isinstance(o, torch.nn.Module)]
    for module in models:
        disturbed(module)
    before = [state(m) for m in models]
    tensors = [(k, o.clone()) for k, o in objects.items() if torch.is_tensor(o)]
    torch.manual_seed(3)
    rng, grad = torch.get_rng_state(), torch.is_grad_enabled()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    call_measure(job, objects)
    assert [state(m) for m in models] == before
    assert torch.equal(torch.get_rng_state(), rng), "global random state was used"
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == (grad, threads)
    assert torch.get_default_dtype() == dtype
    for key, value in tensors:
        assert torch.equal(objects[key], value), f"{key} was written to"


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("call", [1, 2])
def test_models_leave_as_they_came_after_an_exception_too(name, call):
    job, _declaration, objects = objects_of(name)
    models = [o for o in objects.values() if isinstance(o, torch.nn.Module)]
    if not models:
        pytest.skip("takes no model")
    leaf = [m for m in models[0].modules() if not any(m.children())][-1]
    calls = []

    class Planned(Exception):
        pass

    def fail(module, arguments):
        calls.append(1)
        if len(calls) == call:
            raise Planned

    for module in models:
        disturbed(module)
    leaf.register_forward_pre_hook(fail)
    before = [state(m) for m in models]
    # Some report it in words of their own; measures of weights alone never call the model.
    with contextlib.suppress(Planned, IsogonError):
        call_measure(job, objects)
    assert [state(m) for m in models] == before


class Reused(nn.Module):
    """One module used twice, one parameter held by two modules, a buffer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.mix = nn.Linear(64, 12), nn.Linear(12, 12)
        self.again, self.tied, self.out = self.mix, nn.Linear(12, 12), nn.Linear(12, 10)
        self.tied.weight = self.mix.weight
        self.register_buffer("shift", torch.linspace(0, 1, 12))
        self.also = nn.Module()
        self.also.register_buffer("shift", self.shift)

    def forward(self, x):
        x = self.mix(self.inp(x.flatten(1)).relu()).relu()
        return self.out(self.tied(self.again(x + self.shift).relu()).relu())


class Counting(nn.Module):
    """Counts its calls in evaluation mode, in place and by a new tensor, and caches a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("total", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if not torch.compiler.is_exporting():
            self.calls += 1
            self.total = self.total + len(x)
        self.last = x.detach()[:1] * 0
        return self.net(x)


def computed(how):
    """A network whose weights PyTorch computes from other parameters."""
    convolution, linear = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)
    net = nn.Sequential(how(convolution), nn.ReLU(), nn.Flatten(), how(linear))
    with warnings.catch_warnings(), torch.no_grad():
        net(torch.rand(2, 1, 8, 8))
    return net


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


KINDS = {
    "reused": Reused,
    "counting": Counting,
    "weight norm": lambda: computed(parametrizations.weight_norm),
    "spectral norm": lambda: computed(parametrizations.spectral_norm),
    "old weight norm": lambda: computed(torch.nn.utils.weight_norm),
    "old spectral norm": lambda: computed(torch.nn.utils.spectral_norm),
    "pruned": lambda: computed(pruned),
}
# in training mode a batch norm and the estimate of a spectral norm change wherever they are used
KINDS |= {
    f"{kind}, training": KINDS[kind] for kind in ("reused", "spectral norm", "old spectral norm")
}


def of_kind(kind):
    """A model with a user's hooks on it, which record the order in which they run."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = KINDS[kind]().train(kind.endswith("training"))
    seen: list = []
    leaf = next(m for m in model.modules() if isinstance(m, nn.Linear))
    leaf.register_forward_pre_hook(lambda *_: seen.append(1))
    leaf.register_forward_hook(lambda *_: seen.append(2))
    leaf.register_forward_hook(lambda *_: seen.append(3))
    return model, seen


def whole(model) -> tuple:
    """`state`, and all that modules hold by whatever name: which tensor, and its bits."""
    rows = [state(model)]
    for path, m in model.named_modules(remove_duplicate=False):
        for held in (m._parameters, m._buffers, vars(m)):
            for k, v in held.items():
                if isinstance(v, torch.Tensor):
                    bits = v.detach().contiguous().numpy().tobytes()
                    rows.append((path, k, id(v), type(v), bits))
    return tuple(rows)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEASURES)
def test_models_of_every_kind_leave_as_they_came(name, kind):
    job, _declaration, objects = objects_of(name)
    if not isinstance(objects.get("model"), nn.Module):
        pytest.skip("takes no model")
    model, seen = of_kind(kind)
    objects["model"] = model
    if "snapshots" in objects:
        earlier = {k: v.clone() for k, v in model.state_dict().items()}
        objects["snapshots"] = Snapshots.of(earlier)
    before = whole(model)
    reading = call_measure(job, objects)
    assert whole(model) == before
    assert call_measure(job, objects).equals(reading), "the first call left something behind"
    assert whole(model) == before
    assert seen == [1, 2, 3] * (len(seen) // 3), "the user's hooks run in their order"
    if "snapshots" in objects:
        mine = objects["snapshots"]["snapshot"]
        assert all(torch.equal(mine[k], v) for k, v in model.state_dict().items())
    failing = next(m for m in model.modules() if isinstance(m, nn.ReLU | nn.Flatten | Reused))
    handle = failing.register_forward_pre_hook(raising)
    before = whole(model)
    with contextlib.suppress(Planned, IsogonError):
        call_measure(job, objects)
    assert whole(model) == before
    handle.remove()


class Planned(Exception):
    pass


def raising(*_):
    raise Planned


@pytest.mark.parametrize("name", MEASURES)
def test_models_that_are_no_function_of_one_sample_are_refused(name):
    job, declaration, objects = objects_of(name)
    if declaration.input("model") is None or name == "orientation":  # reads weights alone
        pytest.skip("does not run the model")

    class Off(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.net, self.how = objects["model"], how

        def forward(self, x):
            return self.how(self.net, x)

    model = objects["model"]
    if "snapshots" in objects:
        objects["snapshots"] = Snapshots.of({})
    for how, says in (
        (lambda net, x: net(x - x.mean(0)), "depends on the other samples"),
        (lambda net, x: nn.functional.dropout(net(x), 0.5, True), "random"),
    ):
        with pytest.raises(ModelError, match=says):
            call_measure(job, objects | {"model": Off(how)})
    before = state(model)
    with context.use(check=False), contextlib.suppress(IsogonError):
        if name not in ("partition", "evolution", "segments", "local_complexity"):
            reading = call_measure(job, objects | {"model": Off(lambda net, x: net(x - x.mean(0)))})
            assert reading.meta["check"] is False
    assert state(model) == before


@pytest.mark.parametrize("name", MEASURES)
def test_inputs_that_are_not_numbers_are_refused(name):
    job, declaration, objects = objects_of(name)
    for wanted in declaration.inputs:
        given = objects.get(wanted.name)
        for bad in (float("nan"), float("inf")):
            if torch.is_tensor(given):
                wrong = given.clone()
                wrong.view(-1)[1] = bad
            elif wanted.noun == "Batches" and given is not None:
                x, y = given.first(5)
                x = x.clone()
                x[3].view(-1)[2] = bad
                wrong = [(x, y)]
            else:
                continue
            with pytest.raises(IsogonError, match=r"(NaN|nfinit)"):
                call_measure(job, objects | {wanted.name: wrong})


@pytest.mark.parametrize("name", MEASURES)
def test_wrong_input_is_refused_in_the_form_got_expected(name):
    job, declaration = check_job(job_of(name))
    wrong = [Job(name, {**job.inputs, i: "no_such_thing(1)"}, job.options) for i in job.inputs]
    wrong += [Job(name, {**job.inputs, "no_such_input": "cnn"}, job.options)]
    wrong += [Job(name, job.inputs, {**job.options, "no_such_option": 1})]
    wrong += [Job(name, job.inputs, {**job.options, o.name: {}}) for o in declaration.options]
    for bad in wrong:
        with pytest.raises(IsogonError) as caught:
            run(bad, session=Session())
        text = str(caught.value)
        assert "got " in text, text
        assert "expected " in text, text
        assert "\n" not in text


@pytest.mark.parametrize("name", MEASURES)
def test_weights_that_are_not_numbers_are_refused(name):
    job, _declaration, objects = objects_of(name)
    models = [o for o in objects.values() if isinstance(o, torch.nn.Module)]
    if not models:
        pytest.skip("takes no model")
    with torch.no_grad():
        next(iter(models[0].parameters())).view(-1)[0] = float("nan")
    with pytest.raises(IsogonError, match="got"):
        call_measure(job, objects)


@pytest.mark.parametrize("name", MEASURES)
def test_it_has_a_subcommand_that_explains_it(name, capsys):
    declaration = catalogue.declaration(name)
    assert main([declaration.command, "--help"]) == 0
    text = capsys.readouterr().out
    assert declaration.summary.split()[0] in text
    for wanted in (*declaration.inputs, *declaration.options):
        assert f"--{wanted.name.replace('_', '-')}" in text
    assert f"isogon {declaration.command} " in text
    assert main(["list", "measures"]) == 0
    assert declaration.command in capsys.readouterr().out


def test_examples_are_specs():
    for entry in registry.entries("noun"):
        for key in ("example", "typed"):
            if entry.extra.get(key) and not entry.extra[key].startswith("runs/"):
                assert str(parse(entry.extra[key]))


def test_help_of_a_built_in_measure_imports_no_torch():
    code = (
        "import sys; from isogon.cli import main; main(['data-matrix', '--help']);"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", MEASURES)
def test_it_has_findings(name):
    from isogon.findings import Names, differences, findings, numbers

    reading = record_of(name).reading
    found = findings(reading, Names("one", "two"))
    assert found
    for f in found:
        assert f.measure == name
        assert f.text[-1] == "."
        assert f.text[0].isupper() or f.text[0].isdigit() or f.text.split()[0] in str(reading.table)
        assert not any(word in f.text for word in ("nan", "inf ", "None", "undefined", "  "))
        assert f.value
        assert f.against
        assert 0 <= f.weight <= 1
    assert [f.weight for f in found] == sorted((f.weight for f in found), reverse=True)
    assert len({n.name for n in numbers(reading)}) == len(numbers(reading)) > 0
    assert not any(f.effect for f in differences(reading, reading))


@pytest.mark.parametrize("name", MEASURES)
def test_an_input_may_be_given_as_the_text_that_names_it(name):
    """What is typed on the command line works in Python too; models alone are objects."""
    job, declaration, objects = objects_of(name)
    for wanted in declaration.inputs:
        if wanted.noun in ("Module", "Representation") or wanted.name not in job.inputs:
            continue
        given = dict(objects) | {wanted.name: job.inputs[wanted.name]}
        assert call_measure(job, given).equals(call_measure(job, objects)), wanted.name
