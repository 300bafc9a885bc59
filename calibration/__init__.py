"""Observe activations on real frames, decide what is quantized and how; the output is data in the bundle."""
