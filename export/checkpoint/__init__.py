"""Checkpoints: reading, writing, checking, and making one of parts."""
