"""What a notebook shows of a survey: its findings, and where its page is."""

from __future__ import annotations

import html

from isogon.findings import ordered
from isogon.registry import register
from isogon.show.notebook import sentences
from isogon.survey.pages.naming import called
from isogon.survey.pages.report import overview
from isogon.survey.pages.sections import Part, found_of
from isogon.survey.whole.kept import Survey


@register("embeds", "Survey")
def survey_html(survey: Survey) -> str:
    """A survey as HTML: the findings of its first screen, and what was left out."""
    names, records = called(survey), survey.records()
    by_measure: dict[str, list[Part]] = {}
    for line in survey.lines:
        if line.key in records:
            by_measure.setdefault(line.measure, []).append(Part(line, records[line.key]))
    found = overview(survey, names)
    for parts in by_measure.values():
        found += found_of(parts, names)
    what = f"{survey.model} and {survey.other}" if survey.other else survey.model
    left = [line for line in survey.lines if line.key not in records]
    rows = [
        f"<p><b>{html.escape(what)}</b> on {html.escape(survey.batches)}</p>",
        sentences(ordered(found)),
    ]
    if left:
        said = ", ".join(dict.fromkeys(line.measure for line in left))
        rows.append(f"<p><small>Not measured: {html.escape(said)}.</small></p>")
    if survey.page is not None:
        address = html.escape(survey.page.resolve().as_uri(), quote=True)
        rows.append(
            f'<p><a href="{address}" target="_blank">{html.escape(str(survey.page))}</a></p>'
        )
    return "\n".join(rows)
