"""Architectures: registered functions of literals that return a fresh module.

Each takes what a data set fixes as keywords: ``channels`` and ``size`` (or ``inputs``, the
number of features) and ``classes``; `isogon.nets.build` fills them from a data set.
"""
