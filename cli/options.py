"""Options that several verbs have, and the bounds that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

MAX_THREADS = 1024
# Beyond these a number is a slip of the keyboard: no model here looks at as many frames, no folder has more questions.
COUNT = click.IntRange(1, 1_000_000)


def threads_option(help: str = "CPU threads; default: all cores.") -> Callable[[Decorated], Decorated]:
    """--threads, the same on every verb that has it."""
    return click.option("--threads", type=click.IntRange(1, MAX_THREADS), help=help)


def video_options(command: Decorated) -> Decorated:
    """--snap and --skip-still, the same on every verb that answers questions about videos."""
    snap = "Take the nearest keyframe instead of a frame where one is at most so many seconds away: faster."
    still = "Take the tokens of the frame before where no pixel differs by more than so many of 255; default: 0, equal."
    for option in (
        click.option("--skip-still", type=click.IntRange(0, 255), default=0, metavar="LEVELS", help=still),
        click.option("--snap", type=click.FloatRange(0), metavar="SECONDS", help=snap),
    ):
        command = option(command)
    return command
