"""`isogon compare A B`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isogon.cli.parser import Parser
from isogon.cli.survey import slug, written
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Option

if TYPE_CHECKING:
    from isogon.survey.whole.kept import Survey


def compare(words: list[str]) -> int:
    """`isogon compare A B --batches DATA`."""
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
    words = ["compare", options.a, options.b, "--batches", options.batches]
    words += ["--train", options.train] if options.train else []
    words += ["--names", ",".join(options.names)] if options.names else []

    def run(**common: Any) -> Survey:
        from isogon.survey.whole import compare as comparison

        return comparison.compare(a, b, data, train=options.train, names=options.names, **common)

    return written(
        run,
        options,
        slug(f"{a} and {b}", data),
        words,
        f"comparison of {a}\n       and {b}\n        on {data}",
    )
