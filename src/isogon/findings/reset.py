"""Findings of resets: what each layer holds of the accuracy."""

from __future__ import annotations

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import LEVEL, drop
from isogon.findings.sides import of_numbers, of_shares
from isogon.findings.words import count, in_points, number, span, trimmed
from isogon.readings import Reading
from isogon.registry import finds
from isogon.specs import parse

RANDOM = "random "


def reset_numbers(reading: Reading) -> list[Number]:
    """The accuracy that each layer's reset to the first snapshot costs."""
    drops = np.asarray(reading.arrays["drop"], float)
    sites = list(trimmed(reading.coords["site"]).values())
    state = state_words(str(reading.coords["snapshot"][0]))
    found = [Number("the accuracy as it is", float(reading.meta["accuracy"]), "points", 1.0)]
    for site, row in zip(sites, drops):
        name = f"the accuracy lost by putting {site} back to {state}"
        found.append(Number(name, float(row[0]), "points", 1.0))
    return found


def differs_reset(a: Reading, b: Reading, names: Names) -> list[Finding]:
    """What each layer's reset costs, layer by layer, corrected over them."""
    if not all(isinstance(r.meta.get("samples"), int) for r in (a, b)):
        return of_numbers(reset_numbers(a), reset_numbers(b), names)
    short = trimmed(a.coords["site"])
    level = LEVEL / max(len(short), 1)
    state = state_words(str(a.coords["snapshot"][0]))
    over = f"{number(a.meta['samples'])} samples, corrected over {count(len(short), 'layer')}"
    found = []
    for i, site in enumerate(a.coords["site"]):
        if site not in b.coords["site"]:
            continue
        held = []
        for reading, k in ((a, i), (b, b.coords["site"].index(site))):
            whole, lost = reading.meta["accuracy"], float(reading.arrays["drop"][k, 0])
            held.append((lost, *drop(whole, whole - lost, reading.meta["samples"], level)))
        what = f"the accuracy lost by putting {short[site]} back to {state}"
        found.append(of_shares(what, held[0], held[1], names, over))
    return found


@finds("reset", numbers=reset_numbers, differs=differs_reset)
def finds_reset(reading: Reading, names: Names) -> list[Finding]:
    """The layer whose reset costs most, and the one that can be put back most cheaply."""
    drops = np.asarray(reading.arrays["drop"], float)
    whole = float(reading.meta["accuracy"])
    snapshots = [str(s) for s in reading.coords["snapshot"]]
    kept = [j for j, s in enumerate(snapshots) if not s.startswith(RANDOM)]
    drawn = [j for j, s in enumerate(snapshots) if s.startswith(RANDOM)]
    found = []
    if kept:
        found += _state(reading, drops[:, kept[0]], whole, state_words(snapshots[kept[0]]))
    if drawn:
        mean = f" (mean of {len(drawn)} draws)" if len(drawn) > 1 else ""
        words = f"newly drawn weights{mean}"
        found += _state(reading, drops[:, drawn].mean(1), whole, words, drops[:, drawn])
    return found


def state_words(snapshot: str) -> str:
    """A snapshot in words."""
    if snapshot in ("0", "initial", "epoch 0", "step 0"):
        return "its initial values"
    try:
        spec = parse(snapshot)
    except Exception:  # a name that is no spec
        return f"its state at {snapshot}"
    if spec.name == "trained" and spec.kwargs.get("epochs") == 0:
        return "its initial values"
    if "(" in snapshot:
        return f"its values in {snapshot}"
    return f"its state at {snapshot}"


def _state(
    reading: Reading, drops: np.ndarray, whole: float, words: str, each: np.ndarray | None = None
) -> list[Finding]:
    sites = list(trimmed(reading.coords["site"]).values())
    order = np.argsort(drops)
    worst, best = int(order[-1]), int(order[0])
    total = reading.meta.get("samples")
    value = f"{in_points(drops[worst])} points"
    size = drops[worst] / whole if whole else 0.0
    new = each is not None
    act = f"Giving {sites[worst]}" if new else f"Putting {sites[worst]} back to"
    text = f"{act} {words} costs {in_points(drops[worst])} of {in_points(whole)} points"
    if len(sites) > 1:
        given = "be given them" if new else "be put back"
        text += f"; {sites[best]} can {given} at {in_points(drops[best])}"
    if each is not None and each.shape[1] > 1:
        ends = span(float(each[worst].min()), float(each[worst].max()), in_points)
        spread = f"{ends} points over the draws"
    else:
        spread = ""
    if not isinstance(total, int):
        against = spread or "size of the sample not recorded: no interval"
        return [described(f"{text}.", value, against, size)]
    # one test for each layer: corrected by Bonferroni
    low, high = drop(whole, whole - float(drops[worst]), total, LEVEL / len(sites))
    against = f"95 % interval {span(low, high, in_points)} points over {number(total)} samples"
    against += f"; {spread}" if spread else ""
    if low > 0:
        return [effect(f"{text}.", value, against, size)]
    act = "Giving any one of" if new else "Putting any one of"
    act = f"{act} {count(len(sites), 'layer')}{'' if new else ' back to'}"
    text = f"{act} {words} costs no more than "
    text += f"chance on {number(total)} samples explains; {sites[worst]} costs most, {value}."
    return [nothing(text, value, against, size)]
