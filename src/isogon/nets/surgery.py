"""Surgery: split a model at a site, graft parts of two, swap and freeze weights.

Nothing here changes the user's model: parts share its parameters and buffers, and contexts put
back the very tensors that were there. `recalibrated` gives batch-norm statistics of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import fx, nn

from isogon.nets.anatomy import Anatomy
from isogon.nets.recalibrate import recalibrated
from isogon.nets.sites import ExampleInputs, Site
from isogon.nets.states import swapped

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


def split(model: nn.Module, site: Site | str, *, example: ExampleInputs) -> Split:
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


def cuts(model: nn.Module, select: str = "all", *, example: ExampleInputs) -> list[Site]:
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


def splits(model: nn.Module, select: str = "all", *, example: ExampleInputs) -> list[Split]:
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
