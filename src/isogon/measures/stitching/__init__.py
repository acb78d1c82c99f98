"""Stitching: heads of one network with tails of another, and rotations inserted between layers."""
