"""The `storm` command."""

from storm_edge.cli.main import main

__all__ = ["main"]
