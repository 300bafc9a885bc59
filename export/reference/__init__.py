"""The reference record: what PyTorch makes of a few clips."""
