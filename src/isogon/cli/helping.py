"""How help texts are set: descriptions as written, each option once."""

from __future__ import annotations

import argparse
import shutil
from typing import Any


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they were written; each option once, by the spelling with dashes."""

    def __init__(self, prog: str, **extra: Any) -> None:
        width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 100))
        super().__init__(prog, max_help_position=28, width=width, **extra)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        flags = action.option_strings
        action.option_strings = [f for f in flags if "_" not in f or f == "--print_config"]
        if "--print_config" in flags:
            action.option_strings = ["--print_config"]
        try:
            if action.metavar == "" and action.option_strings:
                return ", ".join(action.option_strings)
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = flags


def metavar(code: Any) -> str:
    """What stands for a value of an encoded type."""
    if isinstance(code, str):
        return {"int": "N", "float": "X", "bool": "", "none": "null"}.get(code, "TEXT")
    if code[0] == "literal":
        return "{" + ",".join(map(str, code[1:])) + "}"
    if code[0] == "tuple":
        return "A,B,..." if code[-1] == "..." else ",".join(metavar(c) for c in code[1:])
    parts = [metavar(part) for part in code[1:] if part != "none"]
    return "|".join(dict.fromkeys(p for p in parts if p)) or "{true,false}"
