"""The registry: look-up, argument checks and the answer to every mistake."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest

from isogon import registry
from isogon.errors import DependencyError, FileError, IsogonError, OptionError, SpecError, unknown
from isogon.specs import Spec, parse


@pytest.fixture
def kind(monkeypatch):
    """A kind of its own, which leaves the real ones alone."""
    monkeypatch.setitem(registry.HOMES, "toy", ())
    monkeypatch.setitem(registry._entries, "toy", {})
    registry.clear_discovery()
    yield "toy"
    registry._discover.cache_clear()


def box(
    size: int,
    split: Literal["train", "test"] = "test",
    *,
    scale: float = 1.0,
    inner: Spec | None = None,
    steps: tuple[int, ...] = (1,),
    note: Annotated[str, "text"] = "",
    flag: bool = False,
    root: Any = None,
):
    """A box.

    More about it.
    """
    return size, split, scale, inner, steps, note, flag, root


def test_register_and_build(kind):
    registry.register(kind, weight=3)(box)
    entry = registry.get(kind, "box")
    assert entry.summary == "A box."
    assert entry.extra == {"weight": 3}
    assert registry.names(kind) == ["box"]
    assert registry.has(kind, "box")
    assert not registry.has(kind, "bax")
    assert [e.name for e in registry.entries(kind)] == ["box"]
    built = registry.build(kind, "box(3, train, scale=2, inner=f(1), steps=[1, 2], note=a)")
    assert built == (3, "train", 2, Spec("f", (1,)), (1, 2), "a", False, None)


def test_context_is_passed_where_it_is_wanted_and_not_given(kind):
    registry.register(kind)(box)
    assert registry.build(kind, "box(1)", root="here", other=1)[-1] == "here"
    assert registry.build(kind, "box(1, root=there)", root="here")[-1] == "there"


WRONG = {
    "bax(1)": "unknown toy: got 'bax', expected one of: box. Did you mean 'box'",
    "box()": "missing a required argument: 'size'",
    "box(1, 2, 3)": "too many positional arguments",
    "box(1, size=2)": "multiple values for argument 'size'",
    "box(1, sclae=2)": "no argument 'sclae'.*Did you mean 'scale'",
    "box('1')": "wrong value for 'size': got '1', expected int",
    "box(1.0)": "wrong value for 'size'",
    "box(true)": "wrong value for 'size'",
    "box(1, valid)": "wrong value for 'split'.*one of: train, test",
    "box(1, scale=x)": "wrong value for 'scale'.*float",
    "box(1, steps=3)": "wrong value for 'steps'",
    "box(1, steps=(1, a))": "wrong value for 'steps'",
    "box(1, note=3)": "wrong value for 'note'",
    "box(1, flag=1)": "wrong value for 'flag'",
    "box(1, inner=3)": "wrong value for 'inner'",
    "box.pt": "a file can't name a toy",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_are_answered(kind, text):
    registry.register(kind)(box)
    with pytest.raises(SpecError, match=WRONG[text]) as caught:
        registry.build(kind, text)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_open_signatures(kind):
    def many(*sizes: int, **rest: Any):
        return sizes, rest

    registry.register(kind)(many)
    assert registry.build(kind, "many(1, 2, a=b)") == ((1, 2), {"a": "b"})
    with pytest.raises(SpecError, match="wrong value for 'sizes'"):
        registry.build(kind, "many(1, b)")


def test_a_name_belongs_to_one_builder(kind):
    registry.register(kind)(box)
    registry.register(kind)(box)

    def other():
        """Another."""

    with pytest.raises(SpecError, match="registered twice"):
        registry.register(kind, "box")(other)


def test_user_code_is_named(tmp_path, monkeypatch):
    (tmp_path / "my_boxes.py").write_text("def build(n=1):\n    return n\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.import_object(parse("my_boxes:build(3)"))(3) == 3
    with pytest.raises(SpecError, match=r"no callable 'biuld'.*expected build"):
        registry.import_object(parse("my_boxes:biuld"))
    with pytest.raises(SpecError, match="no callable 'value'"):
        registry.import_object(parse("my_boxes:value"))
    with pytest.raises(SpecError, match="no module 'my_bxes'"):
        registry.import_object(parse("my_bxes:build"))


def test_a_broken_plug_in_is_named(kind, monkeypatch):
    from importlib.metadata import EntryPoint

    point = EntryPoint("far", "no_such_package:thing", f"isogon.{kind}")
    monkeypatch.setattr(registry, "_entry_points", lambda k: {"far": point} if k == kind else {})
    assert registry.names(kind) == ["far"]
    with pytest.raises(DependencyError, match=r"'far' of another package.*Update or uninstall"):
        registry.get(kind, "far")


def test_a_plug_in_is_found(kind, monkeypatch, tmp_path):
    from importlib.metadata import EntryPoint

    (tmp_path / "far_boxes.py").write_text("def far(n: int = 2):\n    'Far.'\n    return n\n")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("far", "far_boxes:far", f"isogon.{kind}")
    monkeypatch.setattr(registry, "_entry_points", lambda k: {"far": point} if k == kind else {})
    assert registry.build(kind, "far(5)") == 5


ERRORS = [
    SpecError("p", got="g", expected="e", fix="Do it."),
    FileError("p", got=3),
    OptionError("p"),
    unknown("metric", "cak", ["cka", "rsa"], error=OptionError),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_errors_cross_a_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.got, again.expected, again.fix) == (error.got, error.expected, error.fix)
    assert isinstance(again, IsogonError)


def test_error_form():
    assert str(ERRORS[0]) == "p: got g, expected e. Do it."
    assert str(ERRORS[1]) == "p: got 3"
    assert "Did you mean 'cka'?" in str(ERRORS[3])
    assert "\n" not in str(FileError("a\nb", got="c\n\nd"))
    assert len(str(FileError("p", got="x" * 10_000))) < 300
    assert [SpecError("").exit_code, OptionError("").exit_code, FileError("").exit_code] == [
        2,
        2,
        1,
    ]


def test_importing_the_base_imports_no_torch():
    code = "import sys, isogon, isogon.specs, isogon.registry, isogon.storage, isogon.errors; "
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
