"""Kinds of checkpoints, a folder each: recognised by config.json, their configuration and tensors mapped to STORM's.

Nothing after this knows a family: it reads the configuration's parts, and tensors by STORM's names.
"""
