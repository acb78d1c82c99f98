"""Continuous piecewise-linear networks: lowering to a program of affine maps and kinks."""
