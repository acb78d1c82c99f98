"""The overview: what `isogon --help` says."""

from __future__ import annotations

import shutil
import sys
import textwrap

from isogon import __version__
from isogon.cli import commands, listing

OVERVIEW = """\
isogon {version}: what function is this network, geometrically?

usage: isogon COMMAND [options]        (isogon COMMAND --help explains one of them)

{start}
  isogon survey "trained(cnn, digits, epochs=5)" --batches "digits(test)"
      trains a small network, runs every measure that applies, writes report.html
  isogon data-matrix --model "trained(cnn, digits, epochs=5)" --batches "digits(test, 64)"
      one measure; with --model "my.module:build()@weights.pt" on a model of your own
  isogon list measures
      what can be measured; also: isogon list archs, datasets, families, ...

"""

SPECS = """
{specs}  models and data are named by one quoted string, which reproduces them
  cnn(width=32)                       an architecture with fresh weights
  resnet18(num_classes=10)@last.pt    the same with weights from a file
  my.module:build(3)@w.safetensors    a function of yours that returns a module
  trained(cnn, digits, seed=0)        a network trained here, kept in the cache
  net.onnx, net.pt2                   an exported network
  digits(test), mnist(test, 512)      data: all of it, the first 512
  mnist(test)[3]                      one sample

{options}  taken by every command
  --out DIR        folder of results          --device NAME   cpu, cuda, mps or auto
  --data-root DIR  folder of data sets        --download      fetch missing data sets
  --config FILE    options from YAML          --print_config  show the options as YAML
  --quiet          no progress                --traceback     where an error arose
  --no-check       measure random, batch-dependent or non-differentiable models as they are

exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted
"""


def overview() -> str:
    """The text of `isogon --help`."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    text = OVERVIEW.format(version=__version__, start=_head("start here"))
    text += _table("commands", {n: c.summary for n, c in commands.COMMANDS.items()}, width)
    text += f"\n{_head('measures')}\n"
    for heading, rows in listing.grouped("measure").items():
        text += "\n" + _table(heading, dict(rows), width)
    return text + SPECS.format(specs=_head("specs"), options=_head("options"))


def _table(title: str, rows: dict[str, str], width: int) -> str:
    pad = max(map(len, rows), default=0) + 2
    lines = [_head(title)]
    for name, summary in rows.items():
        cut = textwrap.shorten(summary, max(width - pad - 3, 20), placeholder=" ...")
        lines.append(f"  {name:<{pad}}{cut}")
    return "\n".join(lines) + "\n"


def _head(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text
