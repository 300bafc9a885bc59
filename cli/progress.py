"""Progress on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(ctx: click.Context, verb: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that names the step now running, shown with a spinner on a terminal's stderr."""
    if ctx.obj["quiet"] or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.status import Status

    with Status(verb, console=Console(stderr=True)) as status:
        yield lambda step: status.update(f"{verb}: {step}")
