"""Stitches trained on the task loss: sets of maps, the loop that trains them, what it reads."""
