"""Rewrites of graphs: a module for each, with its reason."""
