"""The `storm` command: one module a verb, each imported only when its verb is used.

Every expected failure is one line on stderr: exit 2 for a wrong command, 1 for anything else.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import traceback

import click

from storm_edge.runtime.errors import StormError

# verb -> its line in `storm --help`, which imports no verb.
VERBS = {
    "init": "Write a checkpoint: random, or from SigLIP, Qwen2 and Mamba parts.",
    "export": "Checkpoint to bundle: ONNX graphs and a reference record.",
    "calibrate": "Observe a bundle on real frames, for int8 and fp8 engines.",
    "build": "Bundle to engine, verified, for one target.",
    "verify": "Compare an engine with what PyTorch computed.",
    "run": "Answer a question about a video.",
    "plan": "Estimate memory and time on a target, before anything is built.",
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


def _switch_on(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    assert option.name is not None
    if value:
        ctx.find_root().obj[option.name] = True
        if option.name == "verbose":
            logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
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
    switches = {"verbose": False, "quiet": False}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that nothing half-written stays
    try:
        code = storm.main(standalone_mode=False, obj=switches)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as e:
        context = e.ctx if isinstance(e, click.UsageError) else None
        hint = f": see `{context.command_path} --help`" if context else ""
        click.echo(f"error: {' '.join(e.format_message().split()).rstrip('.')}{hint}.", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except StormError as e:
        _fail(str(e), switches["verbose"])
        sys.exit(e.exit_code)
    except OSError as e:
        _fail(
            f"{e.filename or 'the file system'}: {e.strerror or e}: free the space or correct the permissions.",
            switches["verbose"],
        )
        sys.exit(1)
    except Exception as e:
        _fail(f"unexpected {type(e).__name__}: {e}. `storm -v` shows where; please report it.", switches["verbose"])
        sys.exit(1)


def _fail(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    click.echo(f"error: {' '.join(message.split())}", err=True)
