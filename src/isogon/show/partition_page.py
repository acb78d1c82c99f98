"""A partition as one HTML file that opens offline: pan, zoom, and hover over its regions."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex

from isogon.measures.partition.decisions import class_areas, decisions
from isogon.measures.partition.reading import Partition
from isogon.registry import register
from isogon.show import style
from isogon.show.areas import alone_in, only_class
from isogon.show.class_places import partition_places
from isogon.show.partition import slope_norms, varies

FOLDER = Path(__file__).parent / "page"
UNFINISHED = 65535  # the label of a region that was not cut to the end
LAYERS = 64  # that the hover tells apart


@register("page", "partition")
def partition_page(p: Partition, title: str | None = None, names: list[str] | None = None) -> str:
    """The page of a partition: its regions drawn by WebGL, with everything inside.

    Colour by class (exact, also inside regions that the boundary crosses), slope, area or chance;
    edges layer by layer; the boundary; under the pointer the region, its area, class, slope and the
    layers of its edges. Positions are float32 on the slice's extent: sharp up to a zoom of 1e5.

    Args:
        p: A partition.
        title: Shown on top.
        names: Of the classes.
    """
    single = p.outputs.shape[1] == 1
    known = names or (["output < 0", "output > 0"] if single else [])
    faces = decisions(p)
    middle, unit, extent = _frame(p)
    layers, edges, sites = _layers(p)
    arrays = {
        "point": ((faces.vertices - middle) / unit).astype(np.float32),
        "size": np.diff(faces.offsets).astype(np.uint16),
        "loop": faces.loops.astype(np.uint32),
        "region": faces.region.astype(np.uint32),
        "label": np.where(faces.label < 0, UNFINISHED, faces.label % UNFINISHED).astype(np.uint16),
        "area": p.area.astype(np.float32),
        "slope": slope_norms(p).astype(np.float32),
        "layers": sites,
        "edge": edges.astype(np.uint32),
        "boundary": ((p.boundary - middle) / unit).astype(np.float32),
    }
    data, placed = _packed(arrays)
    long = np.linalg.norm(np.diff(p.vertices[p.edges], axis=1)[:, 0], axis=1) / unit
    piece = np.linalg.norm(np.diff(p.boundary, axis=1)[:, 0], axis=1) / unit
    facts = {
        "arrays": placed,
        "middle": middle.tolist(),
        "unit": unit,
        "extent": extent.tolist(),
        "area": p.plane.area,
        "edge": float(np.median(long)) if len(long) else 1.0,
        "segment": float(np.median(piece)) if len(piece) else 1.0,
        "layers": layers,
        "names": known,
        "classes": _classes(p, known),
        "labels": [
            ((x - middle[0]) / unit, (y - middle[1]) / unit, r / unit, _name(k, known))
            for x, y, r, k in partition_places(p)
        ],
        "marks": ((p.plane.marks - middle) / unit).tolist(),
        "ramp": [to_hex(style.SEQUENTIAL(t)) for t in np.linspace(0, 1, 6)],
        "cycle": list(style.CYCLE[:2] if single else style.CYCLE),
        "mode": _mode(p, faces.label),
    }
    left = int((~p.finished).sum())
    text = f"{len(p):,} region" + "s" * (len(p) != 1)
    text += f", {left:,} of them not cut to the end" if left else ""
    alone = only_class(p)
    if alone is not None and not left:
        said = alone_in(p, alone, names)
        text += f": {said[:1].lower()}{said[1:]}"
    if p.certificate is not None:
        text += f"; {p.certificate.verdict}"
    return _filled(
        title=title or "Partition",
        summary=text,
        alt=f"Map of {len(p):,} linear regions",
        boundary="zero set" if single else "boundary",
        facts=Markup(json.dumps(facts).replace("<", "\\u003c")),
        data=Markup(data),
    )


def _filled(**content: Any) -> str:
    """The page, with a policy under which nothing but its own script runs or loads."""
    js = (FOLDER / "partition.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("partition.html").render(
        policy=Markup(
            "default-src 'none'; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        ),
        css=Markup((FOLDER / "partition.css").read_text("utf-8")),
        js=Markup(js),
        **content,
    )


def _packed(arrays: dict[str, np.ndarray]) -> tuple[str, list[tuple[str, str, int, int]]]:
    """All arrays in one compressed text, and where each of them begins."""
    parts, placed, at = [], [], 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        placed.append((name, array.dtype.str[1:], at, array.size))
        raw += b"\0" * (-len(raw) % 4)  # a view needs an even start
        parts.append(raw)
        at += len(raw)
    return base64.b64encode(zlib.compress(b"".join(parts), 6)).decode(), placed


def _frame(p: Partition) -> tuple[np.ndarray, float, np.ndarray]:
    """Middle of the slice, the length that becomes 1, and the extent in that unit."""
    low, high = p.plane.corners.min(0), p.plane.corners.max(0)
    unit = float((high - low).max()) / 2
    return (low + high) / 2, unit, (high - low) / unit


def _layers(p: Partition) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """The layers with their edges, the edges in their order, and which layers bound a region."""
    order = np.argsort(p.edge_site, kind="stable")
    site = p.edge_site[order]
    first = np.searchsorted(site, np.arange(len(p.sites) + 1))
    colors = style.layers(len(p.sites))
    layers = [
        {
            "name": name,
            "first": int(first[k]),
            "count": int(first[k + 1] - first[k]),
            "color": to_hex(colors[k]),
        }
        for k, name in enumerate(p.sites)
    ]
    mask = np.zeros((len(p), LAYERS // 32), np.uint32)
    own = p.edge_site[p.face_edges]
    face = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))
    for k in range(min(len(p.sites), LAYERS)):
        mask[face[own == k], k // 32] |= np.uint32(1 << (k % 32))
    return layers, p.edges[order], mask


def _mode(p: Partition, labels: np.ndarray) -> str:
    """What colours say at first: slopes where there is one class, areas where these are equal."""
    if len(np.unique(labels)) > 1 or not p.complete:
        return "class"
    return "slope" if varies(slope_norms(p)) else "area"


def _classes(p: Partition, names: list[str]) -> list[tuple[int, str, str]]:
    """Classes with their share of the slice, largest first."""
    area = class_areas(p) | {-1: float(p.area[~p.finished].sum())}
    found = []
    for k in sorted(area, key=lambda k: -area[k]):
        if area[k] > 0:
            said = "not cut to the end" if k < 0 else _name(k, names)
            found.append((k, said, f"{100 * area[k] / p.area.sum():.3g} %"))
    return found


def _name(label: int, names: list[str]) -> str:
    return names[label] if label < len(names) else f"class {label}"
