"""Metrics of similarity, a module per kind."""
