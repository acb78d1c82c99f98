"""Plans stand for the jobs that they say, and mistakes are found before anything runs."""

from __future__ import annotations

import pytest

from isogon.errors import FileError, IsogonError, OptionError, SpecError
from isogon.survey import plan

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


@pytest.mark.parametrize(
    "text", ["a: [", "\x00", "- &a [*a, *a]\n", "!!python/object/apply:os.system ['true']", "3"]
)
def test_hostile_files_are_refused(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises((FileError, OptionError)) as caught:
        plan.read(tmp_path / "p.yaml")
    assert "expected" in str(caught.value)
    with pytest.raises(FileError, match=r"no\.yaml"):
        plan.read(tmp_path / "no.yaml")
