"""The `storm` command: one module a verb, each imported only when its verb is used.

Every expected failure is one line on stderr: exit 2 for a wrong command, 1 for anything else.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import click

from storm_edge.runtime.errors import StormError

# verb -> its line in `storm --help`, which imports no verb.
VERBS = {
    "init": "Write a checkpoint: random, or from SigLIP, Qwen2 and Mamba parts.",
    "export": "Checkpoint to bundle: ONNX graphs and a reference record.",
    "build": "Bundle to engine, verified, for one target.",
    "verify": "Compare an engine with what PyTorch computed.",
    "run": "Answer a question about a video.",
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
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.version_option(package_name="storm-edge")
@click.pass_context
def storm(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Take a STORM video language model from its checkpoint to answers on this machine."""
    ctx.obj = {"quiet": quiet}


def main() -> None:
    """Run the command line; exits the process."""
    verbose = {"-v", "--verbose"} & set(sys.argv[1:2])
    try:
        code = storm.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except StormError as e:
        _fail(str(e), bool(verbose))
        sys.exit(e.exit_code)
    except OSError as e:
        _fail(
            f"{e.filename or 'the file system'}: {e.strerror or e}: free the space or correct the permissions.",
            bool(verbose),
        )
        sys.exit(1)
    except Exception as e:
        _fail(f"unexpected {type(e).__name__}: {e}. `storm -v` shows where; please report it.", bool(verbose))
        sys.exit(1)


def _fail(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    click.echo(f"error: {' '.join(message.split())}", err=True)
