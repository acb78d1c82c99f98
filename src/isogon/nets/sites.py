"""Sites: the places in a model where activations can be read, and how to select them.

A site is one call of one module: ``layer1.0.relu`` is its first call, ``layer1.0.relu:1`` the
second (a ReLU that is used twice); or one operation that a module's own ``forward`` calls:
``layer1.0:add#0`` is the first sum in it. The traced graph uses the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from isogon.errors import DataError, NoSuchSite, OptionError, nearest
from isogon.nets.hygiene import cast, preserved
from isogon.nets.states import weight_of
from isogon.nets.unwrap import unwrap
from isogon.nets.watch import NONLINEAR_OPS, misfit, watched

# inputs [N, ...], a pair (x, y), or batches of pairs, of which the first is taken
ExampleInputs = Tensor | Iterable


@dataclass(frozen=True)
class Site:
    """A place in a model: the output of one call of one operation.

    Attributes:
        path: Path of the module, e.g. ``layer1.0.relu``, or ``<owner>:<operation>#<k>``; empty for
            the model itself.
        call: Which call of that module within one forward pass, from 0.
        op: Type name of the module or operation, e.g. ``ReLU``.
        shape: Shape of the output without the sample axis; empty where the model was not run.
    """

    path: str
    call: int = 0
    op: str = ""
    shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """``path`` for the first call, ``path:call`` for later ones; unique within a model."""
        path = self.path or "model"
        return f"{path}:{self.call}" if self.call else path

    def __str__(self) -> str:
        return self.name


# Softmax is a read-out, attention a layer; every other module of torch's is a nonlinearity.
_NOT_NONLINEAR = {"MultiheadAttention", "Softmax", "Softmin", "Softmax2d", "LogSoftmax"}
_NONLINEAR = tuple(
    getattr(nn.modules.activation, name)
    for name in nn.modules.activation.__all__
    if name not in _NOT_NONLINEAR
)
_NONLINEAR_NAMES = (
    "relu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "tanh",
    "sigmoid",
    "sine",
    "activation",
)


def is_nonlinear(module: nn.Module) -> bool:
    """Whether a module is an activation function: torch's, or a leaf that is named like one."""
    if isinstance(module, _NONLINEAR):
        return True
    leaf = not any(True for _ in module.children())
    name = type(module).__name__.lower()
    return leaf and name.endswith(_NONLINEAR_NAMES) and not isinstance(module, nn.Identity)


def is_weighted(module: nn.Module) -> bool:
    """Whether a module has a weight of two or more axes of its own (linear, convolution)."""
    weight = weight_of(module)
    return weight is not None and weight.dim() >= 2


def sites(
    model: nn.Module, select: str = "relu", *, example: ExampleInputs | None = None
) -> list[Site]:
    """The sites of a model that a selector names, in the order in which they are computed.

    Args:
        model: Any module whose inputs have the sample axis first.
        select: Comma-separated selectors: ``activations`` (outputs of nonlinearities; where
            there are none, of the blocks, else of the weighted layers but the last),
            ``weights`` (layers with a weight matrix or kernel), ``all``, a type name in any
            case (``relu``, ``conv2d``), an exact name (``layer1.0.relu:1``), a glob
            (``layer3.*``). ``!`` before a selector removes what it names.
        example: Inputs ``[N, ...]`` (or batches, of which the first is taken) for one forward
            pass that shows calls and shapes. Without it, modules are listed as registered, one
            call each, with empty shapes.

    Returns:
        The selected sites.

    Raises:
        NoSuchSite: A selector matches nothing; lists what there is.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> [(s.name, s.shape) for s in sites(net, "relu", example=torch.zeros(1, 2))]
        [('1', (3,))]
    """
    model = unwrap(model)
    found = called(model, example) if example is not None else registered(model)
    return choose(model, found, select)


def registered(model: nn.Module) -> list[Site]:
    """Every module as a site, in the order of registration, without running the model."""
    return [Site(path, 0, type(m).__name__) for path, m in model.named_modules() if path]


def called(model: nn.Module, example: ExampleInputs) -> list[Site]:
    """Every call of one forward pass whose output keeps the sample axis, in order of completion.

    Raises:
        DataError: The example holds no inputs.
        ModelError: They are of another shape than the model takes.
    """
    model = unwrap(model)
    x = _counted(cast(inputs(example), model), model)
    alone = not any(True for _ in model.children())
    found: list[Site] = []

    def report(path: str, call: int, op: str, value: Tensor) -> None:
        if (path or alone) and value.dim() and len(value) == len(x):
            found.append(Site(path, call, op, tuple(value.shape[1:])))

    with preserved(model), torch.no_grad(), watched(model, report) as run:
        try:
            run(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError) as error:
            if isinstance(x, Tensor):
                raise misfit(x, error) from error
            raise
    return found


def _counted(x: Tensor, model: nn.Module) -> Tensor:
    """Inputs whose number is no other size of the model.

    With two samples, what is computed of weights alone for two heads (a clamped temperature in
    Swin v2) has a row for each of them, too.
    """
    if not isinstance(x, Tensor) or not len(x):
        return x
    taken = {1, *x.shape[1:]}
    for tensor in [*model.parameters(), *model.buffers()]:
        taken.update(tensor.shape)
    if len(x) not in taken:
        return x
    count = next(n for n in range(2, 10**6) if n not in taken)
    if count > max(8, 2 * len(x)):  # costs more than it saves
        return x
    return x[torch.arange(count, device=x.device) % len(x)]


def choose(model: nn.Module, found: Sequence[Site], select: str) -> list[Site]:
    """Those of ``found`` that ``select`` names; see `sites`."""
    modules = dict(unwrap(model).named_modules())
    parts = [p.strip() for p in select.split(",") if p.strip()]
    if not parts:
        raise _nothing(select, found, modules)
    chosen: set[Site] = set(found) if parts[0].startswith("!") else set()
    for part in parts:
        matches = _match(part.removeprefix("!").strip(), found, modules)
        if not matches:
            raise _nothing(part, found, modules)
        chosen = chosen - matches if part.startswith("!") else chosen | matches
    if not chosen:
        raise _nothing(select, found, modules)
    return [s for s in found if s in chosen]


def _match(part: str, found: Sequence[Site], modules: dict[str, nn.Module]) -> set[Site]:
    if part == "all":
        return set(found)
    if part == "activations":
        return set(_activations(found, modules))
    if part == "weights":
        return {s for s in found if s.path in modules and is_weighted(modules[s.path])}
    if by_type := {s for s in found if s.op.lower() == part.lower()}:
        return by_type
    if part.endswith(":0"):
        part = part[:-2]
    return {s for s in found if s.name == part} or {s for s in found if fnmatchcase(s.name, part)}


def _activations(found: Sequence[Site], modules: dict[str, nn.Module]) -> list[Site]:
    nonlinear = [s for s in found if _is_nonlinear_site(s, modules)]
    if nonlinear:
        return nonlinear
    blocks = [
        s
        for s in found
        if s.path in modules
        and isinstance(modules.get(s.path.rpartition(".")[0]), nn.Sequential | nn.ModuleList)
        and any(True for _ in modules[s.path].children())
        and any(True for _ in modules[s.path].parameters())
    ]
    paths = {s.path for s in blocks}
    inner = [s for s in blocks if not any(p.startswith(s.path + ".") for p in paths)]
    if inner:
        return inner
    weighted = [s for s in found if s.path in modules and is_weighted(modules[s.path])]
    return weighted[:-1] or weighted


def _is_nonlinear_site(site: Site, modules: dict[str, nn.Module]) -> bool:
    if site.path in modules:
        return is_nonlinear(modules[site.path])
    owner = modules.get(site.path.rpartition(":")[0])
    # the parts of an activation that is a module are not activations of their own
    return site.op in NONLINEAR_OPS and not (owner is not None and is_nonlinear(owner))


def _nothing(part: str, found: Sequence[Site], modules: dict[str, nn.Module]) -> OptionError:
    names = [s.name for s in found]
    close = nearest(part.removeprefix("!"), [*names, *(s.op for s in found)])
    types = ", ".join(dict.fromkeys(s.op for s in found))
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return NoSuchSite(
        "the selector matches no site of the model",
        got=repr(part),
        expected=f"activations, weights, all, a type ({types}), a name or glob of: {listed}",
        fix=f"Did you mean {close[0]!r}?" if close else None,
    )


def inputs(example: ExampleInputs) -> Tensor:
    """The inputs ``[N, ...]`` in an example: a tensor, a pair ``(x, y)``, or batches of pairs.

    Raises:
        DataError: The example holds no inputs.
    """
    if isinstance(example, Tensor):
        return example
    if isinstance(example, tuple | list) and example and isinstance(example[0], Tensor):
        return example[0]
    if isinstance(example, Iterable):
        for item in example:
            return inputs(item)
    raise DataError(
        "no example inputs",
        got=type(example).__name__,
        expected="a tensor [N, ...] or batches of (x, y)",
    )
