"""How much a file may have built: counted while an architecture that it names is built.

A spec of a few bytes can ask for a network of any size. So what a file names is first built on
the meta device, where tensors have shapes and no memory, and there within limits that follow
from what the file itself holds: whole numbers may not exceed its largest axis and its number of
tensors by much (they end up as lengths of lists, before any layer exists), parameters and
buffers are counted as modules register them, and so are the steps of Python that building takes
(for loops that register nothing).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from isogon import context
from isogon.errors import ModelError

TIMES = 4  # what may be built, over what the file holds
FREE_NUMBER = 4096  # whole numbers up to this one are no danger
FREE_VALUES = 2**20  # values of tensors that no file holds: masks, fixed positions
FREE_TENSORS = 64
FREE_MODULES = 256
FREE_STEPS = 150_000  # of Python; the registered architectures take 2 to 120,000
STEPS = 500  # more of them for each tensor; the registered ones take up to 100
VALUES_PER_STEP = 20  # and one for so many values: banks of filters are made one by one

_TORCH = os.fspath(Path(torch.__file__).parent) + os.sep
_MODULE = nn.Module.__init__.__code__
_CALL = 16  # calls of PyTorch's own functions that count as a step
_IMPORT = ("<frozen importlib._bootstrap>", "_find_and_load")


def built(build: Callable[[], nn.Module], state: Mapping[str, Tensor], path: object) -> nn.Module:
    """The model that ``build`` makes on the meta device, on the word of a file.

    Args:
        build: Builds what the file names.
        state: The weights that the file holds.
        path: The file, for messages.

    Raises:
        ModelError: It would be larger than what the file holds allows.
        SpecError: It names what a file may not name, or a number that is too large.
    """
    held = sum(t.numel() for t in state.values())
    limit = FREE_STEPS + STEPS * len(state) + held // VALUES_PER_STEP
    with (
        source(state, path),
        torch.device("meta"),
        _registered(held, len(state), path),
        _counted(limit, FREE_MODULES + TIMES * len(state), path),
    ):
        return build()


@contextmanager
def source(state: Mapping[str, Tensor], path: object) -> Iterator[None]:
    """Specs inside were brought by a file, with numbers no larger than its weights explain."""
    axes = max((n for t in state.values() for n in t.shape), default=0)
    largest = max(FREE_NUMBER, TIMES * axes, TIMES * len(state))
    with context.from_file(str(path), largest=largest):
        yield


@contextmanager
def _registered(held: int, tensors: int, path: object) -> Iterator[None]:
    """Stop what this thread builds inside once its parameters and buffers are too many."""
    values, count = FREE_VALUES + TIMES * held, FREE_TENSORS + TIMES * tensors
    left, thread = [values, count], threading.get_ident()

    def register(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != thread:
            return
        left[0] -= tensor.numel()
        left[1] -= 1
        if min(left) < 0:
            raise _too_large(
                f"more than {values} values or {count} tensors",
                f"at most {TIMES} times what it holds ({held} values, {tensors} tensors), "
                f"and {FREE_VALUES} values",
                path,
            )

    handles = [
        nn.modules.module.register_module_parameter_registration_hook(register),
        nn.modules.module.register_module_buffer_registration_hook(register),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _too_large(got: str, expected: str, path: object) -> ModelError:
    return ModelError(
        "a file asks for a far larger model than the one that it holds",
        got=f"{got}, in {path}",
        expected=expected,
        fix=f"If you trust it, name the architecture yourself: ARCHITECTURE@{path}.",
    )


@contextmanager
def _counted(limit: int, modules: int, path: object) -> Iterator[None]:
    """Stop what runs inside, in this thread, after so many steps or modules.

    Steps are lines of Python (each round of a loop, also of a comprehension) and calls; of those
    in PyTorch itself the calls alone, some together (its loops go over what was built); of those
    in imports none.
    """
    done = importing = begun = 0

    def step(frame: FrameType, event: str, given: Any) -> Any:
        nonlocal done, importing, begun
        code = frame.f_code
        if event == "call" and (code.co_filename, code.co_name) == _IMPORT:
            importing += 1
            return imported
        if importing:
            return None
        inside = event == "call" and code.co_filename.startswith(_TORCH)
        done += 1 if inside else _CALL
        begun += code is _MODULE and event == "call"
        if begun > modules:
            sys.settrace(None)
            raise _too_large(
                f"more than {modules} modules",
                f"at most {FREE_MODULES}, and {TIMES} for each tensor in the file",
                path,
            )
        if done > _CALL * limit:
            sys.settrace(None)
            raise _too_large(
                f"more than {limit} steps of building",
                f"at most {FREE_STEPS}, and {STEPS} for each tensor in the file",
                path,
            )
        return None if inside else step

    def imported(frame: FrameType, event: str, given: Any) -> Any:
        nonlocal importing
        if event == "return":
            importing -= 1
        return imported

    before = sys.gettrace()
    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(before)
