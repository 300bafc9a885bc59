"""What a chat template may take, and the faults of those that take more; without Jinja, whose import takes 0.05 s."""

from __future__ import annotations

# What the child process allows a template.
SECONDS = 1  # of processor time; ordinary templates take milliseconds
MEMORY = 192 * 2**20  # bytes of address space; Python and Jinja take 30 MiB of it
LARGEST_OUTPUT = 2**17  # characters; what is asked is not in it, so a turn takes some forty


class TemplateFault(Exception):  # noqa: N818 - translated by the caller, who knows the file
    """The template cannot be compiled, was stopped by the sandbox or a limit, or failed; the message says which."""


class TemplateLimitFault(TemplateFault):
    """The template takes more time or memory, or writes more, than any honest one."""
