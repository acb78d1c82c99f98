"""What a notebook shows of a reading: its findings, its figure, its summary."""

from __future__ import annotations

import base64
import html
import io

from isogon.findings import Finding, findings
from isogon.readings import Reading
from isogon.registry import register
from isogon.show.figure import draw

FIRST = 3  # findings
ROWS = 12  # of the summary


@register("embeds", "findings")
def findings_of(reading: Reading) -> list[Finding]:
    """The findings of a reading."""
    return findings(reading)


@register("embeds", "Reading")
def reading_html(reading: Reading) -> str:
    """A reading as HTML: findings, figure, summary; every text of it escaped."""
    parts = [f"<p><b>{html.escape(reading.measure)}</b></p>", sentences(findings(reading)[:FIRST])]
    try:
        buffer = io.BytesIO()
        draw(reading).savefig(buffer, format="png", dpi=110)
        address = base64.b64encode(buffer.getvalue()).decode()
        name = html.escape(f"Figure of {reading.measure}")
        parts.append(f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,')
        parts[-1] += f'{address}">'
    except Exception as error:  # a figure must not cost the numbers
        parts.append(f"<p>No figure: {html.escape(str(error))}</p>")
    frame = reading.summary()
    shown = frame.head(ROWS).to_html(index=False, border=0, na_rep="–", float_format=_cell)
    more = f"<p>{len(frame) - ROWS} more rows</p>" if len(frame) > ROWS else ""
    return "\n".join([*parts, shown, more])


def sentences(found: list[Finding]) -> str:
    """Findings as a list, each with its null or interval."""
    rows = [
        f"<li>{html.escape(f.text)} <small>({html.escape(f.against)})</small></li>" for f in found
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _cell(value: float) -> str:
    return f"{value:.4g}"
