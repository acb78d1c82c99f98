"""Declarations, types of options, the bibliography."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from isogon import registry
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.declare import arguments, declare, sections
from isogon.survey.pages import bibliography


@pytest.mark.parametrize(
    ("hint", "code", "good", "bad"),
    [
        (int, "int", 3, 3.5),
        (float, "float", 3, "3"),
        (bool, "bool", True, 1),
        (str | None, ["union", "str", "none"], None, 4),
        (Literal["a", 2], ["literal", "a", 2], 2, "2"),
        (tuple[float, ...], ["tuple", "float", "..."], [1, 2.5], ["x"]),
        (tuple[int, str], ["tuple", "int", "str"], (1, "a"), (1, 2)),
        (list[int], ["tuple", "int", "..."], [], 3),
        (str | Callable[[int], int], "str", "x", 1),
    ],
)
def test_types_round_trip(hint, code, good, bad):
    assert types.encode(hint) == code
    assert types.encode(types.decode(code)) == types.encode(types.decode(types.encode(hint)))
    assert types.fits_code(good, code)
    assert not types.fits_code(bad, code)
    assert types.shown(code)


def test_types_that_no_word_can_spell_have_no_code():
    assert types.encode(Callable[[int], int]) is None
    assert types.encode(Callable | None) is None


def fake_declared(
    a: Points,  # noqa: F821
    batches: Batches | None = None,  # noqa: F821
    *,
    mode: Literal["x", "y"] = "x",
    hook: Callable | None = None,
    progress=None,
    generator=None,
) -> None:
    """One line.

    More about it: a formula.

    Args:
        a: The first
            model.
        mode: Which of the two.

    Returns:
        Nothing.
    """


def test_a_declaration_is_read_off_the_function():
    d = declare(registry.Entry("measure", "fake_declared", fake_declared, {"cite": ("gamba2022",)}))
    assert [(i.name, i.noun, i.required) for i in d.inputs] == [
        ("a", "Points", True),
        ("batches", "Batches", False),
    ]
    assert [(o.name, o.default) for o in d.options] == [("mode", "x")]
    assert d.input("a").help == "The first model."
    assert d.seeded
    assert d.command == "fake-declared"


def test_sections_and_arguments():
    text = "Body.\n\nArgs:\n    x (int): A\n        b.\n    **kw: Rest.\n\nRaises:\n    E: no.\n"
    assert sections(text)[""] == "Body."
    assert arguments(text) == {"x": "A b.", "kw": "Rest."}


def test_bibliography_reads_accents_and_braces():
    text = r'@book{k1, author = "G{\"o}del, K. and {\O}re, O.", title={A {B} \& C}, year=1931}'
    (work,) = bibliography.parse(text)
    assert work.fields["title"] == "A B & C"
    assert work.authors.startswith("Gödel and")
    assert work.fields["year"] == "1931"
    for key, held in bibliography.works().items():
        assert held.authors, key
        assert held.fields["title"], key
        assert "\\" not in bibliography.line(key), key
        assert "{" not in bibliography.line(key), key


def test_every_measure_cites_what_the_bibliography_holds():
    for entry in registry.entries("measure"):
        for key in entry.extra.get("cite", ()):
            assert bibliography.work_of(key), f"{entry.name} cites {key}: add it to references.bib"


def test_kinds_are_known_in_the_plural():
    assert catalogue.kind("measures") == "measure"
    assert catalogue.kind("families") == "family"
    assert catalogue.kind("archs") == "arch"
    with pytest.raises(ValueError, match="Did you mean 'measures'"):
        catalogue.kind("mesures")
