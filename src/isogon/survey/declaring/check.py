"""Check a job against its measure's signature before anything runs."""

from __future__ import annotations

from isogon.errors import OptionError, unknown
from isogon.specs import Spec, parse
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job


def check_job(job: Job, declaration: Declaration | None = None) -> tuple[Job, Declaration]:
    """The job in canonical form (specs rewritten, defaults filled in) and its declaration.

    Args:
        job: As written by a user.
        declaration: Of the job's measure; looked up where it is not given.

    Raises:
        SpecError: An unknown measure, or a spec that can't be parsed.
        OptionError: An input is missing or unknown, an option is unknown or of a wrong type.
    """
    d = declaration or catalogue.declaration(job.measure)
    inputs: dict[str, str] = {}
    known = [i.name for i in d.inputs]
    for name in job.inputs:
        if d.input(name) is None:
            raise unknown(f"input of {d.command}", name, known, error=OptionError)
    for wanted in d.inputs:
        spec = job.inputs.get(wanted.name)
        if spec is None and wanted.required:
            raise OptionError(
                f"{d.command} needs {wanted.name}",
                got=", ".join(f"{k}={v}" for k, v in job.inputs.items()) or "nothing",
                expected=f"--{wanted.name.replace('_', '-')} with a spec of a {wanted.noun}",
                fix=f"See isogon {d.command} --help.",
            )
        if spec is not None:
            inputs[wanted.name] = canonical(spec)
    options = {}
    for name in job.options:
        if d.option(name) is None:
            raise unknown(
                f"option of {d.command}", name, [o.name for o in d.options], error=OptionError
            )
    for o in d.options:
        if o.name not in job.options and o.required:
            raise OptionError(
                f"{d.command} needs the option {o.name}",
                expected=types.shown(o.type),
                fix=f"See isogon {d.command} --help.",
            )
        value = job.options.get(o.name, o.default)
        if o.name in job.options and not types.fits_code(value, o.type) and value != o.default:
            raise OptionError(
                f"wrong value for {o.name} of {d.command}",
                got=repr(value),
                expected=types.shown(o.type),
                fix=f"See isogon {d.command} --help.",
            )
        options[o.name] = tuple(value) if isinstance(value, list) else value
    return Job(d.name, inputs, options, job.seed, job.shard), d


def given(job: Job, d: Declaration) -> dict:
    """The options of a checked job that differ from their defaults."""
    return {
        o.name: job.options[o.name]
        for o in d.options
        if o.name in job.options and (o.required or job.options[o.name] != o.default)
    }


def canonical(spec: str | Spec) -> str:
    """The canonical text of a spec; the path of a file or a folder as it was given."""
    return str(parse(spec))
