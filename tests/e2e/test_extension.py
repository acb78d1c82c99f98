"""A separate package adds one of each through entry points; nothing in isogon is touched.

The package of ``examples/extending`` is installed as pip would leave it (files and a dist-info
folder on the path), and isogon is asked in fresh processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from isogon.survey.declaring import catalogue

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "extending"
POINTS = {
    group.removeprefix("isogon."): sorted(points)
    for group, points in tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"][
        "entry-points"
    ].items()
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder for PYTHONPATH in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE / "isogon_extending", site / "isogon_extending")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = site / "isogon_extending-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all processes."""
    return os.environ.get("ISOGON_CACHE") or str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def isogon(installed, cache, tmp_path):
    """Run the command line (or other code) with the package installed."""
    path = os.pathsep.join([str(installed), str(ROOT / "src")])
    env = {**os.environ, "PYTHONPATH": path, "ISOGON_CACHE": cache, "COLUMNS": "200"}

    def run(*arguments, code=None):
        command = ["-c", code] if code else ["-m", "isogon", *arguments]
        done = subprocess.run(
            [sys.executable, *command], env=env, cwd=tmp_path, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_every_kind_of_the_how_tos_is_there():
    assert {"measure", "arch", "dataset", "family", "group", "lowers"} <= POINTS.keys()


def test_names_are_listed_without_importing_the_package(isogon):
    code = (
        "import sys, json\nfrom isogon.survey.declaring import catalogue\n"
        "kinds = [k for k in catalogue.LISTED]\n"
        "found = {k: catalogue.names(k) for k in kinds}\n"
        "assert 'isogon_extending' not in ' '.join(sys.modules), 'imported'\n"
        "print(json.dumps(found))"
    )
    found = json.loads(isogon(code=code))
    for kind, names in POINTS.items():
        if kind in found:
            assert set(names) <= set(found[kind]), kind


def test_the_command_line_lists_it_and_names_a_broken_package(isogon, tmp_path):
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[isogon.measure]\nbroken = no_such_module:f\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from isogon.cli import main\nassert main(['list', 'measures']) == 0\n"
        "sys.exit(main(['margin', '--help']))"
    )
    text = " ".join(isogon(code=code).split())
    assert "the highest logit minus the second highest" in text
    assert "can't be imported" in text
    for word in ("data-matrix", "--model", "--batches", "--relative"):
        assert word in text


def test_measure_architecture_and_data_set_run_together(isogon, tmp_path):
    code = (
        "import isogon as ig\nfrom pathlib import Path\nfrom isogon.cli import main\n"
        "assert main(['margin', '--model', 'tent_net(8, channels=2, size=1, classes=3)',\n"
        "    '--batches', 'spirals(test, 9, arms=3)', '--out', 'out', '--quiet']) == 0\n"
        "reading = None\n"
        "for path in Path('out').rglob('*.json'):\n"
        "    try: reading = ig.read(path.parent)\n"
        "    except ig_error: continue\n"
        "frame = reading.to_frame()\n"
        "assert reading.measure == 'margin' and len(frame) == 9\n"
        "assert list(frame.columns) == ['sample', 'label', 'prediction', 'margin']\n"
        "ig.draw(reading).savefig('margin.png')\n"
    ).replace("ig_error", "Exception")
    isogon(code=code)
    assert (tmp_path / "margin.png").stat().st_size > 1000


def test_family_group_and_operation_work(isogon):
    code = (
        "import isogon as ig, torch\n"
        "f = ig.family('shears(5, low=-0.2, high=0.2)')\n"
        "assert len(f) == 5 and f.labels[0] == 'shear 0', f.labels\n"
        "model = ig.load('tent_net(4, channels=1, size=8)')\n"
        "frame = ig.invariance(model, ig.batches('digits(test, 16)'), f).to_frame()\n"
        "assert len(frame)\n"
        "from isogon.stats import CrossMoments\n"
        "g = ig.group('cyclic')\n"
        "x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double()\n"
        "a = g.sample(5, torch.Generator().manual_seed(1))\n"
        "found = g.fit(CrossMoments().update(x, a(x)).compute())\n"
        "assert torch.equal(found.matrix, a.matrix) and g.contains(found)\n"
        "model = ig.load('isogon_extending.fold:fold_net(6)')\n"
        "print(ig.verify(model, torch.randn(64, 2, generator=torch.Generator().manual_seed(0))))\n"
    )
    assert "certified: 2 of 2 checks" in isogon(code=code).splitlines()[0]


def test_a_measure_of_two_models_and_a_metric(isogon):
    code = (
        "import isogon as ig\nfrom isogon import registry\n"
        "data = ig.batches('digits(test, 40)')\n"
        "a, b = (ig.load(f'cnn({w}, size=8)') for w in (3, 4))\n"
        "agreement = registry.get('measure', 'agreement').build\n"
        "same, other = (agreement(a, m, data).to_frame() for m in (a, b))\n"
        "assert same['agree'].all() and not other['agree'].all()\n"
        "said = a(data.first(40)[0]).argmax(1)\n"
        "assert other['prediction_a'].tolist() == said.tolist()\n"
        "found = ig.similarity(a, b, data, metric=('rv', 'rv(power=0.5)', 'cka(unbiased=False)'),\n"
        "    pairs='diagonal', maps='flatten').to_frame()\n"
        "rv, root, cka = (found[found.metric == m]['similarity'].to_numpy()\n"
        "    for m in ('rv', 'rv(power=0.5)', 'cka(unbiased=False)'))\n"
        "import numpy as np\n"
        "assert np.allclose(rv, cka, atol=1e-9) and np.allclose(root**2, rv, atol=1e-9)\n"
        "assert (rv < 0.999).any()\n"
    )
    isogon(code=code)
    words = isogon("agreement", "--a", "tent_net(4, channels=1, size=8)", "--b",
                   "tent_net(5, channels=1, size=8)", "--batches", "digits(test, 16)")  # fmt: skip
    assert "agree" in words


def test_the_survey_runs_it(isogon, tmp_path):
    others = [n for n in catalogue.names("measure") if n != "orientation"]
    isogon(
        "survey", "tent_net(8, channels=1, size=8)", "--batches", "digits(test, 16)",
        "--out", "out", "--budget", "5", "--skip", ",".join(others),
    )  # fmt: skip
    report = next(Path(tmp_path, "out").rglob("report.html")).read_text(encoding="utf-8")
    assert "the highest logit minus the second highest" in report


def test_the_contract_tests_take_it_in(isogon):
    folder = ROOT / "tests" / "contract"
    if not folder.is_dir():
        pytest.skip("no contract tests in this tree")
    code = (
        "import sys, pytest\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', {str(ROOT)!r}, "
        f"'-c', {str(ROOT / 'pyproject.toml')!r}, {str(folder)!r}, '-k', 'margin']))"
    )
    output = isogon(code=code)
    assert " passed" in output
