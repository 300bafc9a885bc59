"""What reaches the terminal: names, messages and records come from files, and may try to write more than words.

Everything printed for people goes through `visible` or `one_line`. JSON escapes by itself, and the model's answer is
the user's data: `answer` leaves it as it is, except that a terminal gets no control characters but newlines and tabs.
"""

from __future__ import annotations

import sys

import click

LONGEST = 500  # characters of a line
_TAIL = 150  # of them, the end of what was shortened: there stands what to do


def visible(text: str) -> str:
    """`text` with every character that does not print itself escaped: controls, marks of direction, line ends."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` as one visible line of at most so many characters; of a longer one the middle is left out."""
    if len(text) > 8 * longest:  # of megabytes only the ends are looked at
        text = f"{text[: 4 * longest]} ... {text[-4 * longest :]}"
    line = visible(" ".join(text.split()))
    if len(line) <= longest:
        return line
    tail = min(_TAIL, longest // 3)
    return f"{line[: longest - tail - 5]} ... {line[-tail:]}"


def echo(text: str = "", *, err: bool = False) -> None:
    """Print one line for a person; spaces that align columns stay."""
    line = visible(text)
    click.echo(line if len(line) <= LONGEST else one_line(text), err=err)


def answer(piece: str) -> None:
    """Print a piece of the model's answer as it is; on a terminal without control characters."""
    if sys.stdout.isatty():
        piece = "".join(_escaped(c) if _is_control(c) else c for c in piece)
    click.echo(piece, nl=False, color=True)  # else escape sequences are left out in a pipe


def _is_control(character: str) -> bool:
    return character not in "\n\t" and (character < " " or "\x7f" <= character <= "\x9f")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
