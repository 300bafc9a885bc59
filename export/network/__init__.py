"""The model in PyTorch. Everything here needs torch."""
