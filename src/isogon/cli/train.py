"""`isogon train`."""

from __future__ import annotations

import re
from pathlib import Path

from isogon.cli.commands import RUNS, surroundings
from isogon.cli.parser import Parser
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import dataclass_options

EXAMPLE = """\
examples:
  isogon train --arch cnn --data digits --epochs 5
  isogon train --arch "cifar_resnet20(width=4)" --data "digits(train, 500)" --optimizer sgd \\
      --lr 0.1 --schedule cosine --epochs 2 --snapshot-every 1 --out runs/r20
  isogon reset --model runs/r20/last.safetensors --snapshots runs/r20 --batches "digits(test)"
"""


def train(words: list[str]) -> int:
    """Train a network; killed and started again, it goes on where it was."""
    from isogon.cli import console
    from isogon.training.config import FitConfig

    options_ = dataclass_options(FitConfig)
    parser = Parser(
        "train",
        "Train a network. Equal options give equal weights; killed and started again, the run\n"
        "goes on where it was. The folder holds last.safetensors, metrics.parquet, snapshots/.",
        EXAMPLE,
    )
    for name, text in (
        ("arch", "architecture, e.g. cnn(width=32), resnet18, my.module:build()"),
        ("data", "what to learn from, e.g. digits, mnist(train, 1000)"),
    ):
        parser.spec(name, text)
    for name, text in (
        ("validation_data", "held-out data, measured after each epoch"),
        ("test_data", "test data; the data set's own test split by default"),
    ):
        parser.spec(name, text, required=False)
    for option in options_:
        parser.option(option)
    parser.commons(out=None, skip=["again", *(o.name for o in options_)])
    if words[-1:] in (["--arch"], ["--data"]):  # the flag alone asks what there is
        kind = {"--arch": "arch", "--data": "dataset"}[words[-1]]
        parser.values[words[-1]] = ", ".join(catalogue.names(kind))
    options = parser.parse(words)
    config = {o.name: getattr(options, o.name) for o in options_}
    arch, data = parse(options.arch), parse(options.data)
    label = re.sub(r"[^A-Za-z0-9]+", "-", f"{arch}-{data}-seed-{config.get('seed', 0)}")
    out = Path(options.out) if options.out else Path(RUNS) / f"train-{label.strip('-')[:80]}"
    config = FitConfig(**config)
    with surroundings(options):
        from torch import distributed

        from isogon.survey.running.run import writable
        from isogon.training import fit
        from isogon.training.data_of import data_spec

        writable(out)
        done = fit(
            str(arch),
            str(data),
            config=config,
            out=out,
            validation=options.validation_data,
            test=options.test_data,
        )
    if distributed.is_initialized() and distributed.get_rank() > 0:
        return 0  # one process speaks for all
    if len(done.history):
        console.print_table(done.history.tail(8), f"{arch} on {data}")
        console.say("")
    console.say(f"checkpoint  {done.path}")
    # code of the user's own is named by the user, never by a file
    model = f"{done.spec}@{done.path}" if arch.module else done.path
    console.say(f'next        isogon survey "{model}" --batches "{data_spec(str(done.path))}"')
    return 0
