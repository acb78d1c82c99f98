"""Figures: every reading can be drawn, in one style.

A measure with a figure of its own registers it with ``@draws("name")``, in a module of this
package or of another; any other reading is drawn by what its rows are.
"""

from __future__ import annotations

from isogon import lazy

__getattr__ = lazy.lazy_names(__name__, {"draw": "isogon.show.figure"})
