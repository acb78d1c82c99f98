"""Measures: each a registered function of a model and data that returns a `Reading`."""

from __future__ import annotations
