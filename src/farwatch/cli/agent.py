"""``farwatch agent MNT``: the agent's own command line, as one of farwatch's commands."""

from __future__ import annotations

import click

# It has one of its own because in guests it is a file without click.


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> int:
    """Deliver remote changes to whoever watches below MNT, a farwatch mount."""
    from farwatch.agent.__main__ import main

    return main(list(arguments))
