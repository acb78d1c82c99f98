"""The gallery's examples about partitions run, at a tiny scale, and draw what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALLER = {
    "plot_partition": [(r"mlp\(24\)", "mlp(6)"), ("epochs=15", "epochs=1"), ("10_000", "200")],
    "plot_signed_distance": [(r"STEPS = \d+", "STEPS = 60")],
    "plot_siren": [(r"range\(600\)", "range(40)"), ("width=48", "width=8"), ("800", "200")],
    "plot_residual": [(r"context\.data_root\(\)", "Path('nowhere')"), ("1500", "400"),
                      ("epochs=10", "epochs=5"),
                      ("import torch\n", "import torch\nfrom pathlib import Path\n")],
    "plot_onnx": [(r"range\(3\)", "range(1)"), ("24", "6"), ("2_000", "200"),
                  (r"context\.data_root\(\)", "Path('nowhere')")],
    "plot_evolution": [(r"EPOCHS = \d+", "EPOCHS = 4"), (r"mlp\(32\)", "mlp(5)"),
                       (r"moments = \(.*", "moments = (0.0, 0.5, 1.0)")],
    "plot_segments": [("cnn, digits, epochs=5", "cnn(width=2), digits(train, 60), epochs=1")],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALLER)
def test_it_runs(name, capsys):
    if name == "plot_onnx":
        pytest.importorskip("onnx")
    path = EXAMPLES / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60, "an example is short"
    for pattern, small in SMALLER[name]:
        text, count = re.subn(pattern, small, text)
        assert count, f"{name} has no {pattern}"
    scope: dict = {"__name__": "__main__"}
    exec(compile(text, str(path), "exec"), scope)
    assert isinstance(scope["figure"], Figure)
    shown = capsys.readouterr().out
    if name == "plot_signed_distance":
        assert scope["value"] < 1e-12
    if name in ("plot_partition", "plot_onnx"):
        assert "certified: 15 of 15 checks" in shown
    if name == "plot_evolution":
        assert len(scope["reading"].to_frame()) == 3
