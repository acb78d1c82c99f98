"""Findings of similarity: where two networks part along their depth, against the null."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import LEVEL, Z
from isogon.findings.words import chance, count, enumerated, number, start, trimmed
from isogon.readings import Reading
from isogon.registry import finds

OUTPUT = "output"  # stands for both sites of metrics of the outputs


def similarity_numbers(reading: Reading) -> list[Number]:
    """Each metric between sites of one depth."""
    found = []
    for metric, part in _diagonals(reading):
        for site, value in zip(part["name"], part["similarity"]):
            found.append(Number(f"{metric} at {site}", float(value), span=_width(reading, metric)))
    return found


@finds("similarity", numbers=similarity_numbers)
def finds_similarity(reading: Reading, names: Names) -> list[Finding]:
    """Per metric: closest and farthest depth, and which pairs chance would explain."""
    found = []
    for metric, part in _diagonals(reading):
        higher = _higher(reading, metric)
        values = part["similarity"].to_numpy(float)
        if not np.isfinite(values).any():
            continue
        near = int(np.nanargmax(values) if higher else np.nanargmin(values))
        far = int(np.nanargmin(values) if higher else np.nanargmax(values))
        word = "similarity" if higher else "distance"
        a, b = names.a, names.b
        if len(part) == 1:
            text = f"Between {a} and {b} the {metric} {word} at {part['name'].iloc[0]} is "
            text += number(values[near])
        else:
            text = f"{start(a)} and {b} are closest at {part['name'].iloc[near]} and "
            text += f"farthest apart at {part['name'].iloc[far]}: {metric} {number(values[near])} "
            text += f"and {number(values[far])}"
        against, weight, sure = _against(reading, metric, part, far)
        value = number(values[far])
        make = effect if sure else described if sure is None else nothing
        found.append(make(f"{text}.", value, against, weight))
    return found + _unlike_chance(reading) + _shifted(reading)


def _against(reading: Reading, metric: str, part: Any, far: int) -> tuple[str, float, bool | None]:
    """Null of the farthest pair, how far apart it is, and whether chance would explain it."""
    facts = reading.meta["metrics"][metric]
    same = facts.get("identical")
    width = _width(reading, metric)
    value = float(part["similarity"].iloc[far])
    gap = abs(float(same) - value) / width if width and same is not None else 0.5
    ends = f"identical: {number(float(same))}" if same is not None else "no null"
    for column in ("p_max", "p_value"):
        if column in part and part[column].notna().any():
            p = float(part[column].iloc[far])
            return f"{ends}; permuted samples: {chance(p)}", gap, p <= LEVEL
    if "null_sd" in part and np.isfinite(part["null_sd"].iloc[far]):
        sd = float(part["null_sd"].iloc[far])
        return f"{ends}; unrelated samples: 0 ± {number(sd, 2)}", gap, abs(value) > Z * sd
    return f"{ends}; no null", gap, None


def _unlike_chance(reading: Reading) -> list[Finding]:
    """How many of the pairs are not told from chance."""
    table: Any = reading.table
    inner = table[table["site_a"] != OUTPUT]
    for column in ("p_max", "p_value", "z"):
        if column in inner and inner[column].notna().any():
            known = inner[inner[column].notna()]
            hidden = known[column].abs() < Z if column == "z" else known[column] > LEVEL
            if not hidden.any():
                return []
            text = f"{count(int(hidden.sum()), 'pair')} of {len(known)} of sites can't be told "
            text += "from chance."
            how = "|z| below 1.96" if column == "z" else f"{column} above {LEVEL:g}"
            value = f"{int(hidden.sum())} of {len(known)}"
            return [nothing(text, value, how, float(hidden.mean()))]
    return []


def _shifted(reading: Reading) -> list[Finding]:
    """Sites that are closest to one of another depth."""
    found = []
    for metric, part in reading.table.groupby("metric", sort=False):
        part = part[part["site_a"] != OUTPUT]
        wide = part.pivot(index="site_a", columns="site_b", values="similarity")
        down, across = (list(dict.fromkeys(part[c])) for c in ("site_a", "site_b"))
        if len(down) < 3 or len(down) != len(across) or wide.isna().to_numpy().any():
            continue
        values = wide.reindex(index=down, columns=across).to_numpy(float)
        best = values.argmax(1) if _higher(reading, str(metric)) else values.argmin(1)
        off = [i for i in range(len(down)) if best[i] != i]
        if "z" in part and part["z"].notna().any():  # closest by chance is not close
            z = part.pivot(index="site_a", columns="site_b", values="z")
            sure = np.abs(z.reindex(index=down, columns=across).to_numpy(float)) >= Z
            off = [i for i in off if sure[i, best[i]]]
        short = list(trimmed(down).values())
        if off:
            text = f"By {metric}, {enumerated([short[i] for i in off])} "
            text += f"{'is' if len(off) == 1 else 'are'} closer to another depth than to "
            text += f"{'its' if len(off) == 1 else 'their'} own."
            value = f"{len(off)} of {len(down)}"
            found.append(described(text, value, "exact count of sites", len(off) / len(down)))
    return found


def _diagonals(reading: Reading) -> list[tuple[str, Any]]:
    """Of each metric the pairs of one depth (k-th with k-th), and those of the outputs."""
    found = []
    for metric, part in reading.table.groupby("metric", sort=False):
        down, across = (list(dict.fromkeys(part[c])) for c in ("site_a", "site_b"))
        pairs = set(zip(down, across))
        kept = part[[pair in pairs for pair in zip(part["site_a"], part["site_b"])]]
        if len(kept):
            short = trimmed(down)
            said = [
                short[a] if a == b else f"{short[a]} and {b}"
                for a, b in zip(kept["site_a"], kept["site_b"])
            ]
            found.append((str(metric), kept.assign(name=said)))
    return found


def _higher(reading: Reading, metric: str) -> bool:
    return str(reading.meta["metrics"][metric]["direction"]).startswith("higher")


def _width(reading: Reading, metric: str) -> float | None:
    """From identical to as far as unrelated ones can be expected: 0, where that is inside."""
    low, high = map(float, reading.meta["metrics"][metric]["range"])
    low = max(low, 0.0)
    return high - low if np.isfinite([low, high]).all() and high > low else None
