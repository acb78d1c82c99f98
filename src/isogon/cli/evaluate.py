"""`isogon evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isogon.cli.commands import surroundings
from isogon.cli.parser import Parser
from isogon.specs import parse
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.declare import Option

EXAMPLE = """\
examples:
  isogon evaluate --model "trained(cnn, digits, epochs=5)"
  isogon evaluate --model "trained(cnn, digits, epochs=5)" --batches "digits(train, 500)"
  isogon evaluate --model "trained(cnn, digits, epochs=5)" --penalty-only --weight-decay 5e-4

also of a run's folder and of other files: --model runs/r20/last.safetensors,
  --model "resnet18(num_classes=10)@weights.pt" --batches "cifar10(test)"
"""


def evaluate(words: list[str]) -> int:
    """Accuracy, loss and L2 penalty of a model; trains nothing."""
    from isogon.cli import console

    parser = Parser(
        "evaluate",
        "Loss and accuracy of a model on data, and the L2 penalty of its weights: half the weight\n"
        "decay times the sum of the squares of all parameters, what decay adds to the loss.\n"
        "Without --batches, of a trained model: on the data that it learned from, what was held\n"
        "out of them, and the test split, altered as its training did. Nothing is trained.",
        EXAMPLE,
    )
    parser.spec("model", catalogue.noun("Module")["help"])
    parser.spec("batches", catalogue.noun("Batches")["help"], required=False)
    number: Any = ["union", "float", "none"]
    text = "weight of the penalty; that of its training for a trained model, else 1"
    parser.option(Option("weight_decay", number, None, help=text))
    parser.flag("penalty-only", "the penalty alone: no data are read")
    parser.commons(out=None, skip=["seed", "again"])
    options = parser.parse(words)
    spec = str(parse(options.model))
    with surroundings(options):
        import pandas as pd

        from isogon import storage
        from isogon.data import samples
        from isogon.errors import DataError, IsogonError
        from isogon.nets.load import load
        from isogon.survey.running.placing import place
        from isogon.survey.running.run import resolve_device
        from isogon.training.config import FitConfig
        from isogon.training.data_of import data_spec, training_options
        from isogon.training.evaluation import evaluate as measured
        from isogon.training.evaluation import penalty

        given = None if options.batches is None else samples(options.batches)
        model = place(load(spec, like=given), resolve_device(options.device))
        config = FitConfig()
        try:
            config = training_options(spec)
        except IsogonError:  # another model: its data are to be named
            if options.batches is None and not options.penalty_only:
                raise
        decay = options.weight_decay
        decay = (config.weight_decay or 1.0) if decay is None else decay
        weights = {"weight_decay": decay, "penalty": penalty(model, decay)}
        rows: list[dict[str, Any]] = []
        if options.penalty_only:
            rows.append(weights)
        else:
            named = {} if options.batches is None else {options.batches: options.batches}
            for split in () if named else ("train", "val", "test"):
                if split != "val" or config.validation:
                    named[split] = str(data_spec(spec, split))
            for name, text in named.items():
                try:
                    data = samples(text)
                except DataError:
                    if name != "test":  # data without a test split
                        raise
                    continue
                found = measured(model, data, config=config, batch_size=options.batch_size)
                rows.append({"data": name, "samples": len(data), **found, **weights})
        table = pd.DataFrame(rows)
        if options.out:
            storage.write_table(Path(options.out) / "evaluation.parquet", table)
    console.print_table(table, spec)
    return 0
