"""The `storm` command: one module a verb, each imported only when its verb is used.

Every expected failure is one line on stderr: exit 2 for a wrong command, 1 for anything else.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
import traceback
from contextlib import suppress

import click

from storm_edge.cli.ending import STOPPED, end_when_told
from storm_edge.cli.printing import LONGEST, echo, one_line
from storm_edge.runtime.errors import StormError

# verb -> its line in `storm --help`, which imports no verb.
VERBS = {
    "init": "Write a checkpoint: random, or from SigLIP, Qwen2 and Mamba parts.",
    "export": "Checkpoint to bundle: ONNX graphs and a reference record.",
    "calibrate": "Observe a bundle on real frames, for int8 and fp8 engines.",
    "build": "Bundle to engine, verified, for one target.",
    "verify": "Compare an engine with what PyTorch computed.",
    "compare": "Find the first layer at which an engine differs.",
    "run": "Answer a question about a video.",
    "watch": "Answer a question about a live video again and again.",
    "serve": "Answer questions about videos over HTTP.",
    "batch": "Ask questions about a library of videos; run again to go on.",
    "plan": "Estimate memory and time on a target, before anything is built.",
    "bench": "Measure where the time of a question goes.",
    "eval": "Measure how often an engine answers right.",
    "inspect": "Show what a bundle or checkpoint holds.",
    "doctor": "Show what this machine can run.",
}


class Verbs(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of their use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb's module."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"storm_edge.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        if not any(option.name == "quiet" for option in command.params):
            command.params += _switches()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


class _OneLine(logging.Formatter):
    """What is logged names what comes from files."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _switch_on(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    assert option.name is not None
    if value:
        ctx.find_root().obj[option.name] = True
        if option.name == "verbose":
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_OneLine("%(asctime)s %(name)s: %(message)s"))
            logging.basicConfig(handlers=[handler])
            logging.getLogger("storm_edge").setLevel(logging.INFO)


def _switches() -> list[click.Parameter]:
    """-v and -q, which stand before a verb or after it."""
    lines = {"verbose": "Log every step, and show the traceback of an error.", "quiet": "Print results only."}
    return [
        click.Option([f"-{name[0]}", f"--{name}"], is_flag=True, expose_value=False, callback=_switch_on, help=line)
        for name, line in lines.items()
    ]


@click.group(cls=Verbs, params=_switches(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="storm-edge")
def storm() -> None:
    """Take a STORM video language model from its checkpoint to answers on this machine."""


def main() -> None:
    """Run the command line; exits the process."""
    end_when_told()
    gc.set_threshold(20_000)  # imports make many objects that stay: to look for garbage among them takes 0.04 s
    switches = {"verbose": False, "quiet": False}
    code: int
    try:
        returned = storm.main(standalone_mode=False, obj=switches)
        sys.stdout.flush()  # here, where a full disk or a reader that went away is understood
        code = returned if isinstance(returned, int) else 0
    except click.ClickException as e:
        context = e.ctx if isinstance(e, click.UsageError) else None
        hint = f": see `{context.command_path} --help`" if context else ""
        code = _fail(f"{' '.join(e.format_message().split()).rstrip('.')}{hint}.", switches["verbose"], 2)
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        code = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries again at its end, and says that it failed
        code = 1
    except StormError as e:
        code = _fail(str(e), switches["verbose"], e.exit_code)
    except OSError as e:
        where = os.fsdecode(e.filename) if isinstance(e.filename, str | bytes) else "the file system"
        code = _fail(f"{where}: {e.strerror or e}: free the space or correct the permissions.", switches["verbose"], 1)
    except MemoryError:
        code = _fail("this machine has too little memory for it: see `storm plan`.", switches["verbose"], 1)
    except Exception as e:
        told = f"unexpected {type(e).__name__}: {e}"
        code = _fail(f"{one_line(told, 300)}. `storm -v` shows where; please report it.", switches["verbose"], 1)
    gc.freeze()  # nor before the end, where it takes 0.14 s
    sys.exit(code)


def _fail(message: str, verbose: bool, code: int) -> int:
    """Print why a command failed; returns its exit status."""
    if verbose:
        for line in traceback.format_exc().splitlines():
            _say(line)
    _say(f"error: {one_line(message, LONGEST - len('error: '))}")
    return code


def _say(line: str) -> None:
    with suppress(OSError):  # whoever closed stderr wants to hear nothing
        echo(line, err=True)
