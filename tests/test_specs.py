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


files = st.builds(
    lambda stem, suffix: f"{stem}{suffix}",
    st.text(st.characters(categories=["L", "N"], include_characters="/._-@ ()[]'"), max_size=12),
    st.sampled_from(SUFFIXES),
).filter(lambda p: p == p.strip())
weights = files.filter(lambda p: p.endswith(WEIGHT_SUFFIXES))
pictures = st.builds(
    lambda path, index: Spec(None, path=path, index=index),
    files | texts.filter(bool).map(lambda t: f"a/{t}"),
    st.integers(-99, 10**6),
)
plain = st.recursive(
    literals,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | calls(inner),
    max_leaves=8,
)
# specs of every form within specs: user code, weights, one sample of a file or of a folder
values = st.recursive(
    literals | pictures,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | calls(inner, paths=nothing | weights, modules=modules)
    ),
    max_leaves=8,
)


@settings(max_examples=120)
@given(calls(values, modules=modules))
def test_parse_of_text_is_the_spec(spec):
    assert parse(str(spec)) == spec


@settings(max_examples=120)
@given(calls(plain, paths=weights, modules=modules))
def test_parse_with_weights(spec):
    assert parse(str(spec)) == spec


def _around(inner):
    return st.builds(
        Spec,
        st.sampled_from(("f", "trained", "True_")),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(("seed", "data")), inner, max_size=1),
        module=st.sampled_from((None, "my.pkg")),
        path=st.sampled_from((None, "w.pt", "a, b.pt", "it's.safetensors", "a@b.pt")),
        index=st.sampled_from((None, 0, -3)),
    )


leaves = st.sampled_from(
    (
        *("name", "a b", "it's", 'say "', "x.npz", 3, -1.5, None, (1, "a")),
        *(Spec(None, path=p, index=2) for p in ("x.npz", "a b.zip", "runs/it's", "3.npz")),
    )
)


@settings(max_examples=150)
@given(_around(_around(_around(leaves))))
def test_specs_three_deep(spec):
    assert parse(str(spec)) == spec
    assert str(parse(str(spec))) == str(spec)


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
    "cnn@/data/a (1)[2]/w.pt": Spec("cnn", path="/data/a (1)[2]/w.pt"),
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
    "through(my.pkg:data(20)[0], arr.npz[1], 'a b/of.npz'[-2])": Spec(
        "through",
        (
            Spec("data", (20,), module="my.pkg", index=0),
            Spec(None, path="arr.npz", index=1),
            Spec(None, path="a b/of.npz", index=-2),
        ),
    ),
    "through('imgs/of, some'[0], pkg:data[1])": Spec(
        "through",
        (Spec(None, path="imgs/of, some", index=0), Spec("data", module="pkg", index=1)),
    ),
    "f(cnn()@runs/w.pt, g(mlp(2)@'a, b.pt', k=v), cnn@w.pt)": Spec(
        "f",
        (
            Spec("cnn", path="runs/w.pt"),
            Spec("g", (Spec("mlp", (2,), path="a, b.pt"),), {"k": "v"}),
            Spec("cnn", path="w.pt"),
        ),
    ),
    "trained(my.pkg:build(3), ../data/arr.npz)": Spec(
        "trained", (Spec("build", (3,), module="my.pkg"), "../data/arr.npz")
    ),
    "f('digits(test)'[3], 'a\\'b@c')": Spec("f", (Spec("digits", ("test",), index=3), "a'b@c")),
    "f((1), (1,), [1], (), 1, )": Spec("f", (1, (1,), (1,), (), 1)),
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
    "f('" + "a" * 9000, "f(a.npz[0][1])", "f(a b.npz[0])", "f('a'[0]@w.pt)", "f(cnn()@)", "f(a=)",
    "f(my.pkg:)", "f(a/b)", "f(a,,b)", "f(,)", "f(b=1, a)", "f('digits[1]'[0])", "f(+1)", "f(a;b)",
    "f(a]", "f('a)", "f(a](", "f(cnn()@'w.pt'[0])", "f({a})", "f(1)x", "f(1)(2)", "f(a==b)",
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
