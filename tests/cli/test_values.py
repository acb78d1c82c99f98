"""What words and configuration files mean for the types of options."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isogon.cli import main
from isogon.cli.parser import Parser, derived
from isogon.cli.values import Unfit, read_value, value_of
from isogon.errors import OptionError
from isogon.survey.declaring import catalogue, types
from isogon.survey.declaring.declare import Option
from isogon.survey.declaring.job import Job, spelled

MANY = ["tuple", "str", "..."]


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("3", "int", 3),
        ("-1e-3", "float", -0.001),
        ("2", "float", 2.0),
        ("true", "bool", True),
        ("null", ["union", "str", "none"], None),
        ("3", ["union", "str", "none"], "3"),
        ("3", ["union", "int", ["tuple", "int", "..."]], 3),
        ("3,4", ["union", "int", ["tuple", "int", "..."]], (3, 4)),
        ("0.5", ["union", "int", "float", "none"], 0.5),
        ("none", ["union", ["literal", "none", "flow"], "none"], "none"),
        ("a", MANY, ("a",)),
        ("a,f(1,2)", MANY, ("a", "f(1,2)")),
        ('["a, b", c]', MANY, ("a, b", "c")),
        ("[]", MANY, ()),
        ("a,", MANY, ("a",)),
        ("linear", ["union", MANY, "str"], "linear"),
        ("low_rank(4)", ["union", MANY, "str"], "low_rank(4)"),
        ("linear,low_rank(4)", ["union", MANY, "str"], ("linear", "low_rank(4)")),
        ("[linear]", ["union", MANY, "str"], ("linear",)),
        ("-1,1", ["tuple", "float", "float"], (-1.0, 1.0)),
        ("[(0,1),(2,3)]", ["tuple", ["tuple", "int", "int"], "..."], ((0, 1), (2, 3))),
        ("{a: [1, 2]}", "any", {"a": [1, 2]}),
        ("[1, x]", "any", (1, "x")),
    ],
)
def test_a_word_means_what_its_type_says(text, code, value):
    found = value_of(text, code)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x", "int"),
        ("1.5", "int"),
        ("9" * 40, "int"),
        ("yes", "bool"),
        ("c", ["literal", "a", "b"]),
        ("1", ["tuple", "float", "float"]),
        ("1,2,3", ["tuple", "float", "float"]),
        ("1,x", ["tuple", "int", "..."]),
        ("[1,2", ["tuple", "int", "..."]),
        ('["a', MANY),
        ("x", ["union", "int", "none"]),
    ],
)
def test_what_does_not_fit_is_refused(text, code):
    with pytest.raises(Unfit):
        value_of(text, code)


PLAIN = {
    "int": st.integers(-(2**63), 2**63),
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "none": st.none(),
}


@given(st.sampled_from(sorted(PLAIN)).flatmap(lambda k: st.tuples(st.just(k), st.lists(PLAIN[k]))))
def test_what_a_command_spells_is_read_back(case):
    kind, values = case
    assert value_of(spelled(values), ["tuple", kind, "..."]) == tuple(values)
    for value in values:
        assert value_of(spelled(value), kind) == value
        assert read_value(value, kind) == value


@given(st.text(max_size=30), st.sampled_from(["int", "any", MANY, ["tuple", "float", "float"]]))
def test_any_text_is_read_or_unfit(text, code):
    try:
        value = value_of(text, code)
    except Unfit:
        return
    assert types.fits_code(value, code)


def test_configurations_hold_what_words_can_say():
    assert read_value([1, 2], ["tuple", "float", "..."]) == (1, 2)
    assert read_value(["1e-3"], ["tuple", "float", "..."]) == (0.001,)  # text for YAML
    assert read_value("1e-3", "float") == 0.001
    with pytest.raises(Unfit):
        read_value([1, 2, 3], ["tuple", "int", "int"])
    with pytest.raises(Unfit):
        read_value({"a": 1}, "int")


def parser() -> Parser:
    made = Parser("x")
    made.positional("what", "a word", optional=True)
    made.option(Option("stratified", "bool", True, help="by class"))
    made.option(Option("clamp", ["tuple", "float", "float"], (0.0, 1.0)))
    made.option(Option("step_size", "float", 0.5))
    made.option(Option("match", ["union", "bool", "none"], None))
    made.commons(out=None)
    return made


def test_booleans_are_flags():
    assert parser().parse([]).stratified is True
    assert parser().parse(["--stratified", "word"]).what == "word"
    found = parser().parse(["--no-stratified", "word"])
    assert (found.stratified, found.what) == (False, "word")
    for words in (["--stratified", "false"], ["--stratified=false"]):
        assert parser().parse(words).stratified is False
    assert parser().parse(["word"]).match is None  # true, false, or not said
    assert parser().parse(["--match", "word"]).match is True
    assert parser().parse(["--no-match"]).match is False
    assert parser().parse(["--quiet", "--no-check"]).no_check is True
    with pytest.raises(OptionError, match="takes no value"):
        parser().parse(["--quiet=yes"])
    with pytest.raises(OptionError, match="no such option"):
        parser().parse(["--no-clamp", "1"])
    text = parser().inner.format_help()
    assert "--stratified, --no-stratified" in text


def test_values_may_begin_with_a_minus_and_flags_be_written_both_ways():
    assert parser().parse(["--clamp", "-1,1"]).clamp == (-1.0, 1.0)
    assert parser().parse(["--step-size", "-1e-3"]).step_size == -0.001
    assert parser().parse(["--step_size", ".5"]).step_size == 0.5
    with pytest.raises(OptionError, match="--step-size needs a value"):
        parser().parse(["--step-size", "--quiet"])


def test_what_is_typed_goes_before_the_file(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("step-size: 0.1\nclamp: [0, 2]\nquiet: true\n")
    second.write_text("step_size: 0.2\n")
    words = ["--config", str(first), "--config", str(second)]
    found = parser().parse(words)
    assert (found.step_size, found.clamp, found.quiet) == (0.2, (0, 2), True)
    for typed in (["--step-size", "0.3", *words], [*words, "--step-size", "0.3"]):
        assert parser().parse(typed).step_size == 0.3
    first.write_text("stepsize: 1\n")
    with pytest.raises(OptionError, match="Did you mean --step-size"):
        parser().parse(["--config", str(first)])
    first.write_text("step_size: x\n")
    with pytest.raises(OptionError, match=r"wrong value for --step-size in .*expected float"):
        parser().parse(["--config", str(first)])
    first.write_text("- 1\n")
    with pytest.raises(OptionError, match="holds no options"):
        parser().parse(["--config", str(first)])


@pytest.mark.parametrize("name", sorted(catalogue.names("measure")))
def test_the_options_of_a_measure_survive_their_own_configuration(name, tmp_path, capsys):
    declaration = catalogue.declaration(name)
    given = [w for i in declaration.inputs if i.required for w in (f"--{i.name}", "text")]
    for option in declaration.options:
        if option.required:
            given += [f"--{option.name}", "1"]
    options = vars(derived(declaration, out="runs").parse(given))
    with pytest.raises(SystemExit):
        derived(declaration, out="runs").parse([*given, "--print_config"])
    path = tmp_path / "c.yaml"
    path.write_text(capsys.readouterr().out)
    assert set(yaml.safe_load(path.read_text())) == set(options)
    again = vars(derived(declaration, out="runs").parse(["--config", str(path)]))
    assert again == {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def test_the_command_of_a_job_is_read_as_the_job(monkeypatch):
    from isogon.cli import commands

    declaration = catalogue.declaration("invariance")
    job = Job("invariance", {"model": "cnn"}, {"by_class": True, "stratified": False})
    assert job.command() == "isogon invariance --model cnn --by-class --no-stratified"
    words = Job("invariance", {"model": "cnn"}, {"by_class": True}).command().split()[2:]
    words += ["--batches", "digits", "--family", "rotations(4)"]
    assert derived(declaration, out=None).parse(words).by_class is True
    assert main(["invariance", *words, "--print_config"]) == 0
    assert commands.RUNS == "runs"
