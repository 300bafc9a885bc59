"""`storm doctor`."""

from __future__ import annotations

import json

import click

from storm_edge.cli.printing import echo


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(as_json: bool) -> None:
    """Show what this machine has and which targets it can build and run."""
    from storm_edge.runtime.machine.doctor import examine

    facts = examine()
    if as_json:
        click.echo(json.dumps(facts))
        return
    for section, items in facts.items():
        echo(f"{section}:")
        for name, value in items.items():
            echo(f"  {name:<17}{value}")
