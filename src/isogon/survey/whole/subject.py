"""Facts about what is surveyed: the architecture, the data, how well the one fits the other."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from torch import nn

from isogon.errors import IsogonError
from isogon.nets import hygiene
from isogon.nets.accuracy import accuracy
from isogon.nets.outputs import logits
from isogon.nets.sites import called
from isogon.nets.unwrap import unwrap
from isogon.survey.whole.defaults import Subject

PICTURES = 14


def facts(subject: Subject) -> dict[str, Any]:
    """What a report says at its top, as plain data."""
    module, data = subject.module, subject.data
    device, _ = hygiene.device_dtype(module)
    samples = data.samples
    found: dict[str, Any] = {
        "model": subject.model,
        "batches": subject.batches,
        "class": type(module).__name__,
        "parameters": sum(p.numel() for p in module.parameters()),
        "buffers": sum(b.numel() for b in module.buffers()),
        "dtype": hygiene.precision(module),
        "device": str(device),
        "samples": data.count,
        "shape": list(getattr(samples, "shape", ())),
        "classes": [str(c) for c in (data.classes or [])],
        "layers": layers(module, data.first(2)[0]),
    }
    try:
        found["accuracy"] = float(accuracy(module, data))
    except IsogonError:
        found["accuracy"] = None  # regression, or labels that are not classes
    found["pictures"] = pictures(subject) if subject.images else []
    return found


def layers(module: nn.Module, example: torch.Tensor) -> list[dict[str, Any]]:
    """One row per leaf module: path, type, shape of its output without the sample axis, weights."""
    module = unwrap(module)
    names = {m: n for n, m in module.named_modules() if not any(m.children())}
    try:
        found = called(module, example)
    except (IsogonError, RuntimeError, TypeError, ValueError):
        found = []  # a measure will say what is wrong, in better words
    shapes = {site.path: list(site.shape) for site in found if not site.call}
    return [
        {
            "path": name or "(model)",
            "type": type(leaf).__name__,
            "detail": leaf.extra_repr()[:120],
            "shape": shapes.get(name),
            "parameters": sum(p.numel() for p in leaf.parameters(recurse=False)),
        }
        for leaf, name in names.items()
    ]


def pictures(subject: Subject) -> list[dict[str, Any]]:
    """The first samples as PNG data, with label and prediction."""
    x, y = subject.data.first(PICTURES)
    if x.shape[1] not in (1, 3) or not x.is_floating_point():
        return []
    names = subject.data.classes
    try:
        with hygiene.preserved(subject.module), torch.no_grad():
            said = logits(subject.module, hygiene.cast(x, subject.module))
        said = said.softmax(1) if said.dim() == 2 and said.shape[1] > 1 else None
    except (IsogonError, RuntimeError):
        said = None

    def name(index: int) -> str:
        return str(names[index]) if names and 0 <= index < len(names) else str(index)

    found = []
    for i in range(len(x)):
        row: dict[str, Any] = {"src": png(x[i].cpu()), "label": name(int(y[i]))}
        if said is not None:
            p, k = said[i].max(0)
            row |= {
                "prediction": name(int(k)),
                "probability": float(p),
                "right": int(k) == int(y[i]),
            }
        found.append(row)
    return found


def png(image: torch.Tensor) -> str:
    """A picture [C, H, W] in [0, 1] as a data URI."""
    from PIL import Image

    array: Any = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    array = array.squeeze(2) if array.shape[2] == 1 else array
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
