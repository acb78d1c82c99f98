"""What every measure owes: a new one is tested by being registered.

Inputs come from the noun's ``example=`` (or the table below), options from the measure's
``example={...}`` where its defaults would take long.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest
import torch

from isogon import readings, registry
from isogon.cli import main
from isogon.errors import IsogonError
from isogon.specs import parse
from isogon.survey import bibliography, catalogue
from isogon.survey.check import check
from isogon.survey.declare import declare
from isogon.survey.record import Job
from isogon.survey.run import Session, call_measure, run

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
    return check(Job(name, inputs, given), declaration)[0]


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
            assert bibliography.find(key), f"{key} is not in references.bib"


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


@pytest.mark.parametrize("name", MEASURES)
def test_wrong_input_is_refused_in_the_form_got_expected(name):
    job, declaration = check(job_of(name))
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
