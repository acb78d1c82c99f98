"""Partition: the exact linear regions of a network on a plane, and its decision boundary.

`measure.partition` grows a mesh (`grow`), cut unit by unit (`mesh/`) tile by tile (`tiles/`) with
compiled kernels (`kernels/`), and reads a `reading.Partition` off it; `certificate/` checks one
against the network.
"""
