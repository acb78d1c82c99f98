"""The command line as a user meets it: help, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isogon.cli import main


def err(capsys) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1, f"not one line: {text!r}"
    return text


def test_help_imports_nothing_heavy():
    """How long that takes says `benchmarks/startup.py`: half a second of a processor at most."""
    words = [sys.executable, "-X", "importtime", "-m", "isogon", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    heavy = {"torch", "numpy", "pandas", "matplotlib", "scipy", "numba"}
    assert not {name for name in imported if name.split(".")[0] in heavy}
    assert len([name for name in imported if name.split(".")[0] == "isogon"]) < 40
    assert 'isogon survey "trained(cnn, digits, epochs=5)" --batches "digits(test)"' in done.stdout


def test_no_command_is_usage(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert main(["help", "list"]) == 0
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "Did you mean 'list'"),
        (["frobnicate"], "list"),
        (["list", "mesures"], "Did you mean 'measures'"),
        (["list", "--colour"], "no such option"),
        (["list", "a", "b"], "no such argument"),
    ],
)
def test_wrong_use_is_one_line_and_2(capsys, words, said):
    assert main(words) == 2
    assert said in err(capsys)


def test_list_kinds(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "measures" in text
    assert "families" in text
    assert main(["list", "datasets"]) == 0
    assert "digits(" in capsys.readouterr().out


def test_families(capsys):
    assert main(["families"]) == 0
    assert "rotations(" in capsys.readouterr().out
    assert main(["families", "rotations(4)"]) == 0
    assert "angle=270" in capsys.readouterr().out
    assert main(["families", "rotation(4)"]) == 2


def test_the_unforeseen_is_one_line_too(capsys, monkeypatch):
    from isogon.cli import commands

    def broken(words):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setitem(commands.COMMANDS, "list", commands.Command("x", broken))
    assert main(["list"]) == 1
    text = err(capsys)
    assert "ZeroDivisionError: a b" in text
    assert "--traceback" in text
    with pytest.raises(ZeroDivisionError):
        main(["list", "--traceback"])


def test_interrupt_is_130(capsys, monkeypatch):
    from isogon.cli import commands

    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.COMMANDS, "list", commands.Command("x", stop))
    assert main(["list"]) == 130
    assert "interrupted" in err(capsys)
