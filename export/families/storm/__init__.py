"""STORM's own checkpoints: configuration, names and layout are the ones that others are mapped to."""
