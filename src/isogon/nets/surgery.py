"""Surgery: split a model at a site, graft parts of two, swap and freeze weights.

Nothing here changes the user's model: parts share its parameters and buffers, and contexts put
back the very tensors that were there. `recalibrated` gives batch-norm statistics of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from isogon.errors import ModelError
from isogon.nets.anatomy import Anatomy
from isogon.nets.recalibrate import recalibrated
from isogon.nets.sites import Site
from isogon.nets.trace import unwrap

__all__ = ["Split", "cuts", "frozen", "graft", "recalibrated", "split", "splits", "swapped"]


@dataclass(frozen=True)
class Split:
    """A model cut in two at a site; ``tail(head(x))`` is the model, bit by bit.

    Attributes:
        head: From inputs ``[N, ...]`` to the site's activation ``[N, *site.shape]``.
        tail: From that activation to the model's output.
        site: Where the cut is.
    """

    head: fx.GraphModule
    tail: fx.GraphModule
    site: Site


def split(model: nn.Module, site: Site | str, *, example: Any) -> Split:
    """Cut a model in two at a site.

    Both parts share the model's parameters and buffers and run in evaluation mode. (The model's
    output can differ in rounding where PyTorch fuses a whole ``nn.TransformerEncoderLayer`` into
    one kernel, which it does without gradients; the parts never do.)

    Args:
        model: A model that can be traced (see `isogon.nets.trace.trace`).
        site: A site of it, or a selector that names exactly one.
        example: Inputs ``[N, ...]``, or batches of which the first is taken.

    Returns:
        Head and tail.

    Raises:
        NotACut: Other paths lead around the site (it lies within a residual block, say); names the
            nearest sites that do cut.
        ModelError: The model can't be traced, or has no such site.
        OptionError: The selector names no site, or several.
    """
    anatomy = Anatomy(model, example)
    where = anatomy.site(site)
    node = anatomy.node(where)
    if node is None or node not in anatomy.cuts:
        raise anatomy.not_a_cut(where, node)
    return Split(anatomy.head(node), anatomy.tail(node), where)


def cuts(model: nn.Module, select: str = "all", *, example: Any) -> list[Site]:
    """Those of the selected sites at which the model can be split, in the order of computation.

    Args:
        model: A model that can be traced.
        select: See `isogon.nets.sites.sites`.
        example: Inputs ``[N, ...]``, or batches of which the first is taken.

    Raises:
        ModelError: The model can't be traced.
        OptionError: The selector names nothing.
    """
    anatomy = Anatomy(model, example)
    return [s for s, n in anatomy.places(select).items() if n in anatomy.cuts]


def splits(model: nn.Module, select: str = "all", *, example: Any) -> list[Split]:
    """The model cut at each of the selected sites that is a cut; traced and run once.

    Args:
        model: A model that can be traced.
        select: See `isogon.nets.sites.sites`.
        example: Inputs ``[N, ...]``, or batches of which the first is taken.

    Raises:
        ModelError: The model can't be traced.
        OptionError: The selector names nothing.
    """
    anatomy = Anatomy(model, example)
    return [
        Split(anatomy.head(node), anatomy.tail(node), site)
        for site, node in anatomy.places(select).items()
        if node is not None and node in anatomy.cuts
    ]


def graft(head: nn.Module, stitch: nn.Module, tail: nn.Module) -> nn.Sequential:
    """``tail(stitch(head(x)))`` as one module with parts of these names.

    Args:
        head: Head of one model.
        stitch: From its activation to the other's.
        tail: Tail of another (its buffers come with it, shared; see `recalibrated`).
    """
    return nn.Sequential(OrderedDict(head=head, stitch=stitch, tail=tail))


# --------------------------------------------------------------------------- reversible changes


@contextmanager
def swapped(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """Other values in the place of parameters or buffers; the very tensors come back afterwards.

    Args:
        model: Any module; a tensor that it holds under several names is swapped under all.
        values: New values by name in ``state_dict``, cast to dtype and device of the old ones.

    Yields:
        The model.

    Raises:
        ModelError: A name the model does not have, or another shape.
    """
    model = unwrap(model)
    slots = _slots(model)
    for name, value in values.items():
        if name not in slots:
            raise ModelError(
                "no such parameter or buffer", got=repr(name), expected=", ".join([*slots][:12])
            )
        module, key, kind = slots[name]
        old = getattr(module, kind)[key]
        if old.shape != value.shape:
            raise ModelError(
                f"another shape for {name!r}", got=tuple(value.shape), expected=tuple(old.shape)
            )
    fresh: dict[int, Tensor] = {}
    for name, value in values.items():
        module, key, kind = slots[name]
        old = getattr(module, kind)[key]
        new = value.detach().to(device=old.device, dtype=old.dtype)
        is_parameter = kind == "_parameters"
        fresh[id(old)] = nn.Parameter(new, old.requires_grad) if is_parameter else new
    undo = []
    try:
        for module, key, kind in slots.values():
            held = getattr(module, kind)
            if id(held[key]) in fresh:
                undo.append((held, key, held[key]))
                held[key] = fresh[id(held[key])]
        yield model
    finally:
        for held, key, old in undo:
            held[key] = old


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """No parameter takes gradients inside; each does as before afterwards.

    Args:
        model: Any module.

    Yields:
        The model.
    """
    held = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in held:
            p.requires_grad_(False)
        yield model
    finally:
        for p, requires_grad in held:
            p.requires_grad_(requires_grad)


def _slots(model: nn.Module) -> dict[str, tuple[nn.Module, str, str]]:
    """Where each parameter and buffer is held, by every name it has."""
    return {
        f"{path}.{key}" if path else key: (module, key, kind)
        for path, module in model.named_modules(remove_duplicate=False)
        for kind in ("_parameters", "_buffers")
        for key, value in getattr(module, kind).items()
        if value is not None
    }
