"""Whether weights are those of a model, whatever their file calls them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from isogon.errors import ModelError
from isogon.nets.states import aliases, dense, misfits, without_numbers

# What other tools leave among weights: counts of operations, of averaged models, of steps.
EXTRAS = ("total_ops", "total_params", "n_averaged", "num_updates")
COUNTERS = ("num_batches_tracked",)  # absent from old files, play no part in evaluation
COMPILED = "_orig_mod"  # the part of a name that torch.compile adds, anywhere in it


def fitting(
    model: nn.Module, state: Mapping[str, Tensor], *, source: object, what: str
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The part of a model that weights are for, and the weights under its names.

    Names are taken as they are where they fit. Else a prefix that *all* of them share is taken
    off (``module.``, ``model.``, ``_orig_mod.module.``), or put on where all of the model's
    share one; else one that *some* of them have is taken off those (a backbone in ``model.``, a
    head beside it), if every name fits then; what other tools are known to leave among weights
    (`EXTRAS`) is dropped. All of this is said in a warning. Weights of a model trained on
    normalised inputs fit the part behind `isogon.nets.normalize.Normalize`. Tensors that the
    model ties are one tensor: one name of them is enough, several must agree. Sparse tensors are
    returned as dense ones.

    Args:
        model: A model, not changed.
        state: Tensors by name.
        source: The file, for messages.
        what: The architecture, for messages.

    Raises:
        ModelError: Names or shapes differ; all are named on one line.
    """
    inner = getattr(model, "model", None)
    targets = [model, *([inner] if isinstance(inner, nn.Module) else [])]
    best: tuple[int, nn.Module, dict[str, Tensor]] | None = None
    for names, prefix, dropped in _namings(state, targets):
        for target in targets:
            missing, unexpected, _ = misfits(target, names)
            if not missing and not unexpected:
                check_fits(target, names, source=source, what=what)
                _say(source, _phrase(prefix), dropped)
                return target, dense(names)
            score = len(missing) + len(unexpected)
            if best is None or score < best[0]:
                best = score, target, names
    for names, part, dropped in _partly(state, targets):
        for target in targets:
            missing, unexpected, _ = misfits(target, names)
            if not missing and not unexpected:
                check_fits(target, names, source=source, what=what)
                _say(source, part, dropped)
                return target, dense(names)
            # a loss with weights beside the model's, a tensor that is missing: for the message
            score = len(missing) + len(unexpected)
            if best is None or score < best[0]:
                best = score, target, names
    assert best is not None
    check_fits(best[1], best[2], source=source, what=what)
    raise AssertionError("names that differ were refused")


def check_fits(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: object,
    what: str,
    problem: str | None = None,
    counters: bool = False,
) -> None:
    """Refuse weights whose names or shapes are not the model's.

    Args:
        model: A model, also one without memory of its own (on the device ``meta``).
        state: Tensors by name.
        source: Where they come from, for messages.
        what: The architecture, for messages.
        problem: What the message says first.
        counters: Whether the counters of batch-norm must be there, too.

    Raises:
        ModelError: All that is missing, unexpected, of another shape, without numbers that the
            model can hold, or tied in the model but different in the state, on one line.
    """
    missing, unexpected, shapes = misfits(model, state, optional=() if counters else COUNTERS)
    bare, remedy = without_numbers(model, state)
    untied = [] if shapes or bare else [" and ".join(group) for group in _untied(model, state)]
    kinds = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("other shape", shapes),
        ("tied in the model, but of different values", untied),
    )
    parts = [f"{label} {_some(names)}" for label, names in (*kinds, *bare.items()) if names]
    if parts:
        fix = "Give the architecture with the arguments it was trained with."
        if bare and not (missing or unexpected or shapes):
            fix = remedy
        elif unexpected and not (missing or shapes or untied or bare):
            # of a loss, a head that is not asked for, ...: whose they are only the user knows
            fix = "All weights of the model are there. If the others are not its own (a loss, a "
            fix += "second network), save the file without them."
        raise ModelError(
            problem or f"weights don't fit {what}",
            got=f"{source}: {'; '.join(parts)}",
            expected="the same names and shapes" + (", as dense real numbers" if bare else ""),
            fix=fix,
        )


# --------------------------------------------------------------------------- internals


def _untied(model: nn.Module, state: Mapping[str, Tensor]) -> Iterable[list[str]]:
    """Groups of names that are one tensor in the model and several in the state."""
    own = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    for group in dict.fromkeys(aliases(own).values()):
        names = [n for n in group if n in state]
        if any(not state[names[0]].to_dense().equal(state[n].to_dense()) for n in names[1:]):
            yield names


def _namings(
    state: Mapping[str, Tensor], targets: list[nn.Module]
) -> Iterable[tuple[dict[str, Tensor], str, list[str]]]:
    """The state under the names that it may mean, with the prefix taken off and what is dropped.

    The first is the state as it is.
    """
    yield dict(state), "", []
    dropped = [k for k in state if k.rsplit(".", 1)[-1] in EXTRAS]
    kept = {k: v for k, v in state.items() if k not in dropped}
    plain = {".".join(p for p in k.split(".") if p != COMPILED): v for k, v in kept.items()}
    if len(plain) < len(kept) or not plain:
        return  # two names would become one
    if dropped and len(plain) == len(kept):
        yield kept, "", dropped
    first = next(iter(kept))
    if plain.keys() != kept.keys():
        yield plain, _taken(first, next(iter(plain))), dropped
    while (head := _shared(plain)) is not None:
        plain = {k.removeprefix(f"{head}."): v for k, v in plain.items()}
        yield plain, _taken(first, next(iter(plain))), dropped
    for target in targets:
        if (head := _shared(target.state_dict())) is not None:
            yield {f"{head}.{k}": v for k, v in kept.items()}, f"+{head}.", dropped


def _taken(name: str, left: str) -> str:
    """What was taken off a name."""
    return name.removesuffix(left) if name != left and name.endswith(left) else f"{COMPILED}."


def _partly(
    state: Mapping[str, Tensor], targets: list[nn.Module]
) -> Iterable[tuple[dict[str, Tensor], str, list[str]]]:
    """The namings with a prefix taken off those names that have it, others being without.

    At most one of them fits a model: taking one prefix off some names and another off others
    can't give the same names.
    """
    for named, before, dropped in _namings(state, targets):
        if before.startswith("+"):
            continue
        for head in dict.fromkeys(k.split(".", 1)[0] + "." for k in named if "." in k):
            names = {k.removeprefix(head): v for k, v in named.items()}
            had = sum(k.startswith(head) for k in named)
            if len(names) == len(named) > had:
                part = f"{head!r} was taken off {had} of the {len(named)} names"
                yield names, f"{_phrase(before)}, then {part}" if before else part, dropped


def _shared(names: Iterable[str]) -> str | None:
    """The first part of all names, if it is one and the same and not the whole name."""
    heads = {n.split(".", 1)[0] if "." in n else None for n in names}
    return heads.pop() if len(heads) == 1 else None


def _phrase(prefix: str) -> str:
    """What was done about a prefix that all names have or lack."""
    if prefix.startswith("+"):
        return f"names were taken to stand behind {prefix[1:]!r}"
    return f"{prefix!r} was taken off the names" if prefix else ""


def _say(source: object, done: str, dropped: list[str]) -> None:
    said = [done] if done else []
    if dropped:
        said.append(f"{_some(dropped)} left out")
    if said:
        warnings.warn(f"weights of {source}: {', '.join(said)}", UserWarning, stacklevel=2)


def _some(names: list[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
