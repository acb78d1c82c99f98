"""`isogon experiment NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isogon.cli.commands import RUNS, surroundings
from isogon.cli.listing import OFFLINE
from isogon.cli.parser import Parser, derived
from isogon.errors import OptionError, unknown
from isogon.survey.declaring import catalogue


def experiment(words: list[str]) -> int:
    """Run a named experiment: its signature gives the options, as for measures."""
    from isogon.cli import console

    known = [n.replace("_", "-") for n in catalogue.names("experiment")]
    if not words or words[0].startswith("-"):
        parser = Parser(
            "experiment",
            "Studies that combine steps. `isogon experiment NAME --help` explains one.",
            "experiments:\n"
            + "\n".join(
                f"  {n.replace('_', '-'):<18}{s}"
                for n, (_, s) in catalogue.summaries("experiment").items()
            ),
        )
        parser.positional("name", "of the experiment")
        parser.commons(out=None, skip=OFFLINE)
        parser.parse(words)
    name, *rest = words
    if name.replace("_", "-") not in known:
        raise unknown("experiment", name, known, error=OptionError)
    declaration = catalogue.declaration(name, "experiment")
    default = str(Path(RUNS) / name.replace("_", "-"))
    parser = derived(declaration, out=default, title=f"experiment {name.replace('_', '-')}")
    options = parser.parse(rest)
    with surroundings(options):
        from isogon.survey.running.run import Session, call, writable

        out = Path(options.out)
        writable(out)
        specs = {i.name: getattr(options, i.name) for i in declaration.inputs}
        values = {o.name: getattr(options, o.name) for o in declaration.options if o.name != "out"}
        session = Session(
            device=getattr(options, "device", "cpu"),
            batch_size=getattr(options, "batch_size", None),
        )
        given = {k: v for k, v in specs.items() if v is not None}
        found = call(declaration, given, values, session, seed=options.seed, out=out)
    for note in ("outcome", "video"):
        if said := getattr(found, "meta", {}).get(note):
            console.say(said)
    for path in _paths(found, out):
        console.say(str(path))
    return 0


def _paths(found: Any, out: Path) -> list[Path]:
    """What an experiment wrote: the paths that it returns, or the folder of its reading."""
    from isogon.readings import Reading

    if isinstance(found, Reading):
        return [found.save(out / "reading")]
    if isinstance(found, dict):
        return [p for v in found.values() for p in _paths(v, out)]
    if isinstance(found, list | tuple):
        return [p for v in found for p in _paths(v, out)]
    return [] if found is None else [found]
