"""Plans stand for the jobs that they say, and mistakes are found before anything runs."""

from __future__ import annotations

import itertools

import pytest

from isogon import registry
from isogon.errors import FileError, IsogonError, OptionError, SpecError
from isogon.readings import SampleTable
from isogon.survey.declaring import plan

BASE = {"model": "cnn(width=2)", "batches": "digits(test, 8)"}


def jobs(**data):
    return plan.expand({**BASE, **data}).jobs


def test_lists_multiply_and_tuples_do_not():
    found = jobs(
        model=["cnn(width=2)", "mlp"],
        measures=[
            {"name": "data-matrix", "tolerances": [0.1, 0.2]},
            {"name": "data_matrix", "tolerances": [[0.1], [0.2, "1e-3"]], "eigenvectors": [0, 1]},
        ],
    )
    assert len(found) == 2 * 1 + 2 * 2 * 2
    assert {j.options["tolerances"] for j in found} == {(0.1, 0.2), (0.1,), (0.2, 1e-3)}
    first = [j.inputs["model"] for j in found]
    assert first == sorted(first), "jobs of one model stand together, so that it is built once"


def test_axes_fill_texts_and_equal_jobs_are_one():
    found = jobs(
        axes={"s": [0, 1], "w": [2, 4]},
        model="trained(cnn(width={w}), digits, seed={s})",
        measures=["orientation", {"name": "orientation", "linear": True}],
    )
    assert len(found) == 4
    assert {j.inputs["model"] for j in found} == {
        f"trained(cnn(width={w}), digits, seed={s})" for w in (2, 4) for s in (0, 1)
    }
    typed = jobs(axes={"k": [1, 2]}, measures=[{"name": "data-matrix", "eigenvectors": "{k}"}])
    assert [j.options["eigenvectors"] for j in typed] == [1, 2]


def test_names_inside_specs_that_exist_are_let_through():
    for model in (
        "trained(cnn(width=4), mnist(train, 100), family=product(rotations(4), scales(3)))",
        "trained(arch=cnn, data=digits)",
    ):
        assert len(jobs(model=model, measures=["orientation"])) == 1


def test_specs_in_options_are_checked_before_anything_is_trained():
    both = {"name": "stitch", "a": "cnn", "b": "mlp", "train": "digits", "test": "digits(test)"}
    good = jobs(measures=[{**both, "by": [["linear", "low_rank(4)"], "G_relu"]}])
    assert {j.options["by"] for j in good} == {("linear", "low_rank(4)"), "G_relu"}
    for by, says in (
        ("liner", "unknown stitch: got 'liner'.*Did you mean 'linear'"),
        (["linear", "low_rnk(4)"], "unknown stitch: got 'low_rnk'"),
        ("low_rank", "missing a required argument: 'rank'"),
        ("low_rank(0)", "rank too low"),
        ("linear(bias=3)", "wrong value for 'bias'"),
        ("cnn", "unknown stitch: got 'cnn'"),
    ):
        with pytest.raises(IsogonError, match=says):
            jobs(measures=[{**both, "by": by}])


def test_identifiers_depend_on_the_job_alone():
    a = plan.expand({**BASE, "measures": ["orientation", "data-matrix"]}).ids()
    b = plan.expand({**BASE, "measures": ["data-matrix"]}).ids()
    assert set(b) < set(a)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"measures": []}, OptionError, "not a plan"),
        ({"measures": ["data-matrx"]}, SpecError, "data_matrix"),
        ({"measures": [{"name": "orientation", "linera": True}]}, OptionError, "linear"),
        ({"measures": [{"name": "orientation", "linear": "yes"}]}, OptionError, "bool"),
        ({"measures": [{"name": "data-matrix", "batches": "digts"}]}, SpecError, "digits"),
        ({"model": "cn(", "measures": ["orientation"]}, SpecError, "cn("),
        ({"model": "cnnn", "measures": ["orientation"]}, SpecError, "cnn"),
        ({"model": "trained(cnnn, digits)", "measures": ["orientation"]}, SpecError, "cnn"),
        (
            {"model": "trained(cnnn(width=4), digits)", "measures": ["orientation"]},
            SpecError,
            "cnn",
        ),
        ({"model": "trained(cnn, digts)", "measures": ["orientation"]}, SpecError, "digits"),
        ({"model": "trained(cnn, data=digts)", "measures": ["orientation"]}, SpecError, "digits"),
        (
            {"model": "trained(cnn, digits, family=rotation(8))", "measures": ["orientation"]},
            SpecError,
            "rotations",
        ),
        (
            {"measures": [{"name": "invariance", "family": "product(rotations(4), scale(3))"}]},
            SpecError,
            "scales",
        ),
        ({"bathces": "digits", "measures": ["data-matrix"]}, OptionError, "batches"),
        ({"measures": [3]}, OptionError, "name: MEASURE"),
        ({"axes": [1], "measures": ["orientation"]}, OptionError, "axes"),
        (
            {"axes": {c: list(range(99)) for c in "abcd"}, "measures": ["orientation"]},
            OptionError,
            "at most",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(change, error, said):
    with pytest.raises(error) as caught:
        jobs(**change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_place_of_a_mistake_is_named():
    with pytest.raises(IsogonError, match=r"measures 2 \(orientation\)"):
        jobs(measures=["data-matrix", {"name": "orientation", "x": 1}])


# --------------------------------------------------------------------------- pairs


@pytest.fixture
def alike():
    """A measure of two models, registered and gone again afterwards."""
    registry.names("measure")
    kept = dict(registry._entries["measure"])

    @registry.measure(name="alike")
    def alike(
        a: Module,  # noqa: F821
        b: Module,  # noqa: F821
        batches: Batches | None = None,  # noqa: F821
        *,
        points: int = 3,
    ) -> SampleTable:
        """How alike two networks are.

        Args:
            a: One.
            b: The other.
            batches: Data.
            points: A number.
        """
        return SampleTable("alike")

    yield
    registry._entries["measure"].clear()
    registry._entries["measure"].update(kept)


def pairs(**data):
    found = plan.expand({"batches": "digits(test, 8)", **data}).jobs
    return sorted((j.inputs["a"], j.inputs["b"]) for j in found)


SEEDS = {"seed": [0, 1, 2]}
SEEDED = "trained(cnn, digits, seed={seed})"


@pytest.mark.parametrize(("over", "count"), [("distinct", 3), ("ordered", 6), ("all", 9)])
def test_pairs_are_gathered_over_all_points_of_an_axis(alike, over, count):
    models = [SEEDED.format(seed=s) for s in range(3)]
    wanted = {
        "distinct": itertools.combinations(models, 2),
        "ordered": itertools.permutations(models, 2),
        "all": itertools.product(models, repeat=2),
    }[over]
    section = [{"name": "alike", "over": over}]
    found = pairs(axes=SEEDS, model=SEEDED, pairs=section)
    assert found == sorted(wanted)
    assert len(found) == count
    assert pairs(model=models, pairs=section) == found, "as if they had been written out"
    assert pairs(axes=SEEDS, pairs=[{"name": "alike", "over": over, "model": SEEDED}]) == found


def test_pairs_over_two_axes_and_of_named_models(alike):
    data = {"pairs": ["alike"], "axes": {"seed": [0, 1], "w": [2, 4]}}
    assert len(pairs(**data, model="trained(cnn(width={w}), digits, seed={seed})")) == 6
    named = {"a": SEEDED, "b": "trained(mlp, digits, seed={seed})"}
    assert len(pairs(axes=SEEDS, model=named, pairs=["alike"])) == 15
    one = {"a": "cnn(width=2)", "b": "cnn( width = 2 )"}
    with pytest.raises(OptionError, match="no pair of models"):
        pairs(model=one, pairs=["alike"])
    found = plan.expand({"axes": SEEDS, "model": named, "pairs": ["alike"]})
    job = next(j for j in found.jobs if "mlp" in j.inputs["b"] and "cnn" in j.inputs["a"])
    assert found.names[plan._id(job)] == {"a": "a", "b": "b"}


def test_what_else_varies_with_an_axis_multiplies_the_pairs(alike):
    data = {"axes": {"seed": [0, 1, 2], "n": [8, 9]}, "model": SEEDED}
    found = plan.expand({**data, "batches": "digits(test, {n})", "pairs": ["alike"]}).jobs
    assert len(found) == 6
    found = plan.expand({**data, "pairs": [{"name": "alike", "points": "{n}"}]}).jobs
    assert sorted(j.options["points"] for j in found) == [8] * 3 + [9] * 3
    found = plan.expand({**data, "pairs": [{"name": "alike", "points": [1, 2]}]}).jobs
    assert len(found) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pairs": ["data-matrix"]}, "two models"),
        ({"pairs": ["segments"]}, "two models"),
        ({"pairs": ["alike"]}, "at least two"),
        ({"pairs": ["alike"], "model": []}, "at least two"),
        ({"pairs": [{"name": "alike", "over": "distant"}], "model": ["cnn", "mlp"]}, "distinct"),
        ({"pairs": [{"name": "alike", "points": []}], "model": ["cnn", "mlp"]}, "points: []"),
        ({"measures": ["data-matrix"], "axes": {"seed": []}}, "seed: []"),
        ({"measures": ["data-matrix"], "model": []}, "model: []"),
        ({"measures": [{"name": "invariance", "family": []}]}, "family: []"),
        ({"measures": ["data-matrix", {"name": "orientation", "linear": []}]}, "linear: []"),
        ({"measures": ["data-matrix"], "seed": []}, "seed: []"),
    ],
)
def test_a_plan_or_a_part_of_it_that_stands_for_nothing_is_an_error(alike, change, said):
    with pytest.raises(OptionError) as caught:
        jobs(**change)
    assert said in str(caught.value)
    assert "expected" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_command_refuses_an_empty_plan(alike, tmp_path, capsys):
    from isogon.cli import main

    path = tmp_path / "p.yaml"
    path.write_text(f"axes: {{seed: []}}\nmodel: {SEEDED}\nmeasures: [orientation]\n")
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "stands for no job" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    path.write_text(f"axes: {{seed: [0, 1]}}\nmodel: '{SEEDED}'\npairs: [alike]\n")
    assert main(["sweep", str(path), "--check"]) == 0
    assert "1 job, valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["a: [", "\x00", "- &a [*a, *a]\n", "!!python/object/apply:os.system ['true']", "3"]
)
def test_hostile_files_are_refused(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises((FileError, OptionError)) as caught:
        plan.read_plan(tmp_path / "p.yaml")
    assert "expected" in str(caught.value)
    with pytest.raises(FileError, match=r"no\.yaml"):
        plan.read_plan(tmp_path / "no.yaml")
