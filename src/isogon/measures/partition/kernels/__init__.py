"""Compiled kernels: edges, chords, faces, upper envelopes, argmax boundaries."""
