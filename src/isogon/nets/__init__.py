"""Models: loading, architectures, sites, taps, graph surgery, one pass over data.

Functions live in the module of their noun: ``nets.load.load``, ``nets.sites.sites``,
``nets.tap.tap``, ``nets.passes.one_pass``, ...
"""

from __future__ import annotations

from isogon import lazy

_NAMES = {
    "build": "isogon.nets.load",
    "Output": "isogon.nets.outputs",
    "Normalize": "isogon.nets.normalize",
    "ChannelsFirst": "isogon.nets.layout",
}

__getattr__ = lazy.lazy_names(__name__, _NAMES)
