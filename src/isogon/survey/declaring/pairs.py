"""Pairs of models in a plan: of all that its axes stand for, not of one point at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from isogon.errors import OptionError, unknown
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import canonical
from isogon.survey.declaring.declare import Declaration

Filled = tuple[dict[str, Any], dict[str, Any]]  # an entry, and what is shared, at one point of axes


def paired(declaration: Declaration, filled: Iterable[Filled]) -> Iterator[Filled]:
    """An entry of ``pairs:`` once for each pair of models and each way to fill in the rest.

    Args:
        declaration: Of a measure that requires two models.
        filled: The entry and the plan's shared inputs at every point of the axes; the models
            of all of them are paired, equal ones count once.

    Raises:
        OptionError: Another measure, another word for ``over``, or fewer than two models.
    """
    places = catalogue.models(declaration)
    if len(places) != 2:
        raise OptionError(
            "pairs: is for measures of two models",
            got=f"{declaration.command}, which takes {len(places) or 'no'} model"
            + "s" * (len(places) > 1),
            expected="a measure that requires two",
            fix="Put it under measures:.",
        )
    models: dict[str, dict[str, str]] = {}
    rests: dict[str, Filled] = {}
    for entry, shared in filled:
        given = entry.pop("model", shared.get("model") or [])
        if not isinstance(given, dict):
            given = {str(m): m for m in many(given)}
        for name, specs in given.items():
            models |= {canonical(str(spec)): {name: str(spec)} for spec in many(specs)}
        rest = entry, {k: v for k, v in shared.items() if k != "model"}
        rests.setdefault(json.dumps(rest, sort_keys=True, default=str), rest)
    for entry, shared in rests.values():
        over = entry.pop("over", "distinct")
        pairs = {
            "distinct": itertools.combinations(models.values(), 2),
            "ordered": itertools.permutations(models.values(), 2),
            "all": itertools.product(models.values(), repeat=2),
        }
        if over not in pairs:
            raise unknown("choice of pairs", str(over), pairs, error=OptionError)
        if len(models) < (1 if over == "all" else 2):
            raise OptionError(
                "no pair of models",
                got=", ".join(models) or "no model",
                expected="at least two",
                fix="List them under model:, or write an axis into its spec.",
            )
        for a, b in pairs[over]:
            yield {**entry, places[0]: a, places[1]: b}, shared


def many(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]
