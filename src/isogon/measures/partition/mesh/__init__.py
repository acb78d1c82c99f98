"""The planar mesh that a partition is, and how kinks and maxima cut it."""
