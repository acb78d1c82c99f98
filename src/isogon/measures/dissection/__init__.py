"""Dissection: which concepts of labelled images the units of a network detect, in which basis."""
