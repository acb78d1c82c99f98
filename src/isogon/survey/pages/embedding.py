"""Figures inside a page: SVG that follows the page from light to dark."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isogon.show import style

SVG_LIMIT = 700_000  # bytes: of larger figures the parts with most pieces are drawn as pixels
MANY = 400  # pieces of such a part
# What stands on the page itself is light where the page is dark; text on data keeps its colour.
DARK = {
    style.INK: "#e4e1d9",
    style.MUTED: "#9aa3ab",
    style.FAINT: "#333a42",
    "#9aa5b1": "#6f7882",
    style.MISSING: "#2a2f35",
    style.BLUE: "#6aa9d8",
    style.ORANGE: "#e39a5b",
    style.GREEN: "#6fbd9b",
    style.RED: "#e07f78",
    style.PURPLE: "#a793cf",
    style.GOLD: "#d9bb58",
}


def embedded(drawn: Figure, salt: str) -> str:
    """A figure as a data URI: SVG, in which parts of very many pieces are pixels."""
    text = _svg(drawn, salt)
    if len(text) > SVG_LIMIT:
        for part in drawn.findobj(Collection):
            if max(len(part.get_paths()), np.size(part.get_offsets()) // 2) > MANY:
                part.set_rasterized(True)
        for line in drawn.findobj(Line2D):
            if np.size(line.get_xdata()) > MANY:
                line.set_rasterized(True)
        text = _svg(drawn, salt)
    if len(text) <= 4 * SVG_LIMIT:
        return data_uri("image/svg+xml", text)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=200, bbox_inches="tight")
    return data_uri("image/png", buffer.getvalue())


def width_of(drawn: Figure) -> float:
    """How wide a figure is, as a share of a page's text block: no text is larger than another's."""
    return min(1.0, float(drawn.get_figwidth()) / style.WIDTH)


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _svg(drawn: Figure, salt: str) -> bytes:
    buffer = io.BytesIO()
    # Outlined text looks the same everywhere; a fixed salt keeps the file the same.
    with mpl.rc_context(  # type: ignore[attr-defined]
        {"svg.fonttype": "path", "svg.hashsalt": salt}
    ):
        drawn.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            dpi=200,
            metadata={"Date": None},
        )
    return buffer.getvalue().replace(b"</svg>", _dark().encode() + b"</svg>")


def _dark() -> str:
    """Rules that an image of a dark page draws by (the page's scheme is the image's)."""
    rules = [
        f'[style*="{what}: {light}"],[{what}="{light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    return f"<style>@media (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
