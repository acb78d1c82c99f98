"""A layer drawn again at random: its own initialisation, also where its weights are computed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from isogon.errors import ModelError
from isogon.nets.states import is_torch_hook

SETTLE = (
    15  # power iterations after which a spectral norm is that of the new weight, as at the start
)


@torch.no_grad()
def redrawn(layer: nn.Module, path: str) -> dict[str, Tensor]:
    """The state of a layer whose ``reset_parameters`` has been called, by its own names.

    Weights that are computed from other tensors (`torch.nn.utils.parametrize`; weight norm,
    spectral norm and pruning by hooks) are drawn as those of the plain layer and put through:
    the state is such that the layer computes with a weight that was drawn so.

    Args:
        layer: A module with ``reset_parameters``; not changed.
        path: Its path, for messages.

    Raises:
        ModelError: It has none, or a parametrisation that can't be inverted.
    """
    if not hasattr(layer, "reset_parameters"):
        raise _refused(layer, path, "has no random state of its own")
    twin = _copy(layer)
    hooks = [h for h in twin._forward_pre_hooks.values() if is_torch_hook(h)]
    computed = list(getattr(twin, "parametrizations", {}))
    plain = _plain(twin, [*computed, *(_name(h) for h in hooks)])
    plain.reset_parameters()  # type: ignore[operator]
    for key, value in plain._parameters.items():
        if value is not None and key in twin._parameters:
            twin._parameters[key].copy_(value)  # type: ignore[union-attr]
    for key, value in plain._buffers.items():
        if value is not None and key in twin._buffers:
            twin._buffers[key].copy_(value)  # type: ignore[union-attr]
    for key in computed:
        _through(twin, path, key, plain._parameters[key])
    for hook in hooks:
        _through_hook(twin, hook, plain._parameters[_name(hook)])
    return {k: v.clone() for k, v in twin.state_dict().items() if isinstance(v, Tensor)}


def _copy(layer: nn.Module) -> nn.Module:
    """A copy on the CPU; plain tensors that carry a graph (of old-style norms) are not copied."""
    held = {id(v): v.detach() for v in vars(layer).values() if isinstance(v, Tensor)}
    return copy.deepcopy(layer, held).cpu().train()


def _plain(twin: nn.Module, names: list[str]) -> nn.Module:
    """The layer without what computes its weights: each of them a parameter of its own."""
    plain = object.__new__(parametrize.type_before_parametrizations(twin))
    fields = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks")
    plain.__dict__ = {**twin.__dict__, **{k: copy.copy(twin.__dict__[k]) for k in fields}}
    plain._modules.pop("parametrizations", None)
    for name in names:
        weight = getattr(twin, name)
        plain.__dict__.pop(name, None)
        plain._parameters[name] = nn.Parameter(torch.empty_like(weight))
    for key, value in plain._parameters.items():
        if value is not None and key not in names:
            plain._parameters[key] = nn.Parameter(value.clone())
    for key, value in plain._buffers.items():
        plain._buffers[key] = None if value is None else value.clone()
    return plain


def _through(twin: nn.Module, path: str, key: str, weight: Tensor | None) -> None:
    """Set a parametrised weight; parametrisations that iterate settle on it."""
    try:
        setattr(twin, key, None if weight is None else weight.detach())
    except (NotImplementedError, RuntimeError, AttributeError, TypeError) as error:
        kinds = [type(m).__name__ for m in twin.parametrizations[key]]  # type: ignore[index]
        raise _refused(
            twin, path, f"has a weight computed by {', '.join(kinds)}, which has no inverse"
        ) from error
    for _ in range(SETTLE):
        getattr(twin, key)


def _name(hook: object) -> str:
    return str(getattr(hook, "name", None) or getattr(hook, "_tensor_name", "weight"))


def _through_hook(twin: nn.Module, hook: object, weight: Tensor | None) -> None:
    """The same for what computes a weight by a hook."""
    assert weight is not None
    name, held = _name(hook), twin._parameters
    if isinstance(hook, WeightNorm):
        held[f"{name}_g"].copy_(torch.norm_except_dim(weight, 2, hook.dim))  # type: ignore[union-attr]
        held[f"{name}_v"].copy_(weight)  # type: ignore[union-attr]
        return
    held[f"{name}_orig"].copy_(weight)  # type: ignore[union-attr]
    if isinstance(hook, SpectralNorm):
        for _ in range(SETTLE):
            hook(twin, ())
    else:
        assert isinstance(hook, prune.BasePruningMethod)  # the mask stays as it is


def _refused(layer: nn.Module, path: str, why: str) -> ModelError:
    return ModelError(
        f"{parametrize.type_before_parametrizations(layer).__name__} {path!r} {why}",
        expected="a layer with reset_parameters",
        fix="Give fresh, a function that makes an untrained model.",
    )
