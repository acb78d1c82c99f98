"""The sections of a report: one per measure, with its findings, figures and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from isogon import registry
from isogon.errors import IsogonError
from isogon.findings import Finding, Names, Number, differences, findings, numbers
from isogon.findings.sides import in_unit
from isogon.readings import Reading
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Declaration
from isogon.survey.pages import bibliography
from isogon.survey.pages.embedding import data_uri, embedded, width_of
from isogon.survey.pages.prose import definition
from isogon.survey.pages.tables import span, table_cells, title
from isogon.survey.running.certifying import verdict
from isogon.survey.running.record import Record
from isogon.survey.whole.kept import Line

PAGE_LIMIT = 4_000_000  # characters of an interactive page inside: some 60,000 regions
CSV_LIMIT = 1_500_000


@dataclass(frozen=True)
class Part:
    """One reading of a section: a line of the survey, its record, what its network is called."""

    line: Line
    record: Record
    name: str = ""


def section(parts: Sequence[Part], names: Names | None = None) -> dict[str, Any]:
    """A section as its template takes it.

    Args:
        parts: One reading, or those of the two networks of a comparison.
        names: What the networks are called.
    """
    first = parts[0]
    measure = first.line.measure
    declaration = _declaration(measure)
    pictures = [_figure(part) for part in parts]
    said = found_of(parts, names)
    frames = [
        ("", table_cells(p.record.reading.summary(), title(measure), _units(p))) for p in parts
    ]
    if len(parts) == 2:
        frames = [(p.name, frame) for p, (_, frame) in zip(parts, frames)]
        frames.insert(0, ("Side by side", side_by_side(parts)))
    return {
        "id": f"measure-{measure}",
        "name": measure,
        "title": title(measure),
        "summary": declaration.summary if declaration else "",
        "findings": said,
        "weight": said[0].weight if said else 0.0,
        "complete": all(p.record.reading.complete for p in parts),
        "verdicts": [(p.name, v) for p in parts if (v := verdict(p.record.reading))],
        "figures": pictures,
        "caption": caption(first.record.reading),
        "tables": frames,
        "data": [_data(p) for p in parts],
        "definition": Markup(definition(declaration.doc)) if declaration else "",
        "works": cited(declaration) if declaration else [],
        "commands": [_command(p) for p in parts],
        "time": " ".join(span(sum(p.record.provenance["seconds"] for p in parts))),
    }


def found_of(parts: Sequence[Part], names: Names | None) -> list[Finding]:
    """The findings of a section: of the reading, or what tells two readings apart."""
    try:
        if len(parts) == 2:
            return differences(parts[0].record.reading, parts[1].record.reading, names)
        found = findings(parts[0].record.reading, names or names_of(parts[0].record))
        if parts[0].line.side:  # of a comparison that has no time for the other one
            return [_alone(finding, parts[0].name) for finding in found]
        return found
    except Exception as error:  # of a measure of somebody else, say: the numbers stand
        text = f"No finding could be made ({type(error).__name__}: {error})."
        return [Finding(text, "", "", 0.0, effect=False, measure=parts[0].line.measure)]


def _alone(finding: Finding, name: str) -> Finding:
    """What is said of one of two networks: it compares nothing, so it counts a tenth."""
    text = f"{name[:1].upper()}{name[1:]} alone: {finding.text}"
    return replace(finding, text=text, weight=finding.weight / 10)


def names_of(record: Record) -> Names:
    """What the networks of a survey's measure of two are called."""
    other = record.job.inputs.get("b", "")
    try:
        spec = parse(other)
    except IsogonError:
        return Names("the network", "the other")
    if spec.name == "trained" and spec.kwargs.get("epochs") == 0:
        return Names("the network", "its start")
    return Names("the network", "its twin" if spec.name == "trained" else "the other")


def caption(reading: Reading) -> str:
    """What stands under a figure: the reading's own caption, else what its figure shows."""
    own = str(reading.meta.get("caption", ""))
    if own or not registry.has("draws", reading.measure):
        return own
    doc = registry.get("draws", reading.measure).build.__doc__ or ""
    return " ".join(doc.strip().split("\n\n")[0].split())


def side_by_side(parts: Sequence[Part]) -> dict[str, Any]:
    """The headline numbers of two readings beside each other."""
    mine, theirs = (_numbers(p.record.reading) for p in parts)
    rows = [
        {
            "": n.name,
            **{
                part.name: in_unit(own[n.name].value, n.unit) if n.name in own else "–"
                for part, own in zip(parts, (mine, theirs), strict=True)
            },
        }
        for n in (theirs | mine).values()
    ]
    return table_cells(pd.DataFrame(rows), "Side by side", {})


def _numbers(reading: Reading) -> dict[str, Number]:
    try:
        return {n.name: n for n in numbers(reading)}
    except Exception:  # see `found_of`
        return {}


def _declaration(name: str) -> Declaration | None:
    try:
        return catalogue.declaration(name)
    except IsogonError:  # made by a package that is not installed any more
        return None


def _units(part: Part) -> Mapping[str, str]:
    return part.record.reading.units


def _figure(part: Part) -> dict[str, Any]:
    """The figure of a record as a data URI, or the reason why there is none."""
    from isogon.show.figure import draw

    found: dict[str, Any] = {"name": part.name, "page": _inside(part), "src": "", "why": ""}
    try:
        drawn = draw(part.record.reading)
        found["width"] = f"{width_of(drawn):.3f}"
        found["src"] = embedded(drawn, part.record.key)
    except Exception as error:  # a figure must not cost the report
        found["why"] = f"{type(error).__name__}: {error}"
    return found


def _inside(part: Part) -> str:
    """The interactive page of a reading, where it has one of a modest size."""
    reading = part.record.reading
    if not registry.has("page", reading.measure):
        return ""
    try:
        text = registry.get("page", reading.measure).build(reading, title=title(reading.measure))
    except Exception:  # the figure is there
        return ""
    return text if len(text) <= PAGE_LIMIT else ""


def _data(part: Part) -> dict[str, str]:
    """How long the table is, and the whole of it as CSV."""
    reading = part.record.reading
    whole = reading.to_frame()
    small = len(whole) * max(len(whole.columns), 1) < 200_000
    csv = str(whole.to_csv(index=False)) if small else ""
    side = f"-{part.line.side}" if part.line.side else ""
    return {
        "name": part.name,
        "file": f"{part.line.measure}{side}.csv",
        "size": f"{len(whole):,} {reading.row}{'' if len(whole) == 1 else 's'}",
        "rows": f"{len(whole):,}",
        "csv": data_uri("text/csv", csv.encode()) if 0 < len(csv) < CSV_LIMIT else "",
    }


def _command(part: Part) -> dict[str, Any]:
    """The command that computes a reading again, and how it was computed."""
    p = part.record.provenance
    facts = [
        f"computed in {' '.join(span(p['seconds']))}",
        f"on {p['device']}, {p['threads']} thread{'s' if p['threads'] != 1 else ''}",
        str(p["started"]).replace("T", " ").replace("+00:00", " UTC"),
        "isogon {isogon}, torch {torch}".format(**{"torch": "?", "isogon": "?"} | p["versions"]),
        f"record {part.record.key[:12]}",
    ]
    if isinstance(shared := p.get("shared_pass"), dict):
        others = " and ".join(map(str, shared.get("with", ())))
        facts.insert(1, f"data read in one pass with {others.replace('_', ' ')}")
    objects = any("given(" in spec for spec in part.record.job.inputs.values())
    return {"text": "" if objects else part.line.command, "facts": facts, "name": part.name}


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
