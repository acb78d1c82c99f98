"""What the two networks of a comparison are called."""

from __future__ import annotations

from isogon.errors import IsogonError
from isogon.findings import Names
from isogon.specs import Spec, parse
from isogon.survey.pages.figures import differences, word
from isogon.survey.whole.kept import Survey

LONGEST = 34  # characters of a name: longer ones are letters


def called(survey: Survey) -> Names | None:
    """Names of the two: those given, else what their specs differ in; None for a survey."""
    if not survey.other:
        return None
    if survey.names:
        return Names(survey.names.get("a", "A"), survey.names.get("b", "B"))
    letters = Names("A", "B")
    try:
        one, two = parse(survey.model), parse(survey.other)
    except IsogonError:
        return letters
    if "given" in (one.name, two.name) or one.module or two.module:
        return letters
    a, b = _options(one, two), _options(two, one)
    if a == b or one.args != two.args or one.name != two.name:
        words = differences([survey.model, survey.other])
        a, b = (words.get(s, "") for s in (survey.model, survey.other))
    if a == b:
        a, b = (f"seed {_seed(s)}" for s in (one, two))
    if a == b or max(len(a), len(b)) > LONGEST:
        return letters
    return Names(a, b)


def _options(mine: Spec, other: Spec) -> str:
    """The options of a spec that the other's differ from: ``augment rotate(45)``."""
    words = [
        f"{key.replace('_', ' ')} {word(value)}"
        for key, value in mine.kwargs.items()
        if key != "seed" and other.kwargs.get(key) != value
    ]
    return ", ".join(words) or "plain"


def _seed(spec: Spec) -> str:
    return str(spec.kwargs.get("seed", 0))
