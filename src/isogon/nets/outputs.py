"""What a model returns: which of its tensors is the logits, and what lies below a softmax."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from isogon.errors import ModelError
from isogon.nets.contiguous import contiguous
from isogon.nets.hygiene import cast, preserved
from isogon.nets.unwrap import uncompiled, unwrap
from isogon.nets.watch import run_on
from isogon.specs import render

Path = tuple[int | str, ...]


def output_tensor(output: Any, *, leaf: type = Tensor) -> Any:
    """The logits in what a model returned.

    They are the output itself where it is a tensor, its ``logits`` (attribute or key) where it
    has such a tensor, or the only tensor in it (a tuple, list, dict, named tuple or dataclass,
    also nested).

    Args:
        output: Anything.
        leaf: What counts as a tensor.

    Raises:
        ModelError: No tensor, or several of which none is called ``logits``: names the keys that
            there are and the wrapper to write.
    """
    if isinstance(output, leaf):
        return output
    named = _parts(output).get("logits")
    if isinstance(named, leaf):
        return named
    found = list(leaves(output, leaf))
    if len(found) == 1:
        return found[0][1]
    kind = type(output).__name__
    if not found:
        raise ModelError(
            "the model's output is not a tensor",
            got=kind,
            expected="logits [N, classes], alone or in a tuple, dict or dataclass",
            fix="Wrap the model in a module that returns its logits.",
        )
    shown = ", ".join(f"{_key(path)} {_sizes(value)}" for path, value in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    path = _keys(output, found[0][0])
    raise ModelError(
        f"the model returns {len(found)} tensors and none of them is called logits",
        got=f"a {kind} with {shown}{more}",
        expected="one tensor, or one that is called logits",
        fix="Say which: model = isogon.nets.Output(model, "
        f"{', '.join(_one_line(repr(k)) for k in path)}) takes the first; on the command line "
        + _in_shell(f"output(MODEL, {', '.join(_one_line(render(k)) for k in path)})")
        + ".",
    )


class Output(nn.Module):
    """A model that returns one of the tensors that another model returns.

    Args:
        model: Returns a tuple, dict, named tuple or dataclass.
        *path: Key, attribute or index of the tensor; several for nested outputs. In a dict an
            integer that is no key counts the keys.
    """

    def __init__(self, model: nn.Module, *path: int | str) -> None:
        super().__init__()
        self.model, self.path = model, path

    def forward(self, *inputs: Any) -> Any:
        """The tensor."""
        found = self.model(*inputs)
        for key in self.path:
            parts = _parts(found)
            if isinstance(key, int) and isinstance(found, Mapping):
                if key not in parts and -len(parts) <= key < len(parts):
                    key = list(parts)[key]
            elif isinstance(key, int) and key < 0:
                key += len(parts)
            if key not in parts:
                raise ModelError(
                    f"the model's output has no {key!r}",
                    got=f"a {type(found).__name__} with {', '.join(map(str, parts)) or 'nothing'}",
                    expected="one of its keys",
                )
            found = parts[key]
        return found

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return ", ".join(map(repr, self.path))


def _parts(output: Any) -> dict[Any, Any]:
    """Keys and values of a container; empty for anything else."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", ())
        return {**dict(enumerate(output)), **dict(zip(names, output))}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {f.name: getattr(output, f.name, None) for f in dataclasses.fields(output)}
    if isinstance(logits := getattr(output, "logits", None), Tensor):
        return {"logits": logits}
    return {}


def leaves(output: Any, leaf: type = Tensor, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every tensor in an output with the keys that lead to it; each once."""
    if isinstance(output, leaf):
        yield path, output
        return
    parts = _parts(output)
    if isinstance(output, tuple) and (names := getattr(output, "_fields", ())):
        parts = {name: parts[name] for name in names}  # under its name, not its index too
    for key, value in parts.items():
        yield from leaves(value, leaf, (*path, key))


def _key(path: Path) -> str:
    """A path for reading: ``out.scores[0]``."""
    words = ""
    for key in path:
        if isinstance(key, str) and key.isidentifier():
            words += f".{key}" if words else key
        else:
            words += f"[{key!r}]" if words else _one_line(repr(key))
    return words


def _keys(output: Any, path: Path) -> list[int | str]:
    """A path in integers and texts: other keys (tuples, numbers, enumerations) by their place."""
    found: list[int | str] = []
    for key in path:
        parts = _parts(output)
        if isinstance(key, str):
            found.append(str.__str__(key))
        elif isinstance(key, int) and not isinstance(key, bool):
            found.append(int(key))
        else:
            place = list(parts).index(key)  # from the end, where that number is a key itself
            found.append(place - len(parts) if place in parts else place)
        output = parts[key]
    return found


def _one_line(text: str) -> str:
    """A quoted text without blanks in a row, which messages would join."""
    return text.replace("  ", " \\x20")


def _in_shell(text: str) -> str:
    """Between quotes for a shell: single ones, or double ones where those stand in the text."""
    if "'" in text and not set('"$`\\!') & set(text):
        return f'"{text}"'
    return f"'{text}'" if "'" not in text else shlex.quote(text)


def _sizes(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else ""


# --------------------------------------------------------------------------- softmax


_ATEN = torch.ops.aten
_SOFTMAX = {
    torch.softmax,
    torch.log_softmax,
    F.softmax,
    F.log_softmax,
    Tensor.softmax,
    Tensor.log_softmax,
    torch.special.softmax,
    torch.special.log_softmax,
    _ATEN.softmax.int,
    _ATEN.log_softmax.int,
    _ATEN._softmax.default,
    _ATEN._log_softmax.default,
}
_LOG = {torch.log, Tensor.log, _ATEN.log.default}
# What changes the shape of a tensor and, of `[N, C, 1, 1]`, none of its values or their order.
_RESHAPING = {
    torch.flatten,
    torch.reshape,
    torch.squeeze,
    torch.unsqueeze,
    torch.mean,
    F.adaptive_avg_pool2d,
    Tensor.flatten,
    Tensor.reshape,
    Tensor.view,
    Tensor.squeeze,
    Tensor.unsqueeze,
    Tensor.mean,
    Tensor.__getitem__,
    Tensor.contiguous,
    Tensor.clone,
    Tensor.to,
    Tensor.float,
    Tensor.double,
    _ATEN.flatten.using_ints,
    _ATEN.reshape.default,
    _ATEN.view.default,
    _ATEN.squeeze.default,
    _ATEN.squeeze.dim,
    _ATEN.squeeze.dims,
    _ATEN.unsqueeze.default,
    _ATEN.mean.dim,
    _ATEN.adaptive_avg_pool2d.default,
    _ATEN.select.int,
    _ATEN.clone.default,
    _ATEN.contiguous.default,
    _ATEN.to.dtype,
    _ATEN._to_copy.default,
}


class _BelowSoftmax(TorchFunctionMode):
    """Remembers what went into each softmax over classes, by the tensor that came out.

    That is over any axis but that of the samples, as `isogon.cpwl.lower` has it.

    Sees modules and functional calls alike; only the last few are kept, since only the one that
    *is* the model's output matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(result, Tensor) and result.dim() > 1:
            x = args[0] if args else kwargs.get("input", kwargs.get("self"))
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if dim is None:  # as PyTorch takes it
                dim = 0 if result.dim() == 3 else 1
            if isinstance(x, Tensor) and isinstance(dim, int) and dim % result.dim():
                self._keep(result, x)
        elif func in _LOG and args and (below := self.below(args[0])) is not None:
            self._keep(result, below)
        elif func in _RESHAPING and args and self._one_row(args[0], result):
            below = self.below(args[0])
            if below is not None and result is not args[0]:
                self._keep(result, below.reshape(result.shape).to(result.dtype))
        return result

    def _one_row(self, before: Any, after: Any) -> bool:
        """Whether two tensors hold the same distribution per sample, all of it in one axis."""
        if not (isinstance(before, Tensor) and isinstance(after, Tensor)) or before.dim() < 2:
            return False
        same = before.numel() == after.numel() and after.dim() > 0 and len(after) == len(before)
        return same and before[:1].numel() == max(before.shape[1:]) and before.is_floating_point()

    def _keep(self, result: Tensor, x: Tensor) -> None:
        # a softmax of a softmax is not a softmax of the logits: what counts is the last one
        self.seen = [*self.seen[-1:], (result, x)]

    def below(self, output: Any) -> Tensor | None:
        return next((x for result, x in self.seen if result is output), None)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs before a trailing softmax or log-softmax (module or function), if there is one.

    Runs in the model's own mode; gradients flow if they are enabled.

    Args:
        model: A module from ``[N, ...]`` to ``[N, C]`` (see `output_tensor`).
        x: Inputs ``[N, ...]``.

    Returns:
        ``[N, C]``; one output per sample gives ``[N, 1]``.

    Raises:
        ModelError: The output is not one tensor of real numbers, its first axis is not the
            sample axis, or the model wants other inputs than one tensor.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.LogSoftmax(dim=1))
        >>> x = torch.zeros(1, 2)
        >>> torch.equal(logits(net, x), net[0](x))
        True
    """
    model = unwrap(model)
    # the clone: a first layer in place would change the user's data
    with uncompiled(model), contiguous():
        return outputs(lambda x: run_on(model, x.clone()), x)[1]


def outputs(run: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor in a model's output, and the `logits` behind it, from one forward pass.

    Args:
        run: The forward pass.
        x: Inputs ``[N, ...]``.

    Raises:
        ModelError: As `logits`.
    """
    with _BelowSoftmax() as mode:
        output = output_tensor(run(x))
    below = mode.below(output)
    z = output if below is None else below
    if not z.is_floating_point():
        raise ModelError(
            "the model's output is not real-valued",
            got=f"{str(z.dtype).removeprefix('torch.')} {list(z.shape)}",
            expected="logits, one real number per class",
            fix="Return what the argmax (or the threshold) is taken of.",
        )
    if z.dim() == 1 and len(x) == len(z):
        z = z[:, None]
    if z.dim() == 0 or len(z) != len(x):
        raise ModelError(
            "the model's output does not keep the sample axis first",
            got=f"input {tuple(x.shape)}, output {tuple(z.shape)}",
            expected="[N, ...] to [N, classes]",
            fix="Wrap the model in a module whose outputs have one row per sample.",
        )
    return output, z


def correct(z: Tensor, y: Tensor) -> Tensor:
    """Which samples are classified right: argmax of ``[N, C]``, sign where C = 1 (labels 0, 1).

    Ties go to the first class, as `torch.argmax` does.
    """
    guess = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
    return guess == y.to(guess.device).reshape(len(guess))


@torch.no_grad()
def outputs_of(model: nn.Module, x: Tensor) -> int | None:
    """Number of outputs of a model per sample; None where it gives no row of logits."""
    with preserved(model) as inner:
        try:
            z = logits(inner, cast(x[:1], inner))
        except (ModelError, RuntimeError, IndexError, ValueError, TypeError):
            return None
    return z.shape[1] if z.dim() == 2 else None
