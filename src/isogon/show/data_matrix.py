"""Figure of the local data matrix: spectrum, size against confidence, effective rank."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style


def spectrum(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the median of the i-th eigenvalue over the samples, where it is positive."""
    names = [c for c in reading.table if str(c).startswith("eigenvalue_")]
    middle = reading.table[names].median().to_numpy(dtype=float)
    with np.errstate(divide="ignore"):
        found = np.where(middle > middle.max() * 1e-16, np.log10(middle), np.nan)
    return np.arange(1, len(names) + 1), found


@draws(
    "data_matrix",
    columns=("log10_of_eigenvalue_i", "trace", "participation_ratio"),
    curves={"log10_of_eigenvalue_i": ("i", spectrum)},
)
def draw_data_matrix(reading: Reading, eigenvectors: bool = False, samples: int = 5) -> Figure:
    """Spectrum of G, its trace against confidence, and how many directions matter.

    Args:
        reading: Of `data_matrix`.
        eigenvectors: Draw samples beside G's leading eigenvectors instead (the reading must
            hold them).
        samples: How many samples then.
    """
    if eigenvectors:
        return _pictures(reading, samples)
    fig, axes = style.panels(3, height=2.55)
    _spectrum(axes[0, 0], reading)
    _trace(axes[0, 1], reading)
    _ranks(axes[0, 2], reading)
    style.letter(list(axes[0]))
    return fig


def _spectrum(ax: Axes, reading: Reading) -> None:
    columns = [c for c in reading.table if str(c).startswith("eigenvalue_")]
    values = reading.table[columns].to_numpy(dtype=float)
    index = np.arange(1, values.shape[1] + 1)
    shown = np.where(values > 0, values, np.nan)
    floor = np.nanmax(shown, initial=1e-300) * 1e-16
    shown = np.where(shown > floor, shown, np.nan)
    marker = "o" if len(index) <= 20 else None
    if np.isfinite(shown).any():
        low, mid, high = np.nanpercentile(shown, [5, 50, 95], axis=0)
        for row in shown[:: max(1, len(shown) // 40)]:
            ax.plot(index, row, color=style.BLUE, lw=0.5, alpha=0.18)
        ax.fill_between(index, low, high, color=style.BLUE, alpha=0.15, lw=0)
        ax.plot(index, mid, color=style.BLUE, marker=marker, ms=3.2)
        ax.set_yscale("log")
        decades = np.log10(np.nanmax(high) / np.nanmin(low))
        ax.yaxis.get_major_locator().set_params(numticks=6 if decades > 5 else 9)  # type: ignore
    if len(index) <= 20:
        ax.set_xticks(index[:: 1 if len(index) <= 10 else 2])
    ax.set_xlabel("$i$")
    ax.set_ylabel(r"eigenvalue $\lambda_i$  (nats / unit$^2$)")
    ax.set_title("Spectrum of $G$")


def _trace(ax: Axes, reading: Reading) -> None:
    t = reading.table
    right = (t["label"] == t["prediction"]).to_numpy()
    margin = np.clip(1 - t["probability"].to_numpy(dtype=float), 1e-17, 1)
    trace = t["trace"].to_numpy(dtype=float)
    looks = ((right, style.BLUE, "o", "correct"), (~right, style.ORANGE, "X", "wrong"))
    for mask, color, mark, name in looks:
        if (keep := mask & (trace > 0)).any():
            ax.scatter(
                margin[keep],
                trace[keep],
                s=9 if mark == "o" else 14,
                color=color,
                marker=mark,
                alpha=0.6,
                lw=0,
                label=f"{name} ({mask.sum()})",
            )
    if (trace > 0).any():
        style.log_axis(ax.xaxis, margin[trace > 0])
        style.log_axis(ax.yaxis, trace)
        ax.legend(loc="best", handletextpad=0.1)
    ax.set_xlabel("1 − probability of the prediction")
    ax.set_ylabel(r"tr $G$  (nats / unit$^2$)")
    ax.set_title("Size against confidence")


def _ranks(ax: Axes, reading: Reading) -> None:
    t = reading.table
    exact = [c for c in t if str(c).startswith("rank@")]
    names = {
        "stable_rank": "stable",
        "participation_ratio": "participation",
        "entropy_rank": "entropy",
    }
    columns = [*(c for c in names if c in t), *exact]
    labels = [str(names.get(c, c)) for c in columns]
    for place, column in enumerate(columns):
        values = t[column].to_numpy(dtype=float)
        color = style.GREEN if column in names else style.PURPLE
        size, where = np.histogram(values, bins=max(8, int(values.max(initial=1)) * 2 + 1))
        middle = (where[1:] + where[:-1]) / 2
        if column in exact:
            middle, size = np.unique(values, return_counts=True)
        width = 0.42 * size / max(size.max(), 1)
        step = 0.8 if column in exact else float(where[1] - where[0]) * 0.92
        ax.barh(middle, 2 * width, left=place - width, height=step, color=color, alpha=0.55, lw=0)
        ax.plot(place, np.median(values), marker="o", ms=3.6, color="white", mec=style.INK, mew=0.9)
    top = sum(str(c).startswith("eigenvalue_") for c in t)
    ax.axhline(top, color=style.MUTED, lw=0.8, ls=(0, (4, 3)))
    ax.text(-0.45, top, "$C-1$", va="bottom", fontsize=7.5, color=style.MUTED)
    ax.set_xticks(range(len(columns)), labels)
    ax.set_ylim(0, top * 1.12 + 0.3)
    ax.set_ylabel("directions")
    ax.set_title("Effective rank")


def _pictures(reading: Reading, samples: int) -> Figure:
    if "eigenvectors" not in reading.arrays:
        raise OptionError(
            "the reading holds no eigenvectors",
            expected="a reading of data_matrix(..., eigenvectors=k)",
            fix="Measure again with eigenvectors=4.",
        )
    vectors, inputs = reading.arrays["eigenvectors"], reading.arrays["inputs"]
    count, rank = min(samples, len(vectors)), min(vectors.shape[1], 6)
    fig = style.figure(0.95 * (rank + 1) + 0.5, 1.02 * count + 0.3)
    axes = fig.subplots(count, rank + 1, squeeze=False)
    t = reading.table
    for i in range(count):
        style.picture(axes[i, 0], inputs[i])
        row = t.iloc[i]
        axes[i, 0].set_ylabel(f"{row['prediction']:.0f}  p={row['probability']:.3f}", fontsize=7.5)
        for k in range(rank):
            style.picture(axes[i, k + 1], vectors[i, k], diverging=True)
            share = row[f"eigenvalue_{k + 1}"] / row["trace"] if row["trace"] else 0.0
            axes[i, k + 1].set_title(f"{share:.0%}", loc="center", fontsize=7.5, pad=2)
    axes[0, 0].set_title("input", loc="center", fontsize=7.5, pad=2)
    style.note(fig, "Leading eigenvectors of G, with their share of the trace.")
    return fig
