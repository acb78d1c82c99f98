"""`isogon show` and `isogon export`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon import context
from isogon.cli.commands import surroundings
from isogon.cli.listing import OFFLINE
from isogon.cli.parser import Parser
from isogon.errors import FileError, IsogonError, OptionError
from isogon.specs import Spec, parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Option
from isogon.survey.declaring.job import Job, quoted

if TYPE_CHECKING:
    from argparse import Namespace

    from isogon.data.batches import Batches
    from isogon.survey.running.record import Record


EXAMPLES = """\
examples:
  isogon show "resnet18(num_classes=10)"
  isogon show "digits(test)"
  isogon show data-matrix
  isogon invariance --model "cnn(width=4)" --batches "digits(test)" --family "rotations(8)" \\
      --measures variance,anova
  isogon show runs/invariance
  isogon show runs/invariance --draw "column=anova_f" --out anova.pdf
  isogon show runs/invariance --draw "scatter=anova_f"
  isogon show runs/invariance --draw graph --model "cnn(width=4)" --batches "digits(test)"

runs/invariance is the newest record of that measure in runs; each has a folder of its own there.
"""
FORMATS = ("json", "csv", "parquet", "tex")
PICTURES = ("png", "svg", "pdf")


def show(words: list[str]) -> int:
    """`isogon show SPEC|DIR`."""
    parser = Parser(
        "show",
        "What a spec names (a model with its layers, a data set, a family), how a measure is\n"
        "defined, or what a folder of results holds; with --draw, another figure of a reading.",
        EXAMPLES,
    )
    parser.positional("what", "a spec, a measure's name, or a folder of results")
    text = "options of the figure of a reading: maps, scatter=anova_f, graph, column=anova_f, ..."
    parser.option(Option("draw", ["union", "str", "none"], None, help=text))
    for name, noun in (("model", "Module"), ("batches", "Batches")):
        text = f"for --draw graph: {catalogue.noun(noun)['help']}"
        parser.option(Option(name, ["union", "str", "none"], None, help=text))
    parser.commons(out=None, skip=[n for n in OFFLINE if n != "seed"])
    options = parser.parse(words)
    from isogon.survey.running import record

    path = record.newest(Path(options.what))
    with surroundings(options):
        if options.draw is not None or options.out:
            _draw(path, options.draw or "", options)
        elif path.is_dir() or path.name in ("record.json", "reading.json", "survey.json"):
            with context.from_file(path):  # shown, not run
                _folder(path if path.is_dir() else path.parent)
        else:
            _spec(options.what, options.seed)
    return 0


def _draw(folder: Path, text: str, given: Namespace) -> None:
    """Draw a reading with options of its figure; a graph needs the model, as typed."""
    from isogon import readings, storage
    from isogon.cli import console
    from isogon.show.figure import draw
    from isogon.survey.running import record

    kept = record.load(folder)
    reading = kept.reading if kept is not None else readings.read(_reading_folder(folder))
    chosen = parse(f"draw({text})")
    options = {**{str(a): True for a in chosen.args}, **chosen.kwargs}
    if options.get("graph") is True:
        options |= _traced(given, kept)
    name = "-".join(re.findall(r"\w+", f"{reading.measure} {text}"))
    path = Path(given.out) if given.out else folder / f"{name}.png"
    if path.suffix.lstrip(".").lower() not in PICTURES:
        raise OptionError(
            "unknown kind of picture", got=str(path), expected="a file ending in .png, .svg or .pdf"
        )
    with context.from_file(folder):
        figure = draw(reading, **options)
    with storage.atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())
    console.say(str(path))


def _traced(given: Namespace, kept: Record | None) -> dict[str, Any]:
    """The model and inputs that a graph is traced with: typed, since a record builds nothing."""
    from isogon.survey.running.run import Session

    if given.model is None or given.batches is None:
        said = kept.job.inputs if kept is not None else {}
        model, data = said.get("model", "SPEC"), said.get("batches", "SPEC")
        raise OptionError(
            "a graph needs the model and inputs",
            got="--draw graph alone",
            expected="--model and --batches",
            fix=f"The record says: --model {quoted(model)} --batches {quoted(data)}.",
        )
    session = Session()
    data = session.get("Batches", given.batches, seed=given.seed)
    return {
        "graph": session.get("Module", given.model, like=data, seed=given.seed),
        "example": data,
    }


def export(words: list[str]) -> int:
    """`isogon export DIR --format csv`."""
    from isogon.cli import console

    parser = Parser(
        "export",
        "A reading as one file: csv, parquet and tex (LaTeX) hold its table, json everything.",
        'examples:\n  isogon data-matrix --model "cnn(width=4)" --batches "digits(test, 64)"\n'
        "  isogon export runs/data-matrix --format csv --out traces.csv\n"
        "runs/data-matrix is the newest record of that measure in runs.",
    )
    parser.positional("directory", "the folder of a record or of a reading")
    parser.option(Option("format", ["literal", *FORMATS], "csv", help="of the file"))
    parser.commons(out=None, skip=OFFLINE)
    options = parser.parse(words)
    with surroundings(options), context.from_file(options.directory):
        from isogon import readings
        from isogon.survey.running import record

        held = _reading_folder(record.newest(Path(options.directory)))
        reading = readings.read(held)
        out = Path(options.out) if options.out else Path(f"{reading.measure}.{options.format}")
        if out.is_dir():
            out = out / f"{reading.measure}.{options.format}"
        readings.export(reading, out, options.format)
    console.say(str(out))
    return 0


def _reading_folder(folder: Path) -> Path:
    from isogon.readings.files import MANIFEST, located

    if (located(folder) / MANIFEST).is_file():
        return located(folder)
    raise FileError(
        "no reading there",
        got=str(folder),
        expected="the folder of a record or of a reading",
        fix="Name a folder that a measure printed as its result.",
    )


def _folder(folder: Path) -> None:
    from isogon import readings
    from isogon.cli import console
    from isogon.survey.running import record, sweep
    from isogon.survey.running.certifying import verdict
    from isogon.survey.whole import survey as everything

    if (folder / everything.FILE).is_file():
        found = everything.read_survey(folder)
        rows = [
            (f"{n.measure.replace('_', '-')}", f"{n.status}  {n.record or n.reason}  {n.verdict}")
            for n in found.lines
        ]
        console.listing(rows, f"survey of {found.model} on {found.batches}")
        console.say(f"page  {folder / 'report.html'}")
        return
    if not (folder / record.FILE).is_file() and not (folder / "reading.json").is_file():
        held = record.scan(folder / "records" if (folder / sweep.PLAN).is_file() else folder)
        if held:
            rows = [(str(r.directory), _command(r.job)) for r in held]
            console.listing(rows, console.counted(len(held), "record"))
            return
    kept = record.load(folder)
    reading = kept.reading if kept is not None else readings.read(_reading_folder(folder))
    console.say(repr(reading))
    console.say("")
    console.print_table(reading.summary(), "summary")
    if told := verdict(reading):
        console.say("")
        console.say(told)
    if kept is not None:
        console.say("")
        console.say(f"command  {_command(kept.job)}")
        seconds = kept.provenance["seconds"]
        console.say(f"made     {kept.provenance['started']} in {seconds:.2f} s")


def _command(job: Job) -> str:
    """The command line of a job, without the options that have their defaults."""
    from isogon.survey.declaring.check import given
    from isogon.survey.declaring.job import Job

    try:
        declaration = catalogue.declaration(job.measure)
    except IsogonError:  # made by a package that is not installed any more
        return job.command()
    inputs = {i.name: job.inputs[i.name] for i in declaration.inputs if i.name in job.inputs}
    return Job(job.measure, inputs, given(job, declaration), job.seed).command()


def _spec(text: str, seed: int) -> None:
    from isogon.cli import console

    name = text.strip().replace("-", "_")
    for kind in catalogue.DECLARED:
        if name in catalogue.names(kind):
            console.say(catalogue.declaration(name, kind).doc)
            return
    spec = parse(text)
    name = spec.name or ""
    if spec.name is not None and spec.module is None and spec.path is None:
        kind = next(
            (k for k in catalogue.LISTED if k != "noun" and name in catalogue.names(k)), None
        )
        if kind == "dataset":
            _data(str(spec))
            return
        if kind is not None and kind not in ("arch", "model"):
            _other(kind, name, spec)
            return
    elif spec.path is not None and spec.path.lower().endswith((".npz", ".zip")):
        _data(str(spec))
        return
    _model(str(spec), seed)


def _model(spec: str, seed: int) -> None:
    import pandas as pd

    from isogon.cli import console
    from isogon.nets import hygiene
    from isogon.survey.running.run import Session

    module = Session().get("Module", spec, seed=seed)
    rows = [
        {
            "layer": name,
            "type": type(leaf).__name__,
            "detail": leaf.extra_repr(),
            "parameters": sum(p.numel() for p in leaf.parameters(recurse=False)),
        }
        for name, leaf in module.named_modules()
        if not any(leaf.children())
    ]
    frame = pd.DataFrame(rows)
    console.print_table(frame, spec, rows=len(frame))
    total = sum(p.numel() for p in module.parameters())
    device, _ = hygiene.device_dtype(module)
    console.say("")
    console.say(f"{total:,} parameters, {hygiene.precision(module)}, {device}")


def _data(spec: str) -> None:
    from isogon.cli import console
    from isogon.survey.running.run import Session

    data: Batches = Session().get("Batches", spec)
    x, y = data.first(1)
    rows = [
        ("samples", f"{data.count:,}"),
        ("shape", " x ".join(map(str, x.shape[1:]))),
        ("type", str(x.dtype).removeprefix("torch.")),
        ("range", f"{float(x.min()):.4g} to {float(x.max()):.4g} (first sample)"),
        ("labels", str(y.dtype).removeprefix("torch.")),
        ("classes", ", ".join(map(str, data.classes or [])) or "none"),
    ]
    console.listing(rows, spec)


def _other(kind: str, name: str, spec: Spec) -> None:
    import inspect

    from isogon import registry
    from isogon.cli import console

    entry = catalogue.entry(kind, name)
    console.say(f"{kind} {registry.signature(entry)}")
    console.say("")
    console.say(inspect.getdoc(entry.build) or "")
    if kind == "family":
        members = list(registry.build(kind, spec))
        console.say("")
        console.say(f"{console.counted(len(members), 'transformation')}:")
        labels = [str(getattr(m, "label", m)) for m in members[:40]]
        more = ["..."] if len(members) > 40 else []
        console.say("  " + ", ".join(labels + more))
