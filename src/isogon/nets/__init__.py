"""Models: loading, architectures, sites, taps, graph surgery, calculus.

Functions live in the module of their noun: ``nets.load.load``, ``nets.sites.sites``,
``nets.tap.tap``, ``nets.calculus.jacobian``, ...
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "build":
        from isogon.nets.load import build

        return build
    if name == "Output":
        from isogon.nets.outputs import Output

        return Output
    if name == "ChannelsFirst":
        from isogon.nets.layout import ChannelsFirst

        return ChannelsFirst
    raise AttributeError(f"module 'isogon.nets' has no attribute {name!r}")
