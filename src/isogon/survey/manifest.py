"""Write the manifest of everything built in: ``python -m isogon.survey.manifest``."""

from __future__ import annotations

import json
import sys
from typing import Any

from isogon import registry
from isogon.survey import catalogue
from isogon.survey.declare import declare


def generate() -> dict[str, Any]:
    """The manifest as data, from the live registry (entry points left out)."""
    found: dict[str, Any] = {}
    for kind in catalogue.LISTED:
        registry.names(kind)  # imports the built-in modules of the kind
        found[kind] = {}
        for name, entry in sorted(registry.known(kind).items()):
            module = getattr(entry.build, "__module__", "") or ""
            if module.split(".")[0] != "isogon":
                continue
            if kind in catalogue.DECLARED:
                found[kind][name] = declare(entry).to_json()
            else:
                found[kind][name] = {
                    "call": registry.signature(entry),
                    "summary": entry.summary,
                    "module": module,
                }
    return json.loads(json.dumps(found))


def render(data: dict[str, Any]) -> str:
    """One line per entry, so that two changes to it seldom meet in one line."""
    kinds = []
    for kind, entries in data.items():
        lines = [f"  {json.dumps(n)}: {json.dumps(e, sort_keys=True)}" for n, e in entries.items()]
        kinds.append(f" {json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def main() -> int:
    """Write ``manifest.json`` beside the package; 1 where it was out of date."""
    text = render(generate())
    current = catalogue.MANIFEST.read_text("utf-8") if catalogue.MANIFEST.is_file() else ""
    if text == current:
        return 0
    catalogue.MANIFEST.write_text(text, encoding="utf-8")
    sys.stderr.write(f"wrote {catalogue.MANIFEST}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
