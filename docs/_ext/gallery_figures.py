"""Pictures of the gallery: the variable ``figure`` of each block, if it is a new Figure.

isogon makes figures without pyplot, so that nothing is left open; sphinx-gallery would look for
them there.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_seen: set[int] = set()
_kept: list[Figure] = []  # an id is reused once its object is gone


def scrape(block, block_vars, gallery_conf):
    """Save the figure that a block made."""
    figure = block_vars["example_globals"].get("figure")
    if not isinstance(figure, Figure) or id(figure) in _seen:
        return ""
    _seen.add(id(figure))
    _kept.append(figure)
    path = next(iter(block_vars["image_path_iterator"]))
    figure.savefig(path, dpi=150)
    return figure_rst([str(path)], gallery_conf["src_dir"])
