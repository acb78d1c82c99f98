"""The report: a survey, or a comparison of two networks, as one self-contained HTML page.

Everything is inside the file (style, script, figures, tables), and a content security policy
forbids the browser to load anything else or to run any script but the page's own. Every text
that comes from a user, a model or a file is escaped by the template engine.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from isogon import __version__, context, storage
from isogon.findings import Finding, Names, ordered
from isogon.findings.accuracy import HERE, differs_accuracy, finds_accuracy
from isogon.survey.pages.embedding import embedded
from isogon.survey.pages.layers import layer_map
from isogon.survey.pages.naming import called
from isogon.survey.pages.sections import Part, cited, section
from isogon.survey.pages.tables import compact, numeral, span, table_cells, title
from isogon.survey.whole.kept import Line, Survey

__all__ = [
    "cited",
    "embedded",
    "numeral",
    "overview",
    "page",
    "render",
    "span",
    "table_cells",
    "title",
    "write",
]

TEMPLATES = Path(__file__).parent / "templates"


def write(survey: Survey) -> Path:
    """Write ``report.html`` into the survey's folder.

    Returns:
        Path of the page.
    """
    assert survey.directory is not None
    path = survey.directory / "report.html"
    with context.from_file(survey.directory):  # the folder may not make us run what it names
        text = render(survey)
    with storage.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(survey: Survey) -> str:
    """The page as text."""
    records = survey.records()
    names = called(survey)
    absent = [_absent(line) for line in survey.lines if line.key not in records]
    by_measure: dict[str, list[Part]] = {}
    for line in survey.lines:
        if line.key in records:
            name = getattr(names, line.side) if names and line.side else ""
            part = Part(line, records[line.key], name)
            by_measure.setdefault(line.measure, []).append(part)
    sections = [section(parts, names) for parts in by_measure.values()]
    sections.sort(key=lambda s: -s["weight"])  # by what was found; a stable sort keeps the rest
    found = overview(survey, names)
    for s in sections:
        found += s["findings"]
    return page(
        "report.html",
        _scripts(sections),
        survey=survey,
        names=names,
        heading=f"{names.a} and {names.b}" if names else survey.model,
        findings=[screened(f, sections) for f in ordered(found)],
        facts=survey.facts,
        lede=_lede(survey, names),
        figures=_figures(survey, len(records), names),
        architecture=_architecture(survey.facts),
        layers=layer_map(
            survey.facts["layers"],
            {} if names else {m: parts[0].record.reading for m, parts in by_measure.items()},
        ),
        sections=sections,
        absent=absent,
        provenance=_provenance(survey),
    )


def overview(survey: Survey, names: Names | None) -> list[Finding]:
    """What is found of the samples themselves."""
    f = survey.facts
    if names:
        return differs_accuracy(survey.agreement, names)
    if f.get("accuracy") is None:
        return []
    return finds_accuracy(f["accuracy"], f["samples"], len(f["classes"]))


def screened(found: Finding, sections: list[dict[str, Any]]) -> dict[str, Any]:
    """A finding of the first screen: where it leads, and whose figure stands beside it."""
    home = next((s for s in sections if s["name"] == found.measure), None)
    pictured = home is not None and any(f["src"] for f in home["figures"])
    return {
        "text": found.text,
        "value": found.value,
        "against": found.against,
        "quiet": found.quiet,
        "href": home["id"] if home else HERE,
        "title": home["title"] if home else "Samples",
        "figure": home["id"] if home and pictured else "",
    }


def _scripts(sections: list[dict[str, Any]]) -> list[str]:
    """What the policies of the pages inside let run."""
    pages = (f["page"] for s in sections for f in s["figures"])
    found = [re.search(r"script-src ('sha256-[\w+/=]+')", text) for text in pages]
    return sorted({match[1] for match in found if match})


def page(template: str, scripts: Iterable[str] = (), **content: Any) -> str:
    """A template filled in, with style, script and a policy that allows nothing else.

    Args:
        template: Its name.
        scripts: Hashes of the scripts of pages inside, as a policy spells them.
        **content: Of the template.
    """
    css = (TEMPLATES / "report.css").read_text("utf-8")
    js = (TEMPLATES / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        version=__version__,
        # the pages inside sit in frames without an address, under this policy and their own
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join([repr(f'sha256-{digest}'), *scripts])}; "
        "base-uri 'none'; form-action 'none'",
        css=Markup(css),
        js=Markup(js),
        **content,
    )


# --------------------------------------------------------------------------- the top


def _lede(survey: Survey, names: Names | None) -> str:
    f = survey.facts
    shape = " × ".join(map(str, f["shape"]))
    what = f"{f['samples']:,} samples of {survey.batches}"
    kinds = f" in {len(f['classes'])} classes" if f["classes"] else ""
    layers = f"{len(f['layers'])} layers"
    if names:
        other = survey.other_facts
        same = [x["type"] for x in f["layers"]] == [x["type"] for x in other["layers"]]
        two = f"Two networks of {layers}" if same else f"A {f['class']} and a {other['class']}"
        return f"{two}, on the same {what}{kinds}, each of shape {shape}."
    return f"A {f['class']} of {layers}, seen through {what}{kinds}, each of shape {shape}."


def _figures(survey: Survey, count: int, names: Names | None) -> list[tuple[str, str, str]]:
    f = survey.facts
    found = []
    for facts, name in ((f, names and names.a), (survey.other_facts, names and names.b)):
        if not facts:
            continue
        of = f" of {name}" if name else ""
        if not found or facts["parameters"] != f["parameters"]:
            found.append(
                (f"parameters{'' if facts is f and not of else of}", *compact(facts["parameters"]))
            )
        if facts.get("accuracy") is not None:
            found.append((f"accuracy{of}", f"{100 * facts['accuracy']:.1f}", "%"))
    found.append(("samples", f"{f['samples']:,}", ""))
    if f["classes"]:
        found.append(("classes", str(len(f["classes"])), ""))
    found.append(("measures", str(count), f"of {len(survey.lines)}"))
    spent = sum(line.seconds for line in survey.lines)
    found.append(("measured in", *span(spent)))
    return found


def _architecture(facts: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            **layer,
            "output": " × ".join(map(str, layer["shape"])) if layer["shape"] else "",
            "parameters": f"{layer['parameters']:,}" if layer["parameters"] else "",
        }
        for layer in facts["layers"]
    ]
    weighted = sum(1 for layer in facts["layers"] if layer["parameters"])
    text = (
        f"{len(rows)} layers, {weighted} of them with weights; {facts['parameters']:,} parameters"
        f" in {facts['dtype']}"
        + (f" and {facts['buffers']:,} numbers in buffers." if facts["buffers"] else ".")
    )
    return {"rows": rows, "text": text}


def _provenance(survey: Survey) -> list[tuple[str, str]]:
    found = [
        ("model", survey.model),
        *([("second model", survey.other)] if survey.other else []),
        ("data", survey.batches),
        ("started", survey.started.replace("T", " ").replace("+00:00", " UTC")),
        ("budget", f"{survey.budget:g} s"),
        ("device", survey.facts["device"]),
    ]
    return found + [(name, version) for name, version in survey.versions.items()]


# --------------------------------------------------------------------------- sections


# --------------------------------------------------------------------------- what is missing


def _absent(line: Line) -> dict[str, str]:
    reason = line.reason or "its record was damaged since: run the survey again"
    return {
        "title": title(line.measure) + (f" ({line.side})" if line.side else ""),
        "status": line.status if line.reason else "skipped",
        "reason": reason,
        "detail": line.detail,
    }
