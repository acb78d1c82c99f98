"""The commands on real, tiny inputs: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import isogon as ig
from isogon.cli import main
from isogon.training import Checkpoint

DATA = "digits(test, 16)"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    return tmp_path


def out(capsys, *words: str) -> str:
    code = main([*words])
    text, error = capsys.readouterr()
    assert code == 0, error
    return text


def refused(capsys, code: int, *words: str) -> str:
    assert main([*words]) == code
    text = capsys.readouterr().err
    assert text.count("\n") == 1, f"not one line: {text!r}"
    return text


def test_a_measure_prints_a_table_and_its_paths_and_is_found_again(here, capsys):
    words = ("data-matrix", "--model", "cnn(width=2)", "--batches", DATA)
    first = out(capsys, *words)
    paths = {k: Path(v) for k, v in (x.split(None, 1) for x in first.splitlines()[-2:])}
    assert (paths["reading"] / "reading.json").is_file()
    assert paths["figure"].read_bytes()[:4] == b"\x89PNG"
    assert "trace" in first
    assert "computed in" in first
    assert "found, computed" in out(capsys, *words)
    assert "found" not in out(capsys, *words, "--again")
    shown = out(capsys, "show", str(paths["reading"].parent))
    assert "isogon data-matrix --model 'cnn(width=2)' --batches 'digits(test, 16)'\n" in shown
    for form in ("json", "csv", "parquet"):
        path = out(capsys, "export", str(paths["reading"].parent), "--format", form).strip()
        assert Path(path).stat().st_size > 100
    assert len(json.loads(Path("data_matrix.json").read_text())["table"]["trace"]) == 16


def test_what_is_exact_is_certified_and_says_so(here, capsys):
    line = ("segments", "--model", "mlp(16)", "--a", "two_moons(test)[0]",
            "--b", "two_moons(test)[1]")  # fmt: skip
    text = out(capsys, *line)
    assert "\ncertified: 7 of 7 checks, " in text
    folder = Path(text.split("reading  ")[1].splitlines()[0]).parent
    assert "\ncertified: 7 of 7 checks, " in out(capsys, "show", str(folder))
    plane = ("partition", "--model", "mlp(16, inputs=2)", "--plane", "box2d()")
    assert "\ncertified: 15 of 15 checks, 2,000 points\n" in out(capsys, *plane)
    assert "\ncertified: 15 of 15 checks" in out(capsys, *plane), "found again"
    assert main([*plane, "--max_regions", "20"]) == 0
    text, error = capsys.readouterr()
    assert "INCOMPLETE\nNOT certified: " in text
    assert "regions are not cut to the end (14 of 15 checks passed)" in text
    assert error.count("the partition stopped early (max_regions=20") == 1


def test_options_from_words_yaml_and_the_front(here, capsys):
    words = ["data-matrix", "--model", "cnn(width=2)", "--batches", DATA]
    text = out(capsys, *words, "--tolerances", "0.1,1e-2", "--print_config")
    assert "- 0.1" in text
    (here / "c.yaml").write_text(text)
    table = out(capsys, "--quiet", "data-matrix", "--config", "c.yaml", "--eigenvectors", "1")
    assert "rank@1e-1" in table
    bracketed = out(capsys, *words, "--tolerances=[0.1]", "--out=elsewhere")
    assert "rank@1e-1" in bracketed
    assert (here / "elsewhere").is_dir()


def test_a_model_of_the_user_from_another_folder(here, capsys):
    (here / "mine").mkdir()
    (here / "mine" / "__init__.py").touch()
    (here / "mine" / "net.py").write_text(
        "from torch import nn\n"
        "def build(width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(),\n"
        "                         nn.Linear(width, 10))\n"
    )
    sys.path.insert(0, str(here))
    try:
        from mine.net import build

        torch.save(build().state_dict(), "w.pt")
    finally:
        sys.path.remove(str(here))
        sys.modules.pop("mine.net")
        sys.modules.pop("mine")
    # a fresh process, as the console script starts it: the folder is not on its path
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from isogon.cli import main; raise SystemExit(main())",
         "data-matrix", "--model", "mine.net:build()@w.pt", "--batches", DATA],
        capture_output=True, text=True, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trace" in done.stdout


def test_train_then_survey_then_report(here, capsys):
    text = out(capsys, "train", "--arch", "mlp(4)", "--data", "two_moons(train, 64)",
               "--epochs", "1", "--out", "t")  # fmt: skip
    assert Path("t/last.safetensors").is_file()
    assert 'isogon survey "t/last.safetensors" --batches "two_moons(test)"' in text
    text = out(capsys, "survey", "t/last.safetensors", "--batches", "two_moons(test, 16)",
               "--only", "data-matrix,orientation", "--out", "s")  # fmt: skip
    assert text.splitlines()[-1] == "s/report.html"
    words = ("survey", "t/last.safetensors", "--batches", "two_moons(test, 16)", "--skip", "walk",
             "--budget", "60", "--only", "orientation", "--no-check", "--out", "again")  # fmt: skip
    out(capsys, *words)
    assert (  # what the page says runs it again, without a value for a switch
        "isogon survey t/last.safetensors --batches &#39;two_moons(test, 16)&#39; --budget 60 "
        "--only orientation --skip walk --no-check<" in Path("again/report.html").read_text()
    )
    page = Path("s/report.html").read_text()
    Path("s/report.html").unlink()
    assert out(capsys, "report", "s").strip() == "s/report.html"
    assert Path("s/report.html").read_text() == page
    assert "data-matrix" in out(capsys, "show", "s")


def test_evaluate_measures_and_trains_nothing(here, capsys):
    words = ("train", "--arch", "mlp(4)", "--data", "digits(train, 96)", "--epochs", "1",
             "--label-noise", "0.5", "--validation", "0.25", "--weight-decay", "0.01",
             "--train-accuracy", "--out", "t")  # fmt: skip
    out(capsys, *words)
    before = Path("t/last.safetensors").read_bytes()
    text = out(capsys, "evaluate", "--model", "t/last.safetensors", "--out", "e")
    assert all(word in text for word in ("train", "val", "test", "accuracy", "loss", "penalty"))
    table = pd.read_parquet("e/evaluation.parquet").set_index("data")
    assert table["samples"].to_dict() == {"train": 72, "val": 24, "test": 355}
    row = Checkpoint.load(Path("t/last.safetensors")).metrics
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert table.loc[split, "accuracy"] == pytest.approx(row[f"{name}_accuracy"])
        assert table.loc[split, "loss"] == pytest.approx(row[f"{name}_loss"], rel=1e-5)
    squares = sum(float(p.detach().double().square().sum())
                  for p in ig.load("t/last.safetensors").parameters())  # fmt: skip
    assert table["penalty"].iloc[0] == pytest.approx(0.005 * squares)
    text = out(capsys, "evaluate", "--model", "t/last.safetensors", "--penalty-only",
               "--weight-decay", "2", "--out", "p")  # fmt: skip
    assert "accuracy" not in text
    only = pd.read_parquet("p/evaluation.parquet")
    assert only["penalty"].tolist() == pytest.approx([squares])
    text = out(capsys, "evaluate", "--model", "cnn(width=2)", "--batches", "digits(test, 9)")
    assert "digits(test, 9)" in text
    assert "not a trained model" in refused(capsys, 2, "evaluate", "--model", "cnn(width=2)")
    assert Path("t/last.safetensors").read_bytes() == before


@pytest.mark.parametrize(("flag", "name"), [("--arch", "vgg11_bn"), ("--data", "cifar10")])
def test_train_lists_what_there_is(flag, name, here, capsys):
    assert name in refused(capsys, 2, "train", flag)


def test_survey_chooses_a_folder_that_is_the_same_each_time(here, capsys):
    words = ("survey", "cnn(width=2)", "--batches", DATA, "--only", "orientation")
    first, second = out(capsys, *words), out(capsys, *words)
    assert first.splitlines()[-1] == second.splitlines()[-1]
    assert "+ orientation" in first
    assert "= orientation" in second


def test_show_explains_what_a_word_names(here, capsys):
    assert "Conv2d" in out(capsys, "show", "cnn(width=2)")
    assert "parameters" in out(capsys, "show", "cnn(width=2)")
    assert "1 x 8 x 8" in out(capsys, "show", "digits")
    assert "G(x) =" in out(capsys, "show", "data-matrix")


@pytest.mark.parametrize(
    "name", ["data-matrix", "train", "evaluate", "survey", "show", "export", "report"]
)
def test_help_teaches(name, here, capsys):
    text = out(capsys, name, "--help")
    assert f"isogon {name}" in text
    assert "--traceback" in text
    assert "--data_root" not in text
    assert "Literal" not in text
    if name == "data-matrix":
        assert "Grementieri" in text
        assert 'isogon data-matrix --model "trained(cnn, digits, epochs=5)"' in text


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (2, "Did you mean 'digits'", "data-matrix --model cnn --batches digts(test)"),
        (2, "Did you mean 'width'", "data-matrix --model cnn(widht=3) --batches digits"),
        (2, "Did you mean --tolerances", "data-matrix --model cnn --batches digits --tolernces 1"),
        (2, "needs --batches", "data-matrix --model cnn"),
        (2, "needs --model and --batches", "data-matrix"),
        (2, "expected int", "data-matrix --model cnn --batches digits --eigenvectors x"),
        (2, "tolerances", "data-matrix --model cnn --batches digits(test,16) --tolerances 7"),
        (2, "expected one of: cpu", "data-matrix --model cnn --batches digits --device cuda:99"),
        (1, "--data-root", "data-matrix --model cnn --batches digits --data-root nowhere"),
        (1, "nowhere.onnx", "data-matrix --model nowhere.onnx --batches digits"),
        (1, "isogon survey", "report nowhere"),
        (1, "no reading", "export nowhere"),
        (2, "fmt", "export . --fmt csv"),
        (2, "expected one of: json", "export . --format xls"),
        (2, "no such configuration", "data-matrix --config nowhere.yaml"),
        (2, "needs a value", "train --arch"),
        (2, "cnn", "train --arch"),
        (2, "NAME", "experiment"),
        (2, "unknown experiment", "experiment nothing-like-it"),
        (2, "--budget", "survey cnn --batches digits --budget -1 --out s"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(here, capsys, code, said, words):
    assert said in refused(capsys, code, *words.split())


def test_weights_that_are_not_numbers(here, capsys):
    from isogon import nets

    state = nets.build("cnn(width=2, size=8)").state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, "bad.pt")
    model = ("--model", "cnn(width=2)@bad.pt", "--batches", DATA)
    assert "conv1.weight" in refused(capsys, 1, "data-matrix", *model)
    assert not list((here / "runs").glob("*"))


def test_an_empty_data_set(here, capsys):
    text = refused(capsys, 1, "data-matrix", "--model", "cnn", "--batches", "digits(test, 0)")
    assert "at least one" in text


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(here, capsys):
    (here / "file").write_text("mine")
    for words in (
        ("survey", "trained(cnn, digits)", "--batches", DATA, "--out", "file/x"),
        ("train", "--arch", "cnn", "--data", "digits", "--out", "file/x"),
        ("data-matrix", "--model", "trained(cnn, digits)", "--batches", DATA, "--out", "file"),
    ):
        assert "--out" in refused(capsys, 1, *words)
    assert (here / "file").read_text() == "mine"
    assert not (here / "cache").exists()


def test_a_random_model_is_refused_unless_unchecked(here, capsys):
    Path("noisy.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return torch.nn.functional.dropout(super().forward(x), 0.5, True)\n"
        "def net():\n"
        "    return Net(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    words = ("data-matrix", "--model", "noisy:net()", "--batches", DATA)
    assert "random in evaluation mode" in refused(capsys, 1, *words)
    text = out(capsys, *words, "--no-check")
    folder = next(x.split(None, 1)[1] for x in text.splitlines() if x.startswith("reading"))
    assert json.loads((Path(folder) / "reading.json").read_text())["meta"]["check"] is False
    assert "found, computed" in out(capsys, "--no-check", *words)
    assert "random in evaluation mode" in refused(capsys, 1, *words), "not answered by that record"


def test_an_empty_value_in_a_configuration_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text('tolerances: [1e-3, ""]\n')
    words = ["data-matrix", "--config", "c.yaml", "--model", "cnn", "--batches", "digits(test)"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "tolerances" in error
    assert error.strip().count("\n") == 0
