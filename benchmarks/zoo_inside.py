"""Independent figures for the zoo: plain forward passes, hooks, autograd and NumPy alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

MOST = 3  # sites of a network that are looked into


class Wrong(Exception):
    """A number of a reading is not what the network itself gives."""


def raw(x: object) -> np.ndarray:
    """Numbers as a float64 array."""
    return (x.detach() if isinstance(x, Tensor) else np.asarray(x)).__array__().astype(np.float64)


def close(found: object, wanted: object, tolerance: float, what: str) -> None:
    """Raise `Wrong` where two arrays differ by more than a share of the larger one."""
    a, b = raw(found), raw(wanted)
    if a.shape != b.shape:
        raise Wrong(f"{what}: shape {a.shape}, not {b.shape}")
    if not np.isfinite(a).all():
        raise Wrong(f"{what}: not finite")
    most = np.abs(a - b).max(initial=0.0)
    if most > tolerance * max(np.abs(b).max(initial=0.0), 1e-12):
        raise Wrong(f"{what}: {a.ravel()[:3]}, not {b.ravel()[:3]} (off by {most:.2g})")


def double(model: nn.Module) -> nn.Module:
    """A copy in float64."""
    return copy.deepcopy(model).double()


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """The output, or its ``logits``."""
    out = model(x)
    return out if isinstance(out, Tensor) else out.logits


def probabilities(out: Tensor) -> Tensor:
    """Softmax of logits, of one the sigmoid; of what already are probabilities, these."""
    if out.shape[1] == 1:
        return torch.cat([torch.sigmoid(-out), torch.sigmoid(out)], 1)
    if bool((out >= 0).all()) and bool(((out.sum(1) - 1).abs() < 1e-4).all()):
        return out
    return out.softmax(1)


def line(model: nn.Module, a: Tensor, b: Tensor, at: np.ndarray) -> np.ndarray:
    """Outputs at a + t (b - a)."""
    t = torch.from_numpy(at).reshape(-1, *[1] * a.dim())
    with torch.no_grad():
        return raw(logits(model, a + t * (b - a)))


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``[C]`` and their gradients ``[C, D]`` at one input."""
    at = x.to(next(model.parameters()).dtype)[None].clone().requires_grad_()
    out = logits(model, at)[0]
    if bool((out >= 0).all()) and abs(float(out.detach().sum()) - 1) < 1e-4:  # probabilities
        out = out.log()
    rows = [torch.autograd.grad(o, at, retain_graph=True)[0].flatten() for o in out]
    return out.detach(), torch.stack(rows)


def trace(model: nn.Module, x: Tensor) -> float:
    """Of the local data matrix: sum over classes of p_k |grad log p_k|^2."""
    out, rows = gradients(model, x)
    if len(out) == 1:  # one logit: two classes
        both = torch.sigmoid(out[0]) * torch.sigmoid(-out[0])
        return float(both * rows[0].square().sum())
    p = out.softmax(0)
    return float((p * (rows - p @ rows).square().sum(1)).sum())


def off_the_leaf(model: nn.Module, x: Tensor, step: Tensor) -> float:
    """Share of a step that no combination of differences of gradients gives."""
    _, rows = gradients(model, x)
    basis = (rows[1:] - rows[0]).T if len(rows) > 1 else rows.T
    step = step.double().flatten()[:, None]
    left = step - basis @ torch.linalg.lstsq(basis, step, driver="gelsd").solution
    return float(left.norm() / step.norm())


def bracket(model: nn.Module, x: Tensor, residual: float) -> str:
    """Compare with Hessian products by central differences of gradients."""
    values: list[float] = []
    sizes: list[float] = []
    for h in (1e-5, 2e-6, 1e-8):
        _, g = gradients(model, x)
        n = len(g)

        def moved(j: int, g: Tensor = g, h: float = h) -> Tensor:
            d = g[j].reshape(x.shape) * (h / g[j].norm())
            up, down = gradients(model, x + d)[1], gradients(model, x - d)[1]
            return (up - down) / (2 * h) * g[j].norm()

        products = [moved(j) for j in range(n)]  # products[j][i] = H_i g_j
        b = {(i, j): products[i][j] - products[j][i] for i in range(n) for j in range(n)}
        most, largest = 0.0, max(float(v.norm()) for v in b.values())
        for r in range(n):
            basis = torch.stack([g[i] - g[r] for i in range(n) if i != r]).T
            for i, j in itertools.combinations([k for k in range(n) if k != r], 2):
                v = b[i, j] - b[i, r] - b[r, j]
                size = sum(float(p.norm()) for p in products[i]) + 1e-300
                if v.norm() < 1e-6 * size:
                    continue
                left = (
                    v - basis @ torch.linalg.lstsq(basis, v[:, None], driver="gelsd").solution[:, 0]
                )
                most = max(most, float(left.norm() / v.norm()))
        values.append(most)
        sizes.append(largest)
    if sizes[2] == 0:  # the gradients nearby are the same bits: far out kinks look like bends
        if residual:
            raise Wrong(f"residual {residual:.4g}, where the network is affine")
        return "affine around the input, by differences of gradients"
    # across a kink differences grow as the step shrinks, and rounding does as well
    steady = abs(values[0] - values[1]) < 0.02 and sizes[1] < 1.05 * sizes[0] + 1e-12
    if steady and abs(values[1] - residual) > 0.05:
        raise Wrong(f"residual {residual:.4g}, by differences of gradients {values[1]:.4g}")
    return f"residual by differences of gradients ({values[1]:.3g})" if steady else ""


def watched(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of the calls that sites name, as far as they are calls of modules."""
    modules = dict(model.named_modules())
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
    handles = []
    for path in {n.split(":")[0] for n in names if "#" not in n}:
        if path in modules and path:
            seen = calls.setdefault(path, [])
            into: list[Tensor] = []

            def before(m: nn.Module, a: tuple, into: list[Tensor] = into) -> None:
                into.append(a[0].detach().clone())

            def after(
                m: nn.Module, a: tuple, out: object, seen: list = seen, into: list[Tensor] = into
            ) -> None:
                if isinstance(out, Tensor):
                    seen.append((into[-1], out.detach().clone()))

            handles += [
                modules[path].register_forward_pre_hook(before),
                modules[path].register_forward_hook(after),
            ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for h in handles:
            h.remove()
    out = {}
    for name in names:
        path, _, k = name.partition(":")
        if "#" not in name and len(calls.get(path, [])) > int(k or 0):
            out[name] = calls[path][int(k or 0)]
    return out


def spread(sites: list[str]) -> list[str]:
    """A few of them, the first and the last included."""
    at = np.unique(np.linspace(0, len(sites) - 1, MOST).round().astype(int))
    return [sites[i] for i in at]


def orbit(model: nn.Module, orbit: list[Tensor], f: pd.DataFrame, back: bool = False) -> str:
    """Transformation and sample variance of the liveliest units of some sites."""
    seen = [watched(model, x, list(f["site"].unique())) for x in orbit]
    names: list[str] = []
    for name in spread(list(seen[0])) if seen[0] else []:
        values = [s[name][1] for s in seen]
        if back:
            if values[0].dim() != 4 or values[0].shape[2] != values[0].shape[3]:
                continue  # tokens, or channels last
            values = [torch.rot90(v, -k, (2, 3)) for k, v in enumerate(values)]
        names.append(name)
        a = torch.stack([v.double().flatten(1) for v in values])  # [T, N, units]
        tv, sv = a.std(0).mean(0), a.std(1).mean(0)
        rows = f[f["site"] == name]
        close(rows["transformation_variance"], tv, 1e-3, f"variance over the orbit at {name}")
        close(rows["sample_variance"], sv, 1e-3, f"variance over samples at {name}")
    return f"variances at {', '.join(names)}, of a literal orbit" if names else ""


def homogeneous(model: nn.Module, x: Tensor, f: pd.DataFrame) -> str:
    """Deviations of the modules that are activation functions of one tensor."""
    seen = watched(model, x, list(f["site"].unique()))
    modules = dict(model.named_modules())
    for name in spread(list(seen)) if seen else []:
        act, z = double(modules[name.split(":")[0]]), seen[name][0].double()
        for _, row in f[f["site"] == name].iterrows():
            with torch.no_grad():
                t = float(row["scale"])
                top = (act(t * z) - t * act(z.clone())).abs().mean()
                want = float(top / (t * act(z.clone())).abs().mean().clamp_min(1e-300))
            if abs(want - row["deviation"]) > 1e-4 * max(1.0, want):
                raise Wrong(
                    f"deviation at {name}, scale {t}: {row['deviation']:.6g}, not {want:.6g}"
                )
    return f"deviations at {', '.join(spread(list(seen)))}" if seen else ""


def crossings(model: nn.Module, x: Tensor, radius: float, f: pd.DataFrame) -> str:
    """Units of ReLU modules that have both signs among the corners of the neighbourhood."""
    sites = [c.partition("@")[2] for c in f.columns if c.startswith("hyperplanes@")]
    g = torch.Generator().manual_seed(0)
    size = x.numel()
    basis = torch.randn(size, min(16, size), generator=g, dtype=torch.float64)
    steps = radius * torch.linalg.qr(basis).Q.T.reshape(-1, *x.shape)
    seen = watched(model, torch.cat([x[None], x + steps, x - steps]), sites)
    modules, compared = dict(model.named_modules()), 0
    for name in seen:
        if isinstance(modules[name.split(":")[0]], nn.ReLU):
            z = seen[name][0].flatten(1)
            want = int(((z.min(0).values < 0) & (z.max(0).values > 0)).sum())
            close(f[f"hyperplanes@{name}"], [want], 1e-9, f"hyperplanes of {name}")
            compared += 1
    return (
        f"hyperplanes of {compared} ReLU modules, by their signs at the corners" if compared else ""
    )


def overlap(model: nn.Module, x: Tensor, maps: Tensor, f: pd.DataFrame) -> str:
    """Best intersection over union of each unit of some sites."""
    seen = {k: v[1] for k, v in watched(model, x, list(f["site"].unique())).items()}
    maps_at = [k for k, v in seen.items() if v.dim() == 4]
    names = spread(maps_at) if maps_at else []
    labelled = (maps > 0).flatten(1).any(1)
    for name in names:
        a = seen[name]
        if f[f["site"] == name]["unit"].nunique() == a.shape[-1] != a.shape[1]:
            a = a.permute(0, 3, 1, 2)  # channels last, as of a linear layer
        flat = a.transpose(0, 1).flatten(1).sort(1).values
        k = int(np.ceil(0.995 * flat.shape[1] - 1e-9)) - 1
        up = nn.functional.interpolate(a, maps.shape[1:], mode="bilinear", align_corners=False)
        up = torch.minimum(up, a.amax((2, 3), keepdim=True))  # rounding may lead above it
        on = (up > flat[:, k].reshape(1, -1, 1, 1))[labelled]
        best = torch.zeros(a.shape[1], dtype=torch.float64)
        for concept in (1, 2, 3):
            there = (maps == concept)[labelled][:, None]
            union = (on | there).sum((0, 2, 3)).clamp_min(1)
            best = torch.maximum(best, (on & there).sum((0, 2, 3)).double() / union)
        rows = f[f["site"] == name].sort_values("unit")
        off = np.abs(raw(rows["iou"]) - raw(best)) > 0.02  # a pixel that ties in float32
        if off.mean() > 0.05:
            raise Wrong(f"IoU at {name}: {off.sum()} of {len(off)} units differ")
    return f"IoU of all units at {', '.join(names)}" if names else ""


def kernels_alike(a: nn.Module, b: nn.Module, x: Tensor, f: pd.DataFrame) -> str:
    """Unbiased linear CKA of flattened activations."""
    seen_a = watched(a, x, list(f["site_a"].unique()))
    seen_b = watched(b, x, list(f["site_b"].unique()))
    rows = [r for _, r in f.iterrows() if r["site_a"] in seen_a and r["site_b"] in seen_b]
    rows = [rows[i] for i in sorted({0, len(rows) - 1})] if rows else []
    for row in rows:
        k, m = (centred(s[n][1]) for s, n in ((seen_a, row["site_a"]), (seen_b, row["site_b"])))
        size = float((k * k).sum() * (m * m).sum()) ** 0.5
        want = float((k * m).sum()) / size if size else float("nan")
        if np.isfinite(want) and not abs(want - row["similarity"]) < 1e-3:
            raise Wrong(f"CKA at {row['site_a']}: {row['similarity']:.6g}, not {want:.6g}")
    return f"CKA at {', '.join(str(r['site_a']) for r in rows)}, in NumPy" if rows else ""


def centred(features: Tensor) -> Tensor:
    """U-centred Gram matrix of samples."""
    v = features.double().flatten(1)
    v = v - v.mean(0)
    k = (v @ v.T).fill_diagonal_(0)
    n = len(k)
    rows = k.sum(1) / (n - 2)
    return (k - rows[:, None] - rows[None, :] + k.sum() / ((n - 1) * (n - 2))).fill_diagonal_(0)


def stitched(
    a: nn.Module, b: nn.Module, x: Tensor, accuracy: Callable[[nn.Module], float], f: pd.DataFrame
) -> str:
    """Penalty with b's own statistics, where a's activations take the place of b's by a hook."""
    rows = [r for _, r in f.iterrows() if not r["in_block"] and ":" not in r["site_a"]]
    seen = watched(a, x, [r["site_a"] for r in rows])
    rows = [r for r in rows if r["site_a"] in seen and r["site_b"] in dict(b.named_modules())]
    for row in rows[-1:]:
        value = seen[row["site_a"]][1]
        layer = dict(b.named_modules())[row["site_b"]]
        own = accuracy(b)
        handle = layer.register_forward_hook(lambda m, i, o, value=value: value)
        try:
            want = own - accuracy(b)
        finally:
            handle.remove()
        close(row["penalty_frozen_bn"] + 2, want + 2, 1e-9, f"penalty at {row['site_a']}")
    return f"penalty at {rows[-1]['site_a']}, by a hook" if rows else ""
