"""Checks of a partition, or of segments, against the network."""
