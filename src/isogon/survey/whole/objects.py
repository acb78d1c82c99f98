"""Objects of the calling program as specs: ``given(model)``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from isogon import context
from isogon.data.load import as_batches
from isogon.nets import hygiene
from isogon.specs import Spec, parse
from isogon.survey.declaring.check import canonical
from isogon.survey.running.run import Session


@contextmanager
def handed_over(**inputs: Any) -> Iterator[dict[str, str]]:
    """Canonical specs for inputs that are specs, modules or data; objects have a name inside.

    A module leaves as it came in, whatever is done to it inside.

    Args:
        **inputs: By name: a spec, a module, a re-iterable of (x, y), or None.

    Yields:
        Spec by name; inputs that are None are left out.
    """
    specs: dict[str, str] = {}
    objects: dict[str, Any] = {}
    with ExitStack() as stack:
        for name, value in inputs.items():
            if value is None:
                continue
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            if isinstance(value, str | Spec):
                specs[name] = canonical(value)
                continue
            specs[name] = str(Spec("given", (name,)))
            if isinstance(value, nn.Module):
                stack.enter_context(_mode_kept(value))
                objects[name] = value
            else:
                objects[name] = as_batches(value)
        stack.enter_context(context.handing_over(objects))
        yield specs


@contextmanager
def _mode_kept(model: nn.Module) -> Iterator[None]:
    """Training mode as it was afterwards; all else each measure puts back itself."""
    modes = [(m, m.training) for m in model.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def session_of(*models: Any) -> Session:
    """A session on the device of the first module; on the CPU where all models are specs."""
    found = next((m for m in models if isinstance(m, nn.Module)), None)
    return Session(device="cpu" if found is None else str(hygiene.device_dtype(found)[0]))


def is_given(spec: str) -> bool:
    """Whether a spec stands for an object that no command line can name."""
    found = parse(spec)
    return found.module is None and found.name == "given"
