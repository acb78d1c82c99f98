"""The local data matrix, paths along its leaves and across, and whether leaves exist.

The local data matrix splits input space at every point into the range of G, in which the
prediction moves, and its kernel, in which it does not. A *leaf* is a surface that is tangent
to the range everywhere.
"""
