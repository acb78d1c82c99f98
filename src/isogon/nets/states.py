"""States of a model: other weights in it for a while, and whether a state fits it.

A tensor that several modules (or several names of one module) hold is one tensor: it is swapped
everywhere, and put back everywhere. What PyTorch computes from parameters (parametrisations, and
weight norm, spectral norm and pruning by hooks) follows them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isogon.errors import ModelError
from isogon.nets.unwrap import unwrap

KINDS = ("_parameters", "_buffers")


# --------------------------------------------------------------------------- other weights


@contextmanager
def swapped(
    model: nn.Module, values: Mapping[str, Tensor], *, cast: bool = True
) -> Iterator[nn.Module]:
    """Other values in the place of parameters or buffers; the very tensors come back afterwards.

    Args:
        model: Any module; a tensor that it holds under several names is swapped under all.
        values: New values by name in ``state_dict``. Several names of one tensor need the same
            values.
        cast: Whether they take dtype and device of the old ones.

    Yields:
        The model. What it writes to its buffers meanwhile goes to copies.

    Raises:
        ModelError: A name the model does not have, another shape, or two values for one tensor.
    """
    model = unwrap(model)
    slots = slots_of(model)
    fresh: dict[int, Tensor] = {}
    said: dict[int, str] = {}
    for name, value in values.items():
        if name not in slots:
            raise ModelError(
                "no such parameter or buffer", got=repr(name), expected=", ".join([*slots][:12])
            )
        held, key = slots[name]
        old = held[key]
        if old.shape != value.shape:
            raise ModelError(
                f"another shape for {name!r}", got=tuple(value.shape), expected=tuple(old.shape)
            )
        new = value.detach()
        new = new.to(device=old.device, dtype=old.dtype) if cast else new
        if id(old) in fresh:
            if not torch.equal(fresh[id(old)].detach(), new):
                raise ModelError(
                    "two values for one tensor",
                    got=f"{said[id(old)]!r} and {name!r} are the same tensor of the model",
                    expected="the same values under both names",
                    fix="Give one of the names only.",
                )
            continue
        said[id(old)] = name
        if isinstance(old, nn.Parameter):
            fresh[id(old)] = nn.Parameter(new, old.requires_grad)
        else:
            fresh[id(old)] = new.clone() if new.data_ptr() == value.data_ptr() else new
    undo: list[tuple[dict[str, Any], str, Tensor]] = []
    recurrent = [(m, m._flat_weights) for m in model.modules() if isinstance(m, nn.RNNBase)]
    with computed_weights_kept(model.modules()):
        try:
            for held, key in slots.values():
                if id(held[key]) in fresh:
                    undo.append((held, key, held[key]))
                    held[key] = fresh[id(held[key])]
            for m, _ in recurrent:  # these keep their weights in a list as well
                m._flat_weights = [getattr(m, name, None) for name in m._flat_weights_names]
            _renew(model)
            yield model
        finally:
            for held, key, old in undo:
                held[key] = old
            for m, weights in recurrent:
                m._flat_weights = weights


def slots_of(model: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer is held, by every name it has.

    A shared module has the slots of its first name under its other names too.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for kind in KINDS:
            held = getattr(module, kind)
            for key, value in held.items():
                if value is not None:
                    found[f"{path}.{key}" if path else key] = held, key
    return found


@contextmanager
def computed_weights_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Weights that PyTorch computes from parameters are computed anew inside, and as before after.

    Old-style weight and spectral norm and pruning leave the weight of the last call behind as a
    plain attribute; `torch.nn.utils.parametrize.cached` keeps it in a cache, LeViT its biases in
    a dictionary.
    """
    modules = list(modules)
    plain = [(m.__dict__, _tensors(m.__dict__)) for m in modules]
    kept = [(m.__dict__, key, held, dict(held)) for m in modules for key, held in _caches(m)]
    enabled, cache = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = enabled, cache
        for held, tensors in plain:
            now = _tensors(held)
            for key in now.keys() - tensors.keys():
                del held[key]
            for key, tensor in tensors.items():
                if now.get(key) is not tensor:
                    held[key] = tensor
        for attributes, key, cache, contents in kept:
            cache.clear()
            cache.update(contents)
            attributes[key] = cache


def _caches(module: nn.Module) -> list[tuple[str, dict]]:
    """Dictionaries of tensors that a module has as plain attributes; also those still empty."""
    return [
        (key, held)
        for key, held in vars(module).items()
        if type(held) is dict
        and not key.startswith("_")
        and all(isinstance(v, Tensor) for v in held.values())
    ]


def _renew(model: nn.Module) -> None:
    """Let modules drop what they keep of their weights in evaluation mode.

    They do so where their mode changes, in a ``train`` of their own.
    """
    own = [
        m
        for m in model.modules()
        if type(m).train is not nn.Module.train and any(held for _, held in _caches(m))
    ]
    if not own:
        return
    modes = [(m, m.training) for m in model.modules()]
    for m in own:
        mode = m.training
        m.train(not mode)
        m.train(mode)
    for m, mode in modes:
        m.training = mode


def _tensors(held: dict[str, Any]) -> dict[str, Tensor]:
    return {k: v for k, v in held.items() if isinstance(v, Tensor)}


def is_torch_hook(hook: object) -> bool:
    """Hooks by which PyTorch itself computes a weight from parameters."""
    return type(hook).__module__.startswith("torch.nn.utils.")


@torch.no_grad()
def weight_of(module: nn.Module) -> Tensor | None:
    """The weight that a layer computes with, as its parameters are now; None if it has none.

    (The ``weight`` that old-style weight norm, spectral norm and pruning leave behind is that of
    the last call; to read that of a spectral norm in training mode changes its buffers.)
    """
    hooks = [h for h in module._forward_pre_hooks.values() if is_torch_hook(h)]
    if not hooks and not parametrize.is_parametrized(module):
        weight = getattr(module, "weight", None)
        return weight.detach() if isinstance(weight, Tensor) else None
    modes = [(m, m.training) for m in module.modules()]
    with computed_weights_kept([module]):
        try:
            for m, _ in modes:
                m.training = False
            for hook in hooks:
                hook(module, ())
            weight = getattr(module, "weight", None)
            return weight.detach() if isinstance(weight, Tensor) else None
        finally:
            for m, training in modes:
                m.training = training


# --------------------------------------------------------------------------- does a state fit


def misfits(
    model: nn.Module,
    state: Mapping[str, Any],
    keys: Iterable[str] | None = None,
    *,
    optional: tuple[str, ...] = ("num_batches_tracked",),
) -> tuple[list[str], list[str], list[str]]:
    """What keeps a state from fitting a model.

    A tensor with several names in the model may stand under any of them in the state.

    Args:
        model: The model.
        state: Tensors by name.
        keys: The names that matter; all of the model's where it is None.
        optional: Ends of names that may be missing: counters of batch-norm are absent from old
            files and play no part in evaluation.

    Returns:
        Names that are missing, names that the model does not have, and those of another shape
        (``"fc.weight (3, 4) for (3, 5)"``).
    """
    model = unwrap(model)
    own = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    wanted = list(own) if keys is None else list(keys)
    names = aliases(own)
    missing = [
        k
        for k in wanted
        if not any(a in state for a in names.get(k, (k,))) and not k.endswith(optional)
    ]
    unexpected = [k for k in state if k not in own] if keys is None else []
    shapes = []
    for key in wanted:
        theirs = value_in(state, key, names)
        if theirs is not None and key in own and tuple(theirs.shape) != tuple(own[key].shape):
            shapes.append(f"{key} {tuple(theirs.shape)} for {tuple(own[key].shape)}")
    return missing, unexpected, shapes


def aliases(own: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """All names of the tensor that has a name, for each of a state's names that has several."""
    groups: dict[int, list[str]] = {}
    for key, value in own.items():
        groups.setdefault(id(value), []).append(key)
    return {key: tuple(group) for group in groups.values() if len(group) > 1 for key in group}


def value_in(
    state: Mapping[str, Any], key: str, names: Mapping[str, tuple[str, ...]]
) -> Tensor | None:
    """The tensor of a name in a state, under any of the names that it has in the model."""
    for name in (key, *names.get(key, ())):
        if isinstance(found := state.get(name), Tensor):
            return found
    return None


# What a tensor of a state may be that no parameter takes numbers from, and what to do about it.
_WITHOUT = {
    "without numbers (on the device meta)": "Save the weights again, of a model that has them: "
    "the file holds their shapes alone.",
    "quantised": "Dequantise them: state = {k: v.dequantize() if v.is_quantized else v "
    "for k, v in state.items()}; torch.save(state, path).",
    "complex": "Save real weights (v.real, where the imaginary parts are zero), or give an "
    "architecture whose parameters are complex.",
}


def without_numbers(
    model: nn.Module, state: Mapping[str, Any]
) -> tuple[dict[str, list[str]], str | None]:
    """Tensors of a state that hold no numbers which the model's own can take as they are.

    Those on the device ``meta``, quantised ones, and complex ones where the model has real ones
    (PyTorch would drop their imaginary parts).

    Returns:
        Names by what they are, and what to do about the first of these.
    """
    own = unwrap(model).state_dict(keep_vars=True)
    found: dict[str, list[str]] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        theirs = own.get(name)
        taken = isinstance(theirs, Tensor) and theirs.is_complex()
        held = (value.is_meta, value.is_quantized, value.is_complex() and not taken)
        for what in [w for w, is_so in zip(_WITHOUT, held) if is_so][:1]:
            found.setdefault(what, []).append(name)
    return found, next((_WITHOUT[what] for what in found), None)


def _check_numbers(model: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Refuse what `without_numbers` finds."""
    bare, fix = without_numbers(model, state)
    for kind, names in bare.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ModelError(
            f"{what} holds tensors that are no dense real numbers",
            got=f"{names[0]}{more}: {kind}",
            expected="numbers of the kind that the model has",
            fix=fix,
        )


def dense(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without sparse tensors: these as dense ones. Shapes must have been compared."""
    return {name: value.to_dense() for name, value in state.items()}


def fitted(
    model: nn.Module,
    state: Mapping[str, Any],
    keys: Iterable[str] | None = None,
    *,
    what: str,
    part: str = "the model",
) -> dict[str, Tensor]:
    """The tensors of a state that go into a model, under the model's names.

    Args:
        model: The model.
        state: Tensors by name.
        keys: The names wanted; all where it is None.
        what: What the state is called in messages.
        part: What it must fit.

    Raises:
        ModelError: Names are missing, shapes differ, or values are not finite real numbers.
    """
    model = unwrap(model)
    own = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    wanted = list(own) if keys is None else list(keys)
    missing, _, shapes = misfits(model, state, wanted, optional=())
    names = aliases(own)
    if missing or shapes:
        wrong = f"{missing[0]}: missing" if missing else shapes[0].replace(" ", ": ", 1)
        key = missing[0] if missing else shapes[0].split(" ")[0]
        more = len(missing) + len(shapes) - 1
        raise ModelError(
            f"{what} does not fit {part}",
            got=wrong + (f", and {more} more" if more else ""),
            expected=f"{key}: {list(own[key].shape)}",
            fix="Give snapshots of this model.",
        )
    held = {k: v for k in wanted if (v := value_in(state, k, names)) is not None}
    _check_numbers(model, held, what)
    found: dict[str, Tensor] = {}
    for key, value in dense(held).items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(
                f"{what} holds NaN or infinite weights",
                got=f"{key}, {int((~value.isfinite()).sum())} of {value.numel()} values",
                expected="finite values",
                fix="Leave it out.",
            )
        found[key] = value.detach()
    return found


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Copy tensors by name into a model: `load_state_dict` of what a file or a dictionary holds.

    Modules may note a version beside their tensors and ask for it (torchvision's MNASNet does);
    files of tensors alone have none. Such modules are told their own version, those of torch
    itself none, so that they fill in what files of earlier versions lack.
    """
    held = OrderedDict(state)
    if not hasattr(state, "_metadata"):
        held._metadata = {  # type: ignore[attr-defined]
            path: {"version": module._version}
            for path, module in model.named_modules()
            if not type(module).__module__.startswith("torch.")
        }
    else:
        held._metadata = state._metadata  # type: ignore[attr-defined]
    model.load_state_dict(held, strict=strict)
