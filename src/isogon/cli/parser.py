"""Parsers of subcommands, derived from declarations; mistakes become one line with the fix."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from isogon import storage
from isogon.errors import IsogonError, OptionError, nearest
from isogon.storage.yaml_text import MAX_BYTES, parsed_yaml
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.declare import Declaration, Input, Option, sections
from isogon.survey.declaring.job import spelled


def _loaded(text: str) -> Any:
    """A configuration, or an option's value, as jsonargparse reads it, within limits."""
    return parsed_yaml(text, "configuration", jsonargparse.get_loader("yaml"))


jsonargparse.set_loader("isogon", _loaded, exceptions=(yaml.YAMLError,))


class Parser:
    """A subcommand's options: a thin layer over jsonargparse that speaks in one line.

    Args:
        name: The subcommand.
        description: Shown above the options in its help.
        epilog: Shown below them.
    """

    def __init__(self, name: str, description: str = "", epilog: str = "") -> None:
        self.name = name
        self.inner = jsonargparse.ArgumentParser(
            prog=f"isogon {name}",
            description=description,
            epilog=epilog,
            exit_on_error=False,
            formatter_class=_Formatter,
            add_help=False,
            parser_mode="isogon",
        )
        self.values: dict[str, str] = {}  # flag -> what may stand behind it, for messages
        self._codes: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}

    def group(self, title: str) -> Any:
        """The group of options under a title, made on first use."""
        if title not in self._groups:
            self._groups[title] = self.inner.add_argument_group(title)
        return self._groups[title]

    def positional(self, name: str, help: str, *, optional: bool = False) -> None:
        """A word without a dash."""
        extra = {"nargs": "?", "default": None} if optional else {}
        self.group("inputs").add_argument(name, type=str, help=help, **extra)

    def input(self, wanted: Input) -> None:
        """An input: a spec behind an option."""
        hint = catalogue.noun(wanted.noun).get("help", f"spec of a {wanted.noun}")
        text = f"{wanted.help.rstrip('.')}: {hint}" if wanted.help else hint
        self._add("inputs", wanted.name, "str", None, wanted.required, text)

    def option(self, wanted: Option, title: str = "options") -> None:
        """A typed option."""
        self._add(title, wanted.name, wanted.type, wanted.default, wanted.required, wanted.help)

    def commons(self, *, out: str | None, skip: Container[str] = ()) -> None:
        """The options that every command has; those in ``skip`` it has in a form of its own."""
        # On the parser itself: jsonargparse adds --print_config only there.
        group: Any = self.inner
        common = group._action_groups.pop(1)
        common.title = "output and surroundings"
        group._action_groups.append(common)
        if "seed" not in skip:
            text = "seed of what the measure draws at random"
            self._add("options", "seed", "int", 0, False, text)
        group.add_argument("--config", action="config", help="options from a YAML file")
        group.add_argument(
            "--out",
            type=str if out else str | None,
            metavar="DIR",
            default=out,
            help="folder of results",
        )
        if "batch_size" not in skip:
            self._codes["batch_size"] = ["union", "int", "none"]
            group.add_argument(
                "--batch-size", type=int | None, metavar="N", default=None, help="samples at once"
            )
        group.add_argument(
            "--data-root", type=str | None, metavar="DIR", default=None, help="folder of data sets"
        )
        if "device" not in skip:
            text = "cpu, cuda, cuda:1, mps, auto"
            group.add_argument("--device", type=str, default="cpu", help=text)
        group.add_argument("--download", action="store_true", help="download missing data sets")
        if "device" not in skip:
            text = "measure models without examining them first"
            group.add_argument("--no-check", action="store_true", help=text)
        if "again" not in skip:
            group.add_argument("--again", action="store_true", help="compute what is there already")
        group.add_argument("-q", "--quiet", action="store_true", help="no progress, no notes")
        group.add_argument("--traceback", action="store_true", help="show where an error arose")
        group.add_argument("-h", "--help", action="help", help="show this text")

    def flag(self, name: str, help: str, title: str = "options") -> None:
        """A switch that is off by default."""
        self.group(title).add_argument(f"--{name}", action="store_true", help=help)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words behind the subcommand.

        Raises:
            OptionError: One line that says what was got, what is expected and what to do.
        """
        self._check_configs(words)
        try:
            return self.inner.parse_args(self._bracketed(words))
        except argparse.ArgumentError as error:
            raise self._explained(str(error), words) from None
        except IsogonError:
            raise
        except Exception as error:  # what its readers of configurations let through
            raise OptionError(
                f"{self.name}: options that can't be read ({type(error).__name__})",
                got=" ".join(str(error).split())[:200],
                fix=f"See isogon {self.name} --help.",
            ) from error

    def _check_configs(self, words: Sequence[str]) -> None:
        """Refuse configuration files that are none, before they are read."""
        for word, following in zip(words, [*words[1:], ""]):
            flag, equals, value = word.partition("=")
            path = Path(value if equals else following)
            if flag != "--config" or (equals and not value) or not path.exists():
                continue
            size = storage.regular(path, "configuration").stat().st_size
            if size > MAX_BYTES:
                raise OptionError(
                    "configuration too large", got=f"{size} bytes", expected=f"at most {MAX_BYTES}"
                )

    # ----------------------------------------------------------------------- internals

    def _add(self, title: str, name: str, code: Any, default: Any, required: bool, help: str):
        dest, flag = name, f"--{name.replace('_', '-')}"
        self._codes[dest] = code
        extra: dict[str, Any] = {"required": True} if required else {"default": default}
        kind = str | None if code == "str" and default is None else types.decode(code)
        metavar = None
        if title == "inputs":
            metavar = "SPEC"
        elif types.is_tuple(code):
            metavar = "A,B,..."
        else:
            metavar = _metavar(code)
        flags = dict.fromkeys([flag, f"--{name}"])
        self.group(title).add_argument(
            *flags, dest=dest, type=kind, help=_escaped(help), metavar=metavar, **extra
        )

    def _bracketed(self, words: Sequence[str]) -> list[str]:
        """Let lists be typed as ``a,b`` too, not only as ``[a,b]``."""
        done: list[str] = []
        for word in words:
            flag, equals, value = word.partition("=")
            if equals and self._is_list(flag):
                done.append(f"{flag}={_listed(value)}")
            elif done and self._is_list(done[-1]):
                done.append(_listed(word))
            else:
                done.append(word)
        return done

    def _is_list(self, flag: str) -> bool:
        code = self._codes.get(flag[2:].replace("-", "_")) if flag.startswith("--") else None
        return code is not None and types.is_tuple(code)

    def _explained(self, text: str, words: Sequence[str]) -> OptionError:
        fix = f"See isogon {self.name} --help."
        if "unrecognized arguments:" in text.lower() or "is not a valid option" in text:
            options = [s for a in self.inner._actions for s in a.option_strings if s[:2] == "--"]
            options = [o for o in options if "_" not in o or o == "--print_config"]
            rest = text.split(":", 1)[1].split()
            got = next((w for w in rest if w.startswith("-")), rest[0]).split("=")[0]
            close = nearest(got, options, 1)
            what = "option" if got.startswith("-") else "argument"
            return OptionError(
                f"{self.name} has no such {what}",
                got=got,
                expected=", ".join(o for o in options if o not in ("--help", "--traceback")),
                fix=f"Did you mean {close[0]}?" if close else fix,
            )
        if "are required:" in text:
            missing = [m.strip() for m in text.rsplit(":", 1)[1].split(",")]
            flags = [
                m.upper() if self._positional(m) else f"--{m.replace('_', '-')}" for m in missing
            ]
            return OptionError(f"{self.name} needs {' and '.join(flags)}", fix=fix)
        if text.startswith("Parser key"):
            key = text.split('"')[1]
            code = self._codes.get(key)
            expected = types.shown(code) if code is not None else None
            return OptionError(
                f"wrong value for --{key.replace('_', '-')}",
                got=_value_in(text) if expected else text.split(":", 1)[1],
                expected=expected,
                fix=fix,
            )
        if text.startswith("argument ") and "expected one argument" in text:
            flag = text.split()[1].rstrip(":").split("/")[0]
            return OptionError(f"{flag} needs a value", expected=self.values.get(flag), fix=fix)
        return OptionError(f"{self.name}: {text}", fix=fix)

    def _positional(self, name: str) -> bool:
        return any(a.dest == name and not a.option_strings for a in self.inner._actions)


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
    """Source and examples, for the end of a help text."""
    from isogon.survey.pages import bibliography

    example = ["isogon", title]
    for wanted in declaration.inputs:
        if wanted.required:
            example += [
                f"--{wanted.name.replace('_', '-')}",
                f'"{catalogue.noun(wanted.noun).get("typed", "SPEC")}"',
            ]
    lines = ["example:", "  " + " ".join(example)]
    sources = [bibliography.line(key) for key in declaration.cite]
    if sources:
        lines += ["", "source:" if len(sources) == 1 else "sources:", *(f"  {s}" for s in sources)]
    return "\n".join(lines)


def _metavar(code: Any) -> str:
    if isinstance(code, str):
        return {"int": "N", "float": "X", "bool": "{true,false}"}.get(code, "TEXT")
    if code[0] == "literal":
        return "{" + ",".join(map(str, code[1:])) + "}"
    parts = [_metavar(part) for part in code[1:] if part != "none"]
    return "|".join(dict.fromkeys(parts))


class _Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions as they were written; each option once, with its default if it has one."""

    def __init__(self, prog: str, **extra: Any) -> None:
        width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 100))
        super().__init__(prog, max_help_position=28, width=width, **extra)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        flags = action.option_strings
        action.option_strings = [f for f in flags if "_" not in f or f == "--print_config"]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = flags

    def _expand_help(self, action: argparse.Action) -> str:
        text = (action.help or "").replace("%%", "%").replace("``", "")
        if action.required and action.option_strings:
            return f"{text} (required)"
        default = action.default
        if default in (None, False, "", (), argparse.SUPPRESS) or not action.option_strings:
            return f"{text} (default: false)" if default is False and action.nargs != 0 else text
        return f"{text} (default: {spelled(default)})"


def _listed(value: str) -> str:
    """A list as YAML: ``a,f(1,2)`` becomes ``["a","f(1,2)"]``, numbers stay numbers."""
    if value in ("null", "none", "None") or value.lstrip().startswith("["):
        return value
    parts, depth = [""], 0
    for c in value:
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    parts = [p.strip() for p in parts if p.strip()]
    return "[" + ",".join(p if _is_number(p) else json.dumps(p) for p in parts) + "]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false", "null")
    return True


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _value_in(text: str) -> str:
    for mark in ("Given value:", "Got value:"):
        if mark in text:
            lines = text.split(mark)[-1].strip().splitlines()
            return repr(lines[0] if lines else "")
    return " ".join(text.split())
