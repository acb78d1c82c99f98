"""Where a set of walks stands, what is kept of them, and how they are continued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from isogon.errors import OptionError
from isogon.measures.manifold.tangent import BUDGET, Tangent
from isogon.readings import Path

COLUMNS = (
    "walk",
    "step",
    "distance",
    "travelled",
    "probability",
    "prediction",
    "drift",
    "departure",
    "from_start",
    "divergence",
    "alignment",
)


NEARER = 0.01  # of a step: what counts as coming closer to a target


@dataclass(frozen=True)
class Rule:
    """What stays the same when walks are continued."""

    along: str
    step: float
    control: str
    tolerance: float
    clamp: tuple[Tensor, Tensor] | None
    frames: int
    reproject: int = 0


@dataclass(frozen=True)
class Ends:
    """What ends a walk: see `walk`."""

    steps: int
    stop: float
    min_probability: float
    patience: int


class Walkers:
    """Positions, path lengths and records of n walks.

    Args:
        rule: How they step.
        start: [n, ...], float64.
        given: Targets or directions, [n, ...], float64.
        aimed: Whether ``given`` are targets.
        classes: Number of classes C.
        dtype: Of the frames that are kept.
    """

    def __init__(
        self, rule: Rule, start: Tensor, given: Tensor, aimed: bool, classes: int, dtype: str
    ) -> None:
        n, like = len(start), {"dtype": torch.float64, "device": start.device}
        self.rule, self.start, self.given, self.aimed = rule, start, given, aimed
        self.classes, self.dtype = classes, dtype
        self.x = start.clone()
        self.size = torch.full((n,), float(rule.step), **like)
        self.travelled = torch.zeros(n, **like)
        self.count = torch.full(
            (n,), -1, device=start.device
        )  # steps taken; -1: the start is not recorded yet
        self.log_start = torch.zeros(n, classes, **like)  # log p at the start
        self.closest = torch.full((n,), float("inf"), **like)  # distance to the target so far
        self.closest_at = torch.zeros_like(self.count)  # and the step it was reached at
        self.reason = [""] * n
        self.rows: list[np.ndarray] = []  # blocks [rows, len(COLUMNS)]
        self.spacing = 1  # steps between two frames that are kept
        self.frames: dict[tuple[int, int], np.ndarray] = {}  # (walk, step) -> position

    def groups(self) -> list[Tensor]:
        """Walks that may go on, in groups small enough for one batch of gradients."""
        ids = [i for i, reason in enumerate(self.reason) if reason != "stuck"]
        size = max(1, BUDGET // max(1, self.classes * self.x[0].numel()))
        return list(torch.tensor(ids, device=self.x.device).split(size)) if ids else []

    def aim(self, ids: Tensor, x: Tensor) -> Tensor:
        """The vectors to be projected at ``x``: to the targets, or the fixed directions."""
        return self.given[ids] - x if self.aimed else self.given[ids]

    def distance(self, ids: Tensor) -> Tensor:
        """L2 distance to the targets; NaN without them."""
        gap = (self.given[ids] - self.x[ids]).flatten(1).norm(dim=1)
        return gap if self.aimed else torch.full_like(gap, float("nan"))

    def begin(self, ids: Tensor, t: Tangent, alignment: Tensor) -> None:
        """Record the starts of walks that are new."""
        new = self.count[ids] < 0
        ids, t = ids[new], t.select(new)
        if len(ids):
            self.log_start[ids] = t.logits.double().log_softmax(1)
            none = torch.zeros_like(self.travelled[ids])
            self.arrive(ids, self.x[ids], t, none, none, alignment[new])

    def arrive(
        self,
        ids: Tensor,
        y: Tensor,
        t: Tangent,
        drift: Tensor,
        departure: Tensor,
        alignment: Tensor,
    ) -> None:
        """Move walks to ``y`` and record it."""
        self.travelled[ids] += (y - self.x[ids]).flatten(1).norm(dim=1)
        self.x[ids] = y
        self.count[ids] += 1
        self._note_closest(ids)
        log_p = t.logits.double().log_softmax(1)
        from_start = (y - self.start[ids]).flatten(1).norm(dim=1)
        start = self.log_start[ids]
        divergence = (start.exp() * (start - log_p)).sum(1).clamp_min(0)
        best = log_p.max(1)
        columns = (
            ids,
            self.count[ids],
            self.distance(ids),
            self.travelled[ids],
            best.values.exp(),
            best.indices,
            drift,
            departure,
            from_start,
            divergence,
            alignment,
        )
        self.rows.append(torch.stack([c.double().cpu() for c in columns], 1).numpy())
        for i in ids.tolist():
            step = int(self.count[i])
            if step % self.spacing == 0:
                self.frames[i, step] = self.x[i].cpu().numpy().astype(self.dtype)
                if step > 2 * self.rule.frames * self.spacing:
                    self.spacing *= 2
                    self.thin()

    def _note_closest(self, ids: Tensor) -> None:
        distance = self.distance(ids)
        closer = distance < self.closest[ids] - NEARER * self.rule.step
        self.closest[ids[closer]] = distance[closer]
        self.closest_at[ids[closer]] = self.count[ids[closer]]

    def thin(self) -> None:
        """Forget frames between those that are ``spacing`` steps apart."""
        self.frames = {k: f for k, f in self.frames.items() if k[1] % self.spacing == 0}

    def end(self, ids: Tensor, reason: str) -> None:
        """Note why walks ended."""
        for i in ids.tolist():
            self.reason[i] = reason

    def going(self, ids: Tensor, t: Tangent, ends: Ends) -> Tensor:
        """Places in ``ids`` of the walks that no rule ends here."""
        waited = self.count[ids] - self.closest_at[ids]
        rules = {
            "steps": self.count[ids] >= ends.steps,
            "patience": (waited >= (ends.patience or float("inf"))) & self.aimed,
            "probability": t.probabilities.max(1).values < ends.min_probability,
            "distance": self.distance(ids) <= ends.stop,
        }
        on = torch.ones_like(ids, dtype=torch.bool)
        for reason, over in rules.items():
            self.end(ids[over], reason)
            on &= ~over
        self.end(ids[on], "")
        return on.nonzero()[:, 0]

    def reading(self, facts: dict[str, Any]) -> Path:
        """All that is known, as a reading that `continued` takes up again."""
        table = pd.DataFrame(np.concatenate(self.rows), columns=list(COLUMNS))
        whole = dict.fromkeys(("walk", "step", "prediction"), int)
        table = table.astype(whole).sort_values(["walk", "step"], ignore_index=True)
        frames = dict(self.frames)
        for i, step in enumerate(self.count.tolist()):
            frames[i, step] = self.x[i].cpu().numpy().astype(self.dtype)
        keys = sorted(frames)
        arrays = {
            "frames": np.stack([frames[k] for k in keys]),
            "frame_walk": np.array([k[0] for k in keys]),
            "frame_step": np.array([k[1] for k in keys]),
            "start": self.start.cpu().numpy(),
            "end": self.x.cpu().numpy(),
            "target" if self.aimed else "direction": self.given.cpu().numpy(),
            "step_size": self.size.cpu().numpy(),
            "log_start": self.log_start.cpu().numpy(),
        }
        rest = tuple(f"dim_{i}" for i in range(self.x.dim() - 1))
        names = [k for k in ("start", "end", "target", "direction") if k in arrays]
        rule = self.rule
        clamp = None if rule.clamp is None else [b.tolist() for b in rule.clamp]
        return Path(
            measure="walk",
            table=table,
            arrays=arrays,
            axes={"frames": ("frame", *rest), **dict.fromkeys(names, ("walk", *rest))},
            units=dict.fromkeys(COLUMNS[2:4], "L2, units of input") | {"divergence": "nats"},
            meta={
                "along": rule.along,
                "step": rule.step,
                "control": rule.control,
                "tolerance": rule.tolerance,
                "clamp": clamp,
                "frames": rule.frames,
                "reproject": rule.reproject,
                "spacing": self.spacing,
                "ended": self.reason,
                **facts,
                "summary": _summary(table, self.reason),
            },
        )


def _summary(table: pd.DataFrame, reason: list[str]) -> dict[str, Any]:
    """One row per walk: where it came from, how far it went, why it ended."""
    groups = table.groupby("walk")
    first, last = groups.first(), groups.last()
    return {
        "walk": last.index.tolist(),
        "steps": last["step"].tolist(),
        "ended": reason,
        "from": first["prediction"].tolist(),
        "to": last["prediction"].tolist(),
        "probability": last["probability"].tolist(),
        "travelled": last["travelled"].tolist(),
        "distance": last["distance"].tolist(),
        "alignment": last["alignment"].tolist(),
        "largest drift": groups["drift"].max().tolist(),
        "largest departure": groups["departure"].max().tolist(),
    }


def continued(path: Path, device: torch.device) -> Walkers:
    """The walks of a reading, to go on from where they ended.

    Raises:
        OptionError: The reading is not of walks.
    """
    a, m = path.arrays, path.meta
    given = "target" if "target" in a else "direction"
    if path.measure != "walk" or not {"start", "end", given, "log_start"} <= set(a):
        raise OptionError("this path can't be continued", got=path.measure, expected="a walk")
    clamp = None
    if m["clamp"] is not None:
        low, high = (torch.tensor(b, dtype=torch.float64, device=device) for b in m["clamp"])
        clamp = low, high
    rule = Rule(
        m["along"],
        m["step"],
        m["control"],
        m["tolerance"],
        clamp,
        m["frames"],
        m.get("reproject", 0),
    )
    names = ("start", "end", given, "log_start", "step_size")
    tensors = {k: torch.tensor(a[k], device=device) for k in names}
    state = Walkers(
        rule,
        tensors["start"],
        tensors[given],
        given == "target",
        tensors["log_start"].shape[1],
        str(a["frames"].dtype),
    )
    state.x, state.log_start = tensors["end"], tensors["log_start"]
    state.size = tensors["step_size"]
    last = path.table.groupby("walk").last()
    state.count = torch.tensor(last["step"].to_numpy(), device=device)
    state.travelled = torch.tensor(last["travelled"].to_numpy(), device=device)
    if state.aimed:
        rows = path.table[["walk", "step", "distance"]].itertuples(index=False, name=None)
        for walk, step, distance in rows:
            if distance < state.closest[walk] - NEARER * rule.step:
                state.closest[walk], state.closest_at[walk] = distance, step
    state.reason, state.spacing = list(m["ended"]), int(m["spacing"])
    state.rows = [path.table.reindex(columns=list(COLUMNS)).to_numpy(dtype=float)]
    keys = zip(a["frame_walk"].tolist(), a["frame_step"].tolist(), strict=True)
    state.frames = dict(zip(keys, a["frames"], strict=True))
    state.thin()
    return state
