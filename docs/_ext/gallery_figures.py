"""Pictures of the gallery: the variables ``figure`` and ``film`` of each block, if they are new.

isogon makes figures without pyplot, so that nothing is left open; sphinx-gallery would look for
them there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_seen: set[int] = set()
_kept: list[Figure | Path] = []  # an id is reused once its object is gone


def scrape(block, block_vars, gallery_conf):
    """Save the figure that a block made, or take over the film that it wrote."""
    found = []
    for name in ("figure", "film"):
        made = block_vars["example_globals"].get(name)
        if not isinstance(made, Figure | Path) or id(made) in _seen:
            continue
        _seen.add(id(made))
        _kept.append(made)
        path = Path(next(iter(block_vars["image_path_iterator"])))
        if isinstance(made, Figure):
            made.savefig(path, dpi=150)
        else:
            path = path.with_suffix(".gif")
            shutil.move(made, path)
        found.append(str(path))
    return figure_rst(found, gallery_conf["src_dir"]) if found else ""
