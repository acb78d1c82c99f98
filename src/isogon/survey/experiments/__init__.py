"""Experiments that combine several measures."""
