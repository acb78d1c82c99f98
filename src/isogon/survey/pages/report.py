"""The report: a survey as one self-contained HTML page.

Everything is inside the file (style, script, figures, tables), and a content security policy
forbids the browser to load anything else or to run any script but the page's own. Every text
that comes from a user, a model or a file is escaped by the template engine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from isogon import __version__, context, registry, storage
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Declaration
from isogon.survey.pages import bibliography
from isogon.survey.pages.prose import definition
from isogon.survey.running.certifying import verdict
from isogon.survey.running.record import Record
from isogon.survey.whole.survey import Line, Survey

TEMPLATES = Path(__file__).parent / "templates"
ROWS = 300  # of a table in the page
PAGE_LIMIT = 4_000_000  # characters of an interactive page inside: some 60,000 regions
SVG_LIMIT = 700_000  # bytes: larger figures are embedded as PNG
CSV_LIMIT = 1_500_000


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
    lines = {line.measure: line for line in survey.lines}
    kept = [m for m in lines if m in records]
    absent = [_absent(line, records) for line in survey.lines if line.measure not in records]
    sections = [_section(lines[m], records[m]) for m in kept]
    return page(
        "report.html",
        survey=survey,
        facts=survey.facts,
        lede=_lede(survey),
        figures=_figures(survey, len(kept)),
        architecture=_architecture(survey.facts),
        sections=sections,
        scripts=_scripts(sections),
        absent=absent,
        provenance=_provenance(survey),
    )


def _scripts(sections: list[dict[str, Any]]) -> list[str]:
    """What the policies of the pages inside let run."""
    found = [re.search(r"script-src ('sha256-[\w+/=]+')", s["page"]) for s in sections]
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


def _lede(survey: Survey) -> str:
    f = survey.facts
    shape = " × ".join(map(str, f["shape"]))
    what = f"{f['samples']:,} samples of {survey.batches}"
    kinds = f" in {len(f['classes'])} classes" if f["classes"] else ""
    layers = f"{len(f['layers'])} layers"
    return f"A {f['class']} of {layers}, seen through {what}{kinds}, each of shape {shape}."


def _figures(survey: Survey, count: int) -> list[tuple[str, str, str]]:
    f = survey.facts
    value, unit = compact(f["parameters"])
    found = [("parameters", value, unit)]
    if f.get("accuracy") is not None:
        found.append(("accuracy", f"{100 * f['accuracy']:.1f}", "%"))
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
        ("data", survey.batches),
        ("started", survey.started.replace("T", " ").replace("+00:00", " UTC")),
        ("budget", f"{survey.budget:g} s"),
        ("device", survey.facts["device"]),
    ]
    return found + [(name, version) for name, version in survey.versions.items()]


# --------------------------------------------------------------------------- sections


def _section(line: Line, record: Record) -> dict[str, Any]:
    reading, job = record.reading, record.job
    declaration = catalogue.declaration(job.measure)
    picture, nofigure = _figure(record)
    whole = reading.to_frame()
    small = len(whole) * max(len(whole.columns), 1) < 200_000
    csv = str(whole.to_csv(index=False)) if small else ""
    p = record.provenance
    facts = [
        f"computed in {' '.join(span(p['seconds']))}",
        f"on {p['device']}, {p['threads']} thread{'s' if p['threads'] != 1 else ''}",
        str(p["started"]).replace("T", " ").replace("+00:00", " UTC"),
        "isogon {isogon}, torch {torch}".format(**{"torch": "?", "isogon": "?"} | p["versions"]),
        f"record {record.key[:12]}",
    ]
    if isinstance(shared := p.get("shared_pass"), dict):
        others = " and ".join(map(str, shared.get("with", ())))
        facts.insert(1, f"data read in one pass with {others.replace('_', ' ')}")
    return {
        "id": f"measure-{job.measure}",
        "name": job.measure,
        "title": title(job.measure),
        "summary": declaration.summary,
        "complete": reading.complete,
        "verdict": verdict(reading),
        "figure": picture,
        "nofigure": nofigure,
        "page": _inside(record),
        "caption": reading.meta.get("caption", ""),
        "table": table_cells(reading.summary(), title(job.measure), reading.units),
        "size": f"{len(whole):,} {reading.row}{'' if len(whole) == 1 else 's'}",
        "rows": f"{len(whole):,}",
        "csv": _data_uri("text/csv", csv.encode()) if 0 < len(csv) < CSV_LIMIT else "",
        "definition": Markup(definition(declaration.doc)),
        "works": cited(declaration),
        "command": line.command,
        "time": " ".join(span(p["seconds"])),
        "provenance": facts,
    }


def _absent(line: Line, records: dict[str, Record]) -> dict[str, str]:
    reason = line.reason or "its record was damaged since: run the survey again"
    return {
        "title": title(line.measure),
        "status": line.status if line.reason else "skipped",
        "reason": reason,
        "detail": line.detail,
    }


def _figure(record: Record) -> tuple[str, str]:
    """The figure of a record as a data URI, or nothing and the reason."""
    from isogon.show.figure import draw

    try:
        return embedded(draw(record.reading), record.key), ""
    except Exception as error:  # a figure must not cost the report
        return "", f"{type(error).__name__}: {error}"


def _inside(record: Record) -> str:
    """The interactive page of a reading, where it has one of a modest size."""
    reading = record.reading
    if not registry.has("page", reading.measure):
        return ""
    try:
        text = registry.get("page", reading.measure).build(reading, title=title(reading.measure))
    except Exception:  # the figure is there
        return ""
    return text if len(text) <= PAGE_LIMIT else ""


def embedded(drawn: Figure, salt: str) -> str:
    """A figure as a data URI: SVG, or PNG where that is too large."""
    buffer = io.BytesIO()
    # Outlined text looks the same everywhere; a fixed salt keeps the file the same.
    with mpl.rc_context(  # type: ignore[attr-defined]
        {"svg.fonttype": "path", "svg.hashsalt": salt}
    ):
        drawn.savefig(
            buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None}
        )
    if buffer.tell() <= SVG_LIMIT:
        return _data_uri("image/svg+xml", buffer.getvalue())
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=200, bbox_inches="tight")
    return _data_uri("image/png", buffer.getvalue())


def cited(declaration: Declaration) -> list[dict[str, str]]:
    """The works that define a measure."""
    works = [w for key in declaration.cite if (w := bibliography.work_of(key)) is not None]
    empty = {"title": "", "year": "", "volume": ""}
    return [
        {"authors": w.authors, "venue": w.venue, "url": w.url}
        | empty
        | {k: w.fields[k] for k in empty if k in w.fields}
        for w in works
    ]


def table_cells(frame: pd.DataFrame, label: str, units: dict[str, str]) -> dict[str, Any]:
    """A frame as cells with their text and the value they sort by."""
    frame = frame.loc[:, ~frame.isna().all()] if len(frame) else frame
    numeric = [frame[c].dtype.kind in "iuf" for c in frame.columns]
    columns = [
        {"name": str(c).replace("_", " "), "number": n, "unit": units.get(str(c), "")}
        for c, n in zip(frame.columns, numeric)
    ]
    rows = [
        [_cell(value, number) for value, number in zip(row, numeric)]
        for row in frame.head(ROWS).itertuples(index=False, name=None)
    ]
    cut = len(frame) > ROWS
    return {
        "columns": columns,
        "rows": rows,
        "label": label,
        "cut": cut,
        "total": f"{len(frame):,}",
    }


def _cell(value: Any, number: bool) -> dict[str, Any]:
    if number:
        return {"text": numeral(value), "value": repr(float(value)), "number": True}
    if isinstance(value, float | np.floating):  # among words, e.g. a table of one row per statistic
        return {"text": numeral(value), "value": "", "number": False}
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return {"text": "–" if missing else str(value), "value": "", "number": False}


# --------------------------------------------------------------------------- words


def title(name: str) -> str:
    """A measure's name as a heading."""
    return name.replace("_", " ").capitalize()


def numeral(value: Any) -> str:
    """A number for a table: integers whole, floats to four digits, true minus signs."""
    if pd.isna(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e6:
        text = f"{int(value):,}"
    elif 1e-3 <= abs(value) < 1e6:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{power}"
    return text.replace("-", "−")


def compact(count: int) -> tuple[str, str]:
    """A large count in three digits: 11.7 million."""
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.3g}", unit
    return f"{count:,}", ""


def span(seconds: float) -> tuple[str, str]:
    """A duration in words."""
    if seconds < 1:
        return f"{max(seconds * 1000, 1):.0f}", "ms"
    if seconds < 120:
        return f"{seconds:.1f}", "s"
    return f"{seconds / 60:.1f}", "min"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
