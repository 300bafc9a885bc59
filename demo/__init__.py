"""Synthetic videos with questions, and the small model trained on them."""
