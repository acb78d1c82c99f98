"""Every measure that a model and its data can supply, in one survey."""
