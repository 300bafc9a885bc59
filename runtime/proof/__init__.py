"""Whether an engine computes what PyTorch did, and how often its answers are right."""
