"""Arrangement: the hyperplanes of each layer, and what putting a layer back costs."""
