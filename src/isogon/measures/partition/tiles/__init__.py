"""Meshes that are grown tile by tile, and how tiles join."""
