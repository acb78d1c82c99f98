"""Specs: text and structure agree both ways; every mistake is answered."""

from __future__ import annotations

import keyword
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.errors import SpecError
from isogon.specs import DATA_SUFFIXES, PROGRAM_SUFFIXES, SUFFIXES, WEIGHT_SUFFIXES, Spec, parse

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda n: not keyword.iskeyword(n) and n not in ("true", "false", "none", "inf", "nan")
)
modules = st.none() | st.lists(names, min_size=1, max_size=3).map(".".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
literals = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | names
    | texts
)
indices = st.none() | st.integers(-99, 10**6)


nothing = st.none()


@st.composite
def calls(draw, values, paths=nothing, modules=nothing):
    return Spec(
        draw(names),
        tuple(draw(st.lists(values, max_size=3))),
        draw(st.dictionaries(names, values, max_size=3)),
        module=draw(modules),
        path=draw(paths),
        index=draw(indices),
    )


values = st.recursive(
    literals,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | calls(inner),
    max_leaves=8,
)
files = st.builds(
    lambda stem, suffix: f"{stem}{suffix}",
    st.text(st.characters(categories=["L", "N"], include_characters="/._-@ ()[]"), max_size=12),
    st.sampled_from(WEIGHT_SUFFIXES),
).filter(lambda p: p == p.strip())


@settings(max_examples=120)
@given(calls(values, modules=modules))
def test_parse_of_text_is_the_spec(spec):
    assert parse(str(spec)) == spec


@settings(max_examples=120)
@given(calls(values, paths=files, modules=modules))
def test_parse_with_weights(spec):
    assert parse(str(spec)) == spec


@settings(max_examples=40)
@given(calls(values, modules=modules))
def test_text_is_canonical(spec):
    turned = Spec(
        spec.name,
        spec.args,
        dict(reversed(spec.kwargs.items())),
        module=spec.module,
        index=spec.index,
    )
    assert str(turned) == str(spec)
    assert hash(turned) == hash(spec)
    assert parse(turned) is turned


@settings(max_examples=200)
@given(st.text(max_size=40) | st.text("abc(),=[]@:.'\"123 -{}*", max_size=30))
def test_any_text_gives_a_spec_or_an_answer(text):
    try:
        spec = parse(text)
    except SpecError as error:
        answer = error
    else:
        assert parse(str(spec)) == spec
        return
    assert "\n" not in str(answer)
    assert answer.exit_code == 2
    assert answer.expected is not None


EXAMPLES = {
    "cnn": Spec("cnn"),
    "cnn()": Spec("cnn"),
    " cnn ( width = 32 ) ": Spec("cnn", kwargs={"width": 32}),
    "mnist(test, 512)": Spec("mnist", ("test", 512)),
    "mnist(test, 512, seed=0)": Spec("mnist", ("test", 512), {"seed": 0}),
    "trained(cnn, digits, seed=0)": Spec("trained", ("cnn", "digits"), {"seed": 0}),
    "trained(cnn(width=4), digits(train))": Spec(
        "trained", (Spec("cnn", kwargs={"width": 4}), Spec("digits", ("train",)))
    ),
    "resnet18(num_classes=10)@runs/r18/last.safetensors": Spec(
        "resnet18", kwargs={"num_classes": 10}, path="runs/r18/last.safetensors"
    ),
    "cnn@w.pt": Spec("cnn", path="w.pt"),
    "cnn@a@b.pt": Spec("cnn", path="a@b.pt"),
    "cnn@/tmp/a (1)[2]/w.pt": Spec("cnn", path="/tmp/a (1)[2]/w.pt"),
    "mnist(test)[3]": Spec("mnist", ("test",), index=3),
    "mnist(test)[-1]": Spec("mnist", ("test",), index=-1),
    "my.pkg:build(3)@w.pt": Spec("build", (3,), module="my.pkg", path="w.pt"),
    "my.pkg:build": Spec("build", module="my.pkg"),
    "model.onnx": Spec(None, path="model.onnx"),
    "a@b/model.pt2": Spec(None, path="a@b/model.pt2"),
    "runs/a b/Model.ONNX": Spec(None, path="runs/a b/Model.ONNX"),
    "data.npz[3]": Spec(None, path="data.npz", index=3),
    "f(x=-1.5e3, y=(1, 2), z='a b', w=None, v=true)": Spec(
        "f", kwargs={"x": -1500.0, "y": (1, 2), "z": "a b", "w": None, "v": True}
    ),
    "f([1, 2])": Spec("f", ((1, 2),)),
    "f(inf, -inf, 'inf')": Spec("f", (math.inf, -math.inf, "inf")),
    "through(mnist(test)[3], digits[2])": Spec(
        "through",
        (Spec("mnist", ("test",), index=3), Spec("digits", index=2)),
    ),
    "f('it''s')": Spec("f", ("its",)),
    "f('@')": Spec("f", ("@",)),
    "f('a@b', 2)@w.pt": Spec("f", ("a@b", 2), path="w.pt"),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples(text):
    spec = parse(text)
    assert spec == EXAMPLES[text]
    assert parse(str(spec)) == spec


WRONG = [
    "", "  ", "(", "cnn(", "cnn)", "cnn((3)", "3", "cnn(width=)", "cnn(1 2)",
    "cnn(width=1, width=2)",    "cnn(**a)", "cnn(*a)", "cnn(a.b)", "cnn(1 + 1)", "cnn(lambda: 0)",
    "cnn(__import__('os').system('ls'))",
    "cnn(open('x').read())", "cnn(f'{a}')", "cnn({1: 2})", "cnn(x for x in y)", "cnn(b'a')",
    "cnn(1j)",
    "cnn(...)", "cnn(a := 1)", "cnn()()", "cnn().x", "cnn()[0]()", "cnn@", "cnn[x]", "cnn[1.5]",
    "a b", "a\0b", "-cnn", "cnn; import os", "cnn\nimport os", ":build", "my.pkg:", "my..pkg:build",
    "cnn(not x)", "cnn(-'a')", "cnn(x[y])", "@w.pt.gz", "cnn(1)[2][3]",
    "f" + "(" * 500, "f(" + "g(" * 100 + ")" * 101, "f(" + "[" * 3000 + "]" * 3000 + ")",
    "f('" + "a" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_mistakes_are_answered(text):
    with pytest.raises(SpecError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert len(message) < 1200


@pytest.mark.parametrize("text", [None, 3, b"cnn", ["cnn"]])
def test_only_text(text):
    with pytest.raises(SpecError, match="must be text"):
        parse(text)


def test_suffixes_name_files():
    assert set(SUFFIXES) == {*PROGRAM_SUFFIXES, *WEIGHT_SUFFIXES, *DATA_SUFFIXES}
    for suffix in SUFFIXES:
        assert parse(f"x{suffix}") == Spec(None, path=f"x{suffix}")


def test_a_folder_that_exists_is_a_path(tmp_path):
    (tmp_path / "run").mkdir()
    spec = parse(str(tmp_path / "run"))
    assert spec.name is None
    assert spec.path == str(spec) == str(tmp_path / "run")
    with pytest.raises(SpecError):
        parse(str(tmp_path / "nothing"))
