"""Everything that storm-edge raises on purpose.

    StormError
    ├── UsageError        the command or call itself is wrong                      (exit 2)
    ├── CheckpointError   the checkpoint is damaged, incomplete or contradicts itself
    ├── BundleError       the bundle is damaged, incomplete or of another version
    ├── VideoError        the video cannot be read
    ├── TargetError       the target cannot do what was asked
    ├── BuildError        an engine could not be made
    ├── EngineError       an engine cannot be used here
    ├── BusyError         every worker is taken and no place in line is free
    └── ParityError       an engine does not compute what the checkpoint computes

A message is one line: what happened, where, and what to do now.
"""

from __future__ import annotations


class StormError(Exception):
    """Base of all errors meant for the user; `exit_code` is the command line's exit status."""

    exit_code = 1


class UsageError(StormError):
    """The command or call contradicts itself or names something that does not exist."""

    exit_code = 2


class CheckpointError(StormError):
    """A checkpoint's files, configuration or tensors are missing, damaged or misshapen."""


class BundleError(StormError):
    """A bundle's files are missing, damaged, or written for another schema."""


class VideoError(StormError):
    """A video is missing, is no video, or cannot be decoded."""


class TargetError(StormError):
    """The target does not support the requested precision, model or length."""


class BuildError(StormError):
    """Preparing or compiling an engine failed."""


class EngineError(StormError):
    """A built engine cannot be loaded or run on this machine."""


class BusyError(StormError):
    """Every worker is taken, and the line is full or the wait was too long."""


class ParityError(StormError):
    """An engine's outputs differ from the reference by more than its precision allows."""
