"""Tables as LaTeX."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isogon.readings import SiteTable
from isogon.readings.files import export
from isogon.readings.latex import latex


def test_what_means_something_to_tex_is_escaped():
    text = latex(pd.DataFrame({"a_b": ["50 % & #1", "{x}^2 ~ \\ $"], "n": [1, 2]}))
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[2] == r"a\_b & n \\"
    assert lines[4] == r"50 \% \& \#1 & 1 \\"
    assert lines[5] == (r"\{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{} \$ & 2 \\")


def test_numbers_and_what_is_missing():
    frame = pd.DataFrame({"x": [1 / 3, np.nan, 1e-9], "ok": [True, False, True], "k": [3, 4, 5]})
    rows = latex(frame).splitlines()[4:7]
    assert rows == [r"0.3333 & True & 3 \\", r"-- & False & 4 \\", r"1e-09 & True & 5 \\"]
    assert latex(frame).startswith(r"\begin{tabular}{rlr}")


def test_a_reading_is_exported(tmp_path):
    reading = SiteTable("stitch", pd.DataFrame({"site": ["relu"], "penalty": [0.25]}))
    text = export(reading, tmp_path / "stitch.tex").read_text(encoding="utf-8")
    assert text == latex(reading.to_frame()) + "\n"
