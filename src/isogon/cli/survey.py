"""`isogon survey` and `isogon report`."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon import stopping
from isogon.cli.commands import surroundings
from isogon.cli.listing import OFFLINE
from isogon.cli.parser import Parser
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Option

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from isogon.survey.whole.kept import Survey


DEFAULT_OUT = "surveys"


def survey(words: list[str]) -> int:
    """`isogon survey MODEL --batches DATA`."""
    parser = Parser(
        "survey",
        "Run every measure that a model and its data can supply, cheap ones first, within a\n"
        "time budget; write one self-contained HTML page. Run again, it goes on where it was.",
        'example:\n  isogon survey "trained(cnn, digits, epochs=5)" --batches "digits(test)"',
    )
    parser.positional("model", catalogue.noun("Module")["help"])
    parser.spec("batches", catalogue.noun("Batches")["help"])
    many = ["tuple", "str", "..."]
    for option in (
        Option("budget", "float", 120.0, help="seconds for the measures"),
        Option("only", many, (), help="names of the measures to run, all of them by default"),
        Option("skip", many, (), help="names of measures to leave out"),
    ):
        parser.option(option)
    parser.commons(out=None)
    options = parser.parse(words)
    model, data = str(parse(options.model)), str(parse(options.batches))

    def run(**common: Any) -> Survey:
        from isogon.survey.whole import survey as everything

        return everything.survey(model, data, **common)

    return written(
        run,
        options,
        slug(model, data),
        ["survey", options.model, "--batches", options.batches],
        f"survey of {model} on {data}",
    )


def written(
    run: Callable[..., Survey], options: Namespace, folder: str, words: list[str], heading: str
) -> int:
    """Run a survey or a comparison, write its page and give the exit code.

    Args:
        run: Takes what the two have in common, as keywords.
        options: As parsed.
        folder: Name of the folder below `DEFAULT_OUT`, where none was given.
        words: What the command is run again with, beside budget and global options.
        heading: What is said first.
    """
    from isogon.cli import console

    out = Path(options.out) if options.out else Path(DEFAULT_OUT) / folder
    shown = kept_globals(options)
    words = ["isogon", *words]
    if options.budget != 120:
        words += ["--budget", f"{options.budget:g}"]
    for name in ("only", "skip"):
        if chosen := getattr(options, name):
            words += [f"--{name}", ",".join(chosen)]
    for name, value in shown.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with surroundings(options):
        from isogon.survey.pages import report
        from isogon.survey.running.run import Session, writable

        writable(out)
        if not options.quiet:
            console.say(heading)
        done = run(
            budget=options.budget,
            out=out,
            session=Session(device=options.device, batch_size=options.batch_size),
            only=options.only,
            skip=options.skip,
            again=options.again,
            seed=options.seed,
            command=shlex.join(words),
            surroundings=shown,
            notify=None if options.quiet else told,
        )
        with stopping.finishing():
            console.say(str(report.write(done)))
    if done.interrupted:
        raise KeyboardInterrupt
    failed = any(line.status == "failed" for line in done.lines)
    return 0 if any(line.record for line in done.lines) and not failed else 1


def told(line: Any) -> None:
    """Say what came of one measure."""
    from isogon.cli import console

    mark = {"done": "+", "reused": "=", "skipped": "-", "failed": "!"}[line.status]
    what = f"{line.seconds:8.2f} s" if line.record else f"{line.status}: {line.reason}"
    what += f"   {line.verdict}" if line.verdict else ""
    name = line.measure.replace("_", "-") + (f" ({line.side})" if line.side else "")
    console.say(f"  {mark} {name:<20} {what}")


def report(words: list[str]) -> int:
    """`isogon report DIR`: write the page of a survey or of a sweep again."""
    from isogon.cli import console

    parser = Parser("report", "Write the page of a survey or of a sweep again from its records.")
    parser.positional("directory", "the folder that `isogon survey` or `isogon sweep` wrote")
    parser.commons(out=None, skip=OFFLINE)
    options = parser.parse(words)
    with surroundings(options):
        from isogon.cli.sweep import queue
        from isogon.survey.pages import report as page
        from isogon.survey.pages import sweep_report
        from isogon.survey.running import sweep
        from isogon.survey.whole import survey as everything

        if (Path(options.directory) / sweep.PLAN).is_file():
            held = sweep.Sweep.read(options.directory)
            for path in sweep_report.write(held, alive=queue(held).jobs):
                console.say(str(path))
            return 0
        found = everything.read_survey(Path(options.directory))
        console.say(str(page.write(found)))
    return 0


def slug(model: str, data: str) -> str:
    """A folder's name that says what is in it and is the same every time."""
    digest = hashlib.sha256(f"{model}\n{data}".encode()).hexdigest()[:6]
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{model}-on-{data}").strip("-").lower()
    return f"{words[:60].rstrip('-')}-{digest}"


def kept_globals(options: Namespace) -> dict[str, Any]:
    """The global options that a command needs to be run again."""
    found: dict[str, Any] = {}
    if options.data_root:
        found["data_root"] = options.data_root
    if options.device != "cpu":
        found["device"] = options.device
    if options.batch_size:
        found["batch_size"] = options.batch_size
    if options.seed:
        found["seed"] = options.seed
    if options.no_check:
        found["no_check"] = True
    return found
