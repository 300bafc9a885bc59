"""Engines for TensorRT and TensorRT for RTX."""
