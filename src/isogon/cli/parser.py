"""Parsers of subcommands, derived from declarations; mistakes become one line with the fix."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isogon import storage
from isogon.cli.helping import Formatter, metavar
from isogon.cli.values import Unfit, read_value, value_of
from isogon.errors import FileError, OptionError, nearest
from isogon.storage.yaml_text import MAX_BYTES, read_yaml
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.declare import Declaration, Input, Option, sections
from isogon.survey.declaring.job import spelled

TEXT = ["union", "str", "none"]


@dataclass(frozen=True)
class _Entry:
    """What may be typed: behind a flag, or at a place of its own."""

    name: str
    code: Any
    default: Any = None
    required: bool = False
    place: bool = False  # a word without a flag
    switch: bool = False  # a flag that is off unless it is typed

    @property
    def flag(self) -> str:
        return self.name.upper() if self.place else f"--{self.name.replace('_', '-')}"


def _is_flag(code: Any) -> bool:
    """Whether an option is true or false (or unknown), so that its name alone means true."""
    return code in ("bool", ["union", "bool", "none"], ["union", "none", "bool"])


class Parser:
    """A subcommand's options: argparse for words and help, one reader for values.

    Every flag takes text, which `isogon.cli.values` reads by the option's type; values from
    ``--config`` are read by the same types, and what is typed goes before what the file says.

    Args:
        name: The subcommand.
        description: Shown above the options in its help.
        epilog: Shown below them.
    """

    def __init__(self, name: str, description: str = "", epilog: str = "") -> None:
        self.name = name
        self.inner = argparse.ArgumentParser(
            prog=f"isogon {name}",
            description=description.replace("%", "%%"),
            epilog=epilog.replace("%", "%%"),
            exit_on_error=False,
            formatter_class=Formatter,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self.values: dict[str, str] = {}  # flag -> what may stand behind it, for messages
        self._entries: dict[str, _Entry] = {}
        self._groups: dict[str, argparse._ArgumentGroup] = {}

    def positional(self, name: str, help: str, *, optional: bool = False) -> None:
        """A word without a dash."""
        self._entries[name] = _Entry(name, TEXT, required=not optional, place=True)
        self._group("inputs").add_argument(name, nargs="?", help=help.replace("%", "%%"))

    def input(self, wanted: Input) -> None:
        """An input: a spec behind an option."""
        hint = catalogue.noun(wanted.noun).get("help", f"spec of a {wanted.noun}")
        text = f"{wanted.help.rstrip('.')}: {hint}" if wanted.help else hint
        self.spec(wanted.name, text, required=wanted.required)

    def spec(self, name: str, help: str, *, required: bool = True) -> None:
        """A spec behind an option, told what it names."""
        code = "str" if required else TEXT
        self._add("inputs", _Entry(name, code, required=required), help, "SPEC")

    def option(self, wanted: Option, title: str = "options") -> None:
        """A typed option."""
        entry = _Entry(wanted.name, wanted.type, wanted.default, wanted.required)
        self._add(title, entry, wanted.help, metavar(wanted.type))

    def flag(self, name: str, help: str, title: str = "options") -> None:
        """A switch that is off by default."""
        self._switch(self._group(title), f"--{name}", help=help)

    def commons(self, *, out: str | None, skip: Container[str] = ()) -> None:
        """The options that every command has; those in ``skip`` it has in a form of its own."""
        title = "output and surroundings"
        if "seed" not in skip:
            text = "seed of what the measure draws at random"
            self._add("options", _Entry("seed", "int", 0), text, "N")
        text = "options from a YAML file; what is typed goes before"
        self._group(title).add_argument("--config", action="append", metavar="FILE", help=text)
        print_ = ("--print_config", "--print-config")
        text = "show the options as YAML, as --config reads them, and end"
        self._group(title).add_argument(*print_, action="store_true", help=text)
        self._add(title, _Entry("out", "str" if out else TEXT, out), "folder of results", "DIR")
        if "batch_size" not in skip:
            entry = _Entry("batch_size", ["union", "int", "none"])
            self._add(title, entry, "samples at once", "N")
        self._add(title, _Entry("data_root", TEXT), "folder of data sets", "DIR")
        group = self._group(title)
        if "device" not in skip:
            text = "cpu, cuda, cuda:1, mps, auto"
            self._add(title, _Entry("device", "str", "cpu"), text, "TEXT")
        self._switch(group, "--download", help="download missing data sets")
        if "device" not in skip:
            self._switch(group, "--no-check", help="measure models without examining them first")
        if "again" not in skip:
            self._switch(group, "--again", help="compute what is there already")
        self._switch(group, "-q", "--quiet", help="no progress, no notes")
        self._switch(group, "--traceback", help="show where an error arose")
        group.add_argument("-h", "--help", action="help", help="show this text")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words behind the subcommand.

        Raises:
            OptionError: One line that says what was got, what is expected and what to do.
        """
        self.inner.usage = self._usage()
        try:
            typed, rest = self.inner.parse_known_args(self._joined(words))
        except argparse.ArgumentError as error:
            raise self._incomplete(error) from None
        if rest:
            raise self._unknown(rest)
        given = vars(typed)
        files = given.pop("config", [])
        printing = given.pop("print_config", False)
        found: dict[str, Any] = {}
        for file in files:
            found |= self._configured(file)
        found |= {k: self._value(self._entries[k], v) for k, v in given.items()}
        options = {n: found.get(n, e.default) for n, e in self._entries.items()}
        if printing:
            plain = {k: _plain(v) for k, v in options.items()}
            sys.stdout.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
            raise SystemExit(0)
        missing = [e.flag for n, e in self._entries.items() if e.required and options[n] is None]
        if missing:
            raise OptionError(f"{self.name} needs {' and '.join(missing)}", fix=self._see)
        return argparse.Namespace(**options)

    # ----------------------------------------------------------------------- internals

    @property
    def _see(self) -> str:
        return f"See isogon {self.name} --help."

    def _usage(self) -> str:
        words = [
            e.flag if e.place else f"{e.flag} SPEC" for e in self._entries.values() if e.required
        ]
        words += [f"[{e.flag}]" for e in self._entries.values() if e.place and not e.required]
        return " ".join([self.inner.prog, *words, "[options]"])

    def _group(self, title: str) -> argparse._ArgumentGroup:
        """The group of options under a title, made on first use."""
        if title not in self._groups:
            self._groups[title] = self.inner.add_argument_group(title)
        return self._groups[title]

    def _switch(self, group: argparse._ArgumentGroup, *flags: str, help: str) -> None:
        name = flags[-1][2:].replace("-", "_")
        self._entries[name] = _Entry(name, "bool", False, switch=True)
        group.add_argument(*flags, dest=name, action="store_true", help=help.replace("%", "%%"))

    def _add(self, title: str, entry: _Entry, help: str, meta: str) -> None:
        self._entries[entry.name] = entry
        flags = dict.fromkeys([entry.flag, f"--{entry.name}"])  # --max_regions is read too
        text = help.replace("``", "")
        if entry.required:
            text += " (required)"
        elif entry.default not in (None, "", ()):
            text += f" (default: {spelled(entry.default)})"
        group = self._group(title)
        text = text.replace("%", "%%")
        action = group.add_argument(*flags, dest=entry.name, metavar=meta, help=text)
        if _is_flag(entry.code):  # for the help: the words themselves are joined before
            action.metavar = ""
            action.option_strings = [entry.flag, f"--no-{entry.flag[2:]}"]

    def _joined(self, words: Sequence[str]) -> list[str]:
        """Each flag in one word with its value, so that argparse never guesses which is which.

        ``--stratified`` and ``--no-stratified`` get their values here; a value may begin with a
        minus (``--clamp -1,1``), but not look like a flag.
        """
        done: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, _ = word.partition("=")
            entry = self._named(name)
            negated = name.startswith("--no-") and self._named(f"--{name[5:]}")
            if equals or (entry is None and not negated):
                done.append(word)
            elif negated and entry is None and _is_flag(negated.code) and not negated.switch:
                done.append(f"{negated.flag}=false")
            elif entry is None or entry.switch:
                done.append(word)
            elif _is_flag(entry.code):
                said = rest.pop(0) if rest[:1] and rest[0].lower() in ("true", "false") else "true"
                done.append(f"{entry.flag}={said}")
            elif rest and (not rest[0].startswith("-") or rest[0][1:2] in (*"0123456789.,",)):
                done.append(f"{entry.flag}={rest.pop(0)}")
            else:
                done.append(word)
        return done

    def _named(self, flag: str) -> _Entry | None:
        entry = self._entries.get(flag[2:].replace("-", "_")) if flag[:2] == "--" else None
        return None if entry is None or entry.place else entry

    def _value(self, entry: _Entry, word: Any) -> Any:
        """What a typed word means."""
        if entry.switch or entry.place:
            return word
        try:
            return value_of(word, entry.code)
        except Unfit:
            raise self._unfit(entry, word) from None

    def _configured(self, file: str) -> dict[str, Any]:
        """What a configuration file says, by option."""
        path = Path(file)
        if not path.exists():
            raise OptionError(
                "no such configuration", got=file, expected="a YAML file", fix="Check --config."
            )
        try:
            if (size := storage.regular(path, "configuration").stat().st_size) > MAX_BYTES:
                raise FileError("too large", got=f"{size} bytes", expected=f"at most {MAX_BYTES}")
            said = read_yaml(path.read_bytes(), "configuration")
        except (FileError, OSError) as error:
            raise OptionError(f"--config {file}: {error}") from None
        if said is None:
            return {}
        if not isinstance(said, dict):
            raise OptionError(
                f"--config {file} holds no options",
                got=type(said).__name__,
                expected="a mapping of options to values",
                fix=f"isogon {self.name} ... --print_config writes one.",
            )
        found = {}
        for key, value in said.items():
            entry = self._entries.get(key.replace("-", "_"))
            if entry is None:
                raise self._unknown([f"--{key}"], f" in {file}")
            try:
                found[entry.name] = read_value(value, entry.code)
            except Unfit:
                if value is None and entry.required:
                    continue
                raise self._unfit(entry, value, f" in {file}") from None
        return found

    def _unfit(self, entry: _Entry, value: Any, where: str = "") -> OptionError:
        return OptionError(
            f"wrong value for {entry.flag}{where}",
            got=repr(value)[:200],
            expected=types.shown(entry.code),
            fix=self._see,
        )

    def _incomplete(self, error: argparse.ArgumentError) -> OptionError:
        flag = (error.argument_name or "an option").split("/")[-1]
        entry = self._named(flag)
        if entry is None or entry.switch:  # the one thing that can be wrong with a switch
            return OptionError(f"{flag} takes no value", fix=self._see)
        expected = self.values.get(entry.flag)
        return OptionError(f"{entry.flag} needs a value", expected=expected, fix=self._see)

    def _unknown(self, rest: Sequence[str], where: str = "") -> OptionError:
        options = [e.flag for e in self._entries.values() if not e.place]
        got = next((w for w in rest if w.startswith("-")), rest[0]).split("=")[0]
        close = nearest(got, options, 1)
        return OptionError(
            f"{self.name} has no such {'option' if got.startswith('-') else 'argument'}{where}",
            got=got,
            expected=", ".join(o for o in options if o != "--traceback"),
            fix=f"Did you mean {close[0]}?" if close else self._see,
        )


def derived(declaration: Declaration, *, out: str | None, title: str = "") -> Parser:
    """The parser of a measure or experiment."""
    title = title or declaration.command
    body = sections(declaration.doc).get("", declaration.summary)
    parser = Parser(title, body, epilog(declaration, title))
    for wanted in declaration.inputs:
        parser.input(wanted)
    for wanted in declaration.options:
        if wanted.name != "out":
            parser.option(wanted)
    parser.commons(out=out, skip={o.name for o in declaration.options} - {"out"})
    return parser


def epilog(declaration: Declaration, title: str) -> str:
    """Source and an example that runs as it stands, for the end of a help text."""
    from isogon.survey.pages import bibliography

    lines = ["example:", f"  {example(declaration, title)}"]
    sources = [bibliography.line(key) for key in declaration.cite]
    if sources:
        lines += ["", "source:" if len(sources) == 1 else "sources:", *(f"  {s}" for s in sources)]
    return "\n".join(lines)


def example(declaration: Declaration, title: str) -> str:
    """A command on embedded data: required inputs as their nouns type them, or as the measure does.

    What else a measure types is in its registration: ``@measure(typed={"radius": 0.05})``.
    """
    typed: dict[str, Any] = dict(declaration.extra.get("typed", {}))
    words = ["isogon", title]
    for wanted in declaration.inputs:
        if wanted.required or wanted.name in typed:
            value = typed.pop(wanted.name, catalogue.noun(wanted.noun).get("typed", "SPEC"))
            words += [f"--{wanted.name.replace('_', '-')}", f'"{value}"']
    for name, value in typed.items():
        words += [f"--{name.replace('_', '-')}", spelled(value)]
    return " ".join(words)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
