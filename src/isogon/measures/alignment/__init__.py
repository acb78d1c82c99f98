"""Alignment: how alike two networks are inside, up to the symmetries of their activations."""
