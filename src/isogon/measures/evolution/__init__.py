"""How the partition of a slice changes over the checkpoints of a training."""
