"""Configuration of the documentation: `make docs`, warnings are errors."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]
# Examples train small models: keep them with the build, never in the user's cache.
os.environ.setdefault("ISOGON_CACHE", str(HERE / "_build" / "cache"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# Where a cluster's tools are installed, lightning-fabric remarks on it in every example.
warnings.filterwarnings("ignore", message=".*srun.*")

import isogon  # noqa: E402

project = "isogon"
author = copyright = "The isogon developers"
release = version = isogon.__version__

extensions = ["myst_parser", "sphinx_gallery.gen_gallery", "registry_pages"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext", "**/*.ipynb", "gallery/**/*.py", "sg_execution_times.rst"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = False

html_theme = "furo"
html_title = f"isogon {release}"
html_static_path = ["_static"]
html_css_files = ["isogon.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ee", "color-brand-content": "#8ab8ee"},
}
html_copy_source = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "image_scrapers": ("gallery_figures.scrape",),
    "capture_repr": (),
    "ignore_pattern": r"extending|readme_pictures",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}
