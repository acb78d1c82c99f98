"""`isogon compare A B`."""

from __future__ import annotations

import shlex
from pathlib import Path

from isogon import stopping
from isogon.cli.commands import surroundings
from isogon.cli.parser import Parser
from isogon.cli.survey import DEFAULT_OUT, kept_globals, slug, told
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Option


def compare(words: list[str]) -> int:
    """`isogon compare A B --batches DATA`."""
    from isogon.cli import console

    parser = Parser(
        "compare",
        "Every measure of two networks, and each measure of one of both side by side, within a\n"
        "time budget; write one self-contained HTML page. Run again, it goes on where it was.",
        'example:\n  isogon compare "trained(cnn, digits, epochs=5)" '
        '"trained(cnn, digits, epochs=5, seed=1)" --batches "digits(test)"',
    )
    parser.positional("a", catalogue.noun("Module")["help"])
    parser.positional("b", "the other one")
    parser.spec("batches", catalogue.noun("Batches")["help"])
    many = ["tuple", "str", "..."]
    for option in (
        Option(
            "train",
            ["|", "str", "null"],
            None,
            help="data that stitches are fitted on; the "
            "training split of --batches by default, if it has one",
        ),
        Option("budget", "float", 120.0, help="seconds for the measures"),
        Option("names", many, (), help="what the two are called, e.g. plain,augmented"),
        Option("only", many, (), help="names of the measures to run, all of them by default"),
        Option("skip", many, (), help="names of measures to leave out"),
    ):
        parser.option(option)
    parser.commons(out=None)
    options = parser.parse(words)
    a, b, data = (str(parse(s)) for s in (options.a, options.b, options.batches))
    out = Path(options.out) if options.out else Path(DEFAULT_OUT) / slug(f"{a} and {b}", data)
    shown = kept_globals(options)
    command = shlex.join(["isogon", "compare", options.a, options.b, "--batches", options.batches])
    if options.train:
        command += f" --train {shlex.quote(options.train)}"
    if options.names:
        command += f" --names {shlex.quote(','.join(options.names))}"
    command += f" --budget {options.budget:g}" if options.budget != 120 else ""
    command += "".join(f" --{k.replace('_', '-')} {shlex.quote(str(v))}" for k, v in shown.items())
    with surroundings(options):
        from isogon.survey.pages import report
        from isogon.survey.running.run import Session, writable
        from isogon.survey.whole import compare as comparison

        writable(out)
        session = Session(device=options.device, batch_size=options.batch_size)
        if not options.quiet:
            console.say(f"comparison of {a}\n       and {b}\n        on {data}")
        done = comparison.compare(
            a,
            b,
            data,
            train=options.train,
            budget=options.budget,
            out=out,
            names=options.names,
            session=session,
            only=options.only,
            skip=options.skip,
            again=options.again,
            seed=options.seed,
            command=command,
            surroundings=shown,
            notify=None if options.quiet else told,
        )
        with stopping.finishing():
            console.say(str(report.write(done)))
    if done.interrupted:
        raise KeyboardInterrupt
    failed = any(line.status == "failed" for line in done.lines)
    return 0 if any(line.record for line in done.lines) and not failed else 1
