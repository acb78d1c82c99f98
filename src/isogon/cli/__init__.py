"""The command line: ``isogon COMMAND`` and ``python -m isogon COMMAND``.

Subcommands of measures are derived from their signatures. Nothing here imports torch before
the command that needs it runs.
"""

from __future__ import annotations

from isogon import lazy

__getattr__ = lazy.lazy_names(__name__, {"main": "isogon.cli.entry"})
