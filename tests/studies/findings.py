"""What each plan of a published finding has to show: numbers of its records, and whether it holds.

Run as ``python tests/studies/findings.py NAME FOLDER`` on the folder of a sweep, it prints the
numbers; `test_findings` runs the plans and asks whether they hold. Expectations are directions with
a test over networks (one-sided, level 0.05), never values that a seed can move.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from isogon.specs import parse
from isogon.survey.running import record

LEVEL = 0.05
RANDOM = "random"


def greater(a, b):
    """One-sided p-value of "a is larger than b", pairs of networks of one seed."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    if not np.ptp(difference):
        return 0.0 if difference[0] > 0 else 1.0
    return float(stats.ttest_1samp(difference, 0, alternative="greater").pvalue)


def options(r, name="model"):
    """Keyword arguments of a record's model."""
    return parse(r.job.inputs[name]).kwargs


def seed(r):
    return int(options(r).get("seed", 0))


def wide(rows, over, values):
    """Values by seed (down) and another factor (across)."""
    return pd.DataFrame(rows).pivot_table(index="seed", columns=over, values=values)


def spread(values):
    values = np.asarray(values, float)
    return f"{values.mean():.3f} +- {values.std(ddof=1) if len(values) > 1 else 0:.3f}"


# --------------------------------------------------------------------------- arrangement


def labels(records):
    rows, first, last, named = [], [], [], []
    for r in records:
        noise = float(options(r).get("label_noise", 0))
        summary, series = r.reading.summary(), r.reading.series()
        layers = summary[summary["site"] != "network"]
        rows.append({"seed": seed(r), "noise": noise, "bias": (layers["mass"] - 0.5).abs().mean(),
                     "parted": (layers["p_corrected"] < LEVEL).mean(),
                     "cosine": layers["mean_cosine"].mean()})  # fmt: skip
        start = series[(series["snapshot"] == series["snapshot"].iloc[0])
                       & (series["site"] != "network")]  # fmt: skip
        first.append(int((start["p_corrected"] < LEVEL).sum()))
        last.append(int((layers["p_corrected"] < LEVEL).sum()))
        if noise == 0 and seed(r) == 0:
            shown = layers[layers["p_corrected"] < LEVEL]
            named = [f"{s} {m:.2f} (p = {p:.2g})" for s, m, p in
                     zip(shown["site"], shown["mass"], shown["p_corrected"])]  # fmt: skip
    bias = wide(rows, "noise", "bias")
    null = np.mean([np.sqrt(2 / np.pi * 0.25 / n) for n in layers["units"]])
    return {
        "layers apart from the null before training": sum(first),
        "layers apart after training, of each network": spread(last),
        "bias, true labels": spread(bias[0.0]),
        "bias, wrong labels": spread(bias[1.0]),
        "bias expected untrained": round(float(null), 3),
        "p, true > untrained": greater(bias[0.0], null),
        "p, true > wrong": greater(bias[0.0], bias[1.0]),
        "layers, true labels, seed 0": "; ".join(named),
        "n": len(bias),
        "holds": sum(first) == 0 and greater(bias[0.0], null) < LEVEL and sum(last) > 0,
    }


def complexity(records):
    rows = []
    for r in records:
        kwargs = options(r)
        kind = "noise" if "pixel_shuffle" in kwargs else "digits" if "size" in kwargs else "photos"
        layers = r.reading.summary().iloc[:-1]
        rows.append({"seed": seed(r), "kind": kind, "bias": (layers["mass"] - 0.5).abs().mean()})
    bias = wide(rows, "kind", "bias")
    return {k: spread(bias[k]) for k in bias} | {
        "p, photos > digits": greater(bias["photos"], bias["digits"]),
        "p, photos > noise": greater(bias["photos"], bias["noise"]),
        "n": len(bias),
        "holds": greater(bias["photos"], bias["digits"]) < LEVEL,
    }


def criticality(records):
    rho, first, drops = [], [], []
    for r in records:
        names = list(map(str, r.reading.coords["snapshot"]))
        chosen = [i for i, n in enumerate(names) if n.startswith(RANDOM)]
        drop = r.reading.arrays["drop"]
        bias = np.abs(list(r.reading.meta["bias"].values()))
        rho.append(float(stats.spearmanr(drop[:, chosen].mean(1), bias).statistic))
        first.append(float(stats.spearmanr(drop[:, 0], bias).statistic))
        drops.append(drop[:, [0, *chosen]])
    mean = np.mean(drops, 0)
    sites = list(map(str, records[0].reading.coords["site"]))
    p = greater(rho, 0)

    def ends(drop):
        low, high = int(drop.argmin()), int(drop.argmax())
        return f"{sites[low]} {drop[low]:.2f} to {sites[high]} {drop[high]:.2f}"

    return {
        "accuracy": spread([r.reading.meta["accuracy"] for r in records]),
        "drop, at random": ends(mean[:, 1:].mean(1)),
        "drop, to the start": ends(mean[:, 0]),
        "rank correlation over layers of drop and bias, at random": spread(rho),
        "p": p,
        "the same of resets to the start": spread(first),
        "p of that": greater(first, 0),
        "layers": len(sites),
        "n": len(rho),
        "holds": p < LEVEL,
    }


# --------------------------------------------------------------------------- partition


def gap(records):
    rows, within = [], []
    for r in records:
        table, found = r.reading.table, r.reading.meta["correlation"]
        last = table.iloc[-1]
        rows.append({"seed": seed(r), "augmented": bool(options(r).get("augment", ())),
                     "gap": last["gap"], "near": last["density_near"],
                     "far": last["density_far"]})  # fmt: skip
        if "density_near" in found:
            within.append(found["density_near"]["spearman"])
    table = pd.DataFrame(rows)
    near, gaps = wide(rows, "augmented", "near"), wide(rows, "augmented", "gap")
    rho = stats.spearmanr(table["near"], table["gap"])
    new = table[table["seed"] >= 5]  # directions were read off seeds 0 to 4
    fresh = stats.spearmanr(new["near"], new["gap"], alternative="less")
    p = greater(np.log(table["near"]), np.log(table["far"]))
    return {
        "gap, plain": spread(gaps[False]),
        "gap, augmented": spread(gaps[True]),
        "p, gap plain > augmented": greater(gaps[False], gaps[True]),
        "density near, plain": spread(near[False]),
        "density near, augmented": spread(near[True]),
        "near / far": spread(table["near"] / table["far"]),
        "p, near > far": p,
        "rank correlation of density near and gap over networks": round(float(rho.statistic), 2),
        "its p": float(rho.pvalue),
        "within a run": spread(within),
        "p, within a run > 0": greater(within, 0),
        "p, density near differs by augmentation": (
            float(stats.ttest_rel(near[True], near[False]).pvalue)
        ),
        "p, more regions near with augmentation, new seeds": greater(
            np.log(near[True][5:]), np.log(near[False][5:])
        ),
        "p, smaller gap with augmentation, new seeds": greater(gaps[False][5:], gaps[True][5:]),
        "rank correlation of density near and gap, new seeds": round(float(fresh.statistic), 2),
        "its one-sided p": float(fresh.pvalue),
        "n": len(table),
        "holds": bool(fresh.pvalue < LEVEL),
    }


def architectures(records):
    rows = []
    for r in records:
        arch = parse(r.job.inputs["model"]).args[0]
        first, last = r.reading.table.iloc[0], r.reading.table.iloc[-1]
        rows.append({"seed": seed(r), "depth": int(arch.kwargs["depth"]),
                     "regions": last["regions"], "before": first["regions"],
                     "accuracy": last["test_accuracy"]})  # fmt: skip
    regions, before = wide(rows, "depth", "regions"), wide(rows, "depth", "before")
    low, high = min(regions), max(regions)
    return {
        "regions, trained": {int(d): spread(regions[d]) for d in regions},
        "regions, untrained": {int(d): spread(before[d]) for d in before},
        "accuracy": {int(k): spread(v) for k, v in wide(rows, "depth", "accuracy").items()},
        "p, deep > shallow": greater(regions[high], regions[low]),
        "the same of seeds from 3 on": (fresh := greater(regions[high][3:], regions[low][3:])),
        "n": len(regions),
        "holds": fresh < LEVEL,  # the direction was read off seeds 0 to 2
    }


# --------------------------------------------------------------------------- manifold


def manifold_training(records):
    rows = [{"seed": seed(r), "epochs": int(options(r)["epochs"]),
             "trace": r.reading.table["trace"].mean(),
             "median": r.reading.table["trace"].median()} for r in records]  # fmt: skip
    trace = wide(rows, "epochs", "trace")
    peak, middle = trace.max(axis=1), wide(rows, "epochs", "median")
    first, last = trace.iloc[:, 0], trace.iloc[:, -1]
    return {
        "mean trace by epochs": {int(e): spread(trace[e]) for e in trace},
        "median trace by epochs": {int(e): spread(middle[e]) for e in middle},
        "epoch of the peak": trace.idxmax(axis=1).tolist(),
        "p, peak > start": greater(np.log(peak), np.log(first)),
        "p, peak > end": greater(np.log(peak), np.log(last)),
        "p, peak of medians > end": greater(np.log(middle.max(axis=1)), np.log(middle.iloc[:, -1])),
        "n": len(trace),
        "holds": greater(np.log(peak), np.log(first)) < LEVEL
        and greater(np.log(peak), np.log(last)) < LEVEL,
    }


def walks(records):
    rows, noisy = [], []
    for r in records:
        if "noise_kept" in r.reading.arrays:
            ends = r.reading.table.groupby("walk")["distance"]
            noisy += [{"seed": seed(r), "kept": kept, "left": left} for kept, left in
                      zip(r.reading.arrays["noise_kept"], ends.last() / ends.first())]  # fmt: skip
            continue
        for _, walk in r.reading.table.groupby("walk"):
            rows.append({"seed": seed(r), "along": r.job.options["along"],
                         "kept": walk["prediction"].iloc[0] == walk["prediction"].iloc[-1],
                         "change": abs(walk["probability"].iloc[-1] - walk["probability"].iloc[0]),
                         "left": walk["distance"].iloc[-1] / walk["distance"].iloc[0],
                         "reached": walk["distance"].iloc[-1] < 1})  # fmt: skip
    table = pd.DataFrame(rows)
    kernel, leaf = table[table["along"] == "kernel"], table[table["along"] == "leaf"]
    kept = table.groupby(["seed", "along"])["kept"].mean().unstack()
    leaves = pd.DataFrame(noisy).groupby("seed").mean()
    return {
        "kernel: class kept": f"{int(kernel['kept'].sum())} of {len(kernel)}",
        "kernel: change of probability, median": round(float(kernel["change"].median()), 4),
        "kernel: distance left": spread(kernel["left"]),
        "leaf: distance left": spread(leaf["left"]),
        "leaf: reached the image": f"{int(leaf['reached'].sum())} of {len(leaf)}",
        "leaf: class changed": f"{int((~leaf['kept']).sum())} of {len(leaf)}",
        "p, kept in the kernel > along the leaf": (p := greater(kept["kernel"], kept["leaf"])),
        "noise kept along its leaf": spread(leaves["kept"]),
        "of the way left there": spread(leaves["left"]),
        "p, more than half of the noise kept": (q := greater(leaves["kept"], [0.5] * len(leaves))),
        "n": int(table["seed"].nunique()),
        "holds": p < LEVEL and q < LEVEL,
    }


# --------------------------------------------------------------------------- invariance


def equivariance(records, over):
    """Mean over sites of normalised variance and simple distance, by a factor of the model."""
    rows = []
    for r in records:
        table = r.reading.table
        live = table[np.isfinite(table["normalized_variance"])]
        rows.append({"seed": seed(r), "kind": over(r),
                     "nv": live.groupby("site")["normalized_variance"].mean().mean()})  # fmt: skip
    return wide(rows, "kind", "nv")


def equivariance_augmentation(records):
    nv = equivariance(records, lambda r: "rotated" if "family" in options(r) else "plain")
    p = greater(nv["plain"], nv["rotated"])
    return {k: spread(nv[k]) for k in nv} | {
        "p, plain > rotated": p, "p, rotated > plain": greater(nv["rotated"], nv["plain"]),
        "n": len(nv), "holds": p < LEVEL,
    }  # fmt: skip


def apart(nv):
    """Maps that turned with their inputs would be at the floor of interpolation, 0.29 to 0.47."""
    p = max(greater(nv[k], 0.5) for k in nv)
    return {str(k): spread(nv[k]) for k in nv} | {
        "p, the least apart > 0.5": p, "n": len(nv), "holds": p < LEVEL,
    }  # fmt: skip


def equivariance_models(records):
    return apart(equivariance(records, lambda r: str(parse(r.job.inputs["model"]).args[0])))


def equivariance_during_training(records):
    return apart(equivariance(records, lambda r: int(options(r)["epochs"])))


def random_initialisations(records):
    rows = [r.reading.summary().assign(seed=seed(r)) for r in records]
    table = pd.concat(rows)
    nv = table.pivot_table(index="seed", columns="site", values="normalized_variance", sort=False)
    last = nv.iloc[:, -1]
    # stable: networks of other seeds differ less than the sites of one do
    across, within = nv.std().mean(), nv.std(axis=1).mean()
    return {
        "NV at the last site": spread(last),
        "sd over seeds, mean of sites": round(float(across), 4),
        "sd over sites, mean of seeds": round(float(within), 4),
        "n": len(nv),
        "holds": bool(across < 0.25 * within),
    }


# --------------------------------------------------------------------------- symmetry


def stitching_seeds(records):
    rows = []
    for r in records:
        table = r.reading.table
        pair = r.job.inputs["a"] + r.job.inputs["b"]
        for by, part in table.groupby("by"):
            rows.append({"seed": pair, "by": by, "penalty": part["penalty"].mean()})
    penalty = wide(rows, "by", "penalty")
    return {f"penalty, {k}": spread(penalty[k]) for k in penalty} | {
        "p, identity > G_relu": greater(penalty["identity"], penalty["G_relu"]),
        "p, G_relu > orthogonal": greater(penalty["G_relu"], penalty["orthogonal"]),
        "p, orthogonal > linear": greater(penalty["orthogonal"], penalty["linear"]),
        "n": len(penalty),
        "holds": greater(penalty["identity"], penalty["G_relu"]) < LEVEL
        and greater(penalty["G_relu"], penalty["linear"]) < LEVEL,
    }


def alignment_seeds(records):
    rows = []
    for r in records:
        pair = r.job.inputs["a"] + r.job.inputs["b"]
        metrics = r.job.options["metric"]
        metrics = [metrics] if isinstance(metrics, str) else metrics
        for metric, grid in zip(metrics, r.reading.arrays["similarity"], strict=True):
            sign = 1 if r.reading.meta["direction"][metric] == "higher" else -1
            own, grid = sign * np.diag(grid), sign * np.asarray(grid)
            other = (grid.sum() - own.sum()) / (grid.size - len(own))
            rows.append({"seed": pair, "metric": metric, "own": own.mean(), "other": other})
    own, other = wide(rows, "metric", "own"), wide(rows, "metric", "other")
    g, o = "procrustes(modulo=G_relu)", "procrustes(modulo=orthogonal)"
    p = {m: greater(own[m], other[m]) for m in own}
    return {f"{m}: own, other layers": f"{spread(own[m])}, {spread(other[m])}" for m in own} | {
        "p, own layer closer than others": {m: float(f"{v:.2g}") for m, v in p.items()},
        "p, O(c) closer than G_relu": (closer := greater(own[o], own[g])),
        "n": len(own),
        "holds": closer < LEVEL and p[g] < LEVEL,
    }


def rotations(records):
    rows = []
    for r in records:
        table, o = r.reading.table, r.job.options
        where = "behind" if o["sites"] == "activations" else "in front"
        kind = f"{r.job.inputs['group']} {where}, {o['epochs']} epochs"
        rows += [{"seed": repeat, "kind": kind, "penalty": part["penalty"].mean()}
                 for repeat, part in table.groupby("repeat")]  # fmt: skip
    penalty = wide(rows, "kind", "penalty")
    most = max(int(k.split(", ")[1].split()[0]) for k in penalty)
    front = {g: penalty[f"{g} in front, {most} epochs"] for g in ("orthogonal", "G_relu")}
    return {str(k): spread(penalty[k]) for k in penalty} | {
        # shown at the scale of photographs; networks on digits learn either anew
        "p, in front, after: orthogonal > G_relu": greater(front["orthogonal"], front["G_relu"]),
        "p, orthogonal behind: before > after": (
            undone := greater(
                penalty["orthogonal behind, 0 epochs"],
                penalty[f"orthogonal behind, {most} epochs"],
            )
        ),
        "n": len(penalty),
        "holds": undone < LEVEL,
    }


def dissection(records):
    rows = []
    for r in records:
        summary = r.reading.summary()
        column = "unique_detectors" if "unique_detectors" in summary else "unique"
        for basis, part in summary.groupby("basis"):
            rows.append({"seed": seed(r), "basis": basis, "unique": part[column].mean()})
    unique = wide(rows, "basis", "unique")
    p = greater(unique["unit"], unique["orthogonal"])
    return {str(k): spread(unique[k]) for k in unique} | {
        "p, unit > O(c)": p, "n": len(unique), "holds": p < LEVEL,
    }  # fmt: skip


def homogeneity(records):
    found = {}
    for r in records:
        arch = str(parse(r.job.inputs["model"]).args[0])
        column = next(c for c in r.reading.table if "deviation" in str(c))
        found[arch] = float(r.reading.table[column].mean())
    gelu = next(v for k, v in found.items() if "gelu" in k)
    relu = next(v for k, v in found.items() if "=relu" in k)
    leaky = next(v for k, v in found.items() if "leaky" in k)
    return found | {"n": len(found), "holds": relu == 0 and leaky < 1e-6 and gelu > 1e-3}


# plan: what to look at, whether it needs data from a folder
FINDINGS = {
    "arrangement/labels": (labels, True),
    "arrangement/complexity": (complexity, True),
    "arrangement/criticality": (criticality, True),
    "partition/gap": (gap, False),
    "partition/architectures": (architectures, False),
    "manifold/training": (manifold_training, False),
    "manifold/walks": (walks, False),
    "invariance/equivariance-augmentation": (equivariance_augmentation, False),
    "invariance/equivariance-models": (equivariance_models, False),
    "invariance/equivariance-during-training": (equivariance_during_training, False),
    "invariance/random-initialisations": (random_initialisations, False),
    "stitching/seeds": (stitching_seeds, False),
    "alignment/seeds": (alignment_seeds, False),
    "stitching/rotations": (rotations, False),
    "dissection/bases": (dissection, False),
    "stitching/homogeneity": (homogeneity, False),
}

# what came out otherwise at laptop scale: docs/studies has the numbers
OTHERWISE = {
    "arrangement/complexity": "no order of photographs and digits in networks of this size",
    "arrangement/criticality": "random states of any layer cost the same",
    "partition/gap": "p = 0.056 over ten networks of new seeds",
}


def numbers(name, folder):
    """What came out of a sweep."""
    return FINDINGS[name][0](record.scan(Path(folder) / "records"))


if __name__ == "__main__":
    for key, value in numbers(sys.argv[1], sys.argv[2]).items():
        print(f"{key}: {value}")
