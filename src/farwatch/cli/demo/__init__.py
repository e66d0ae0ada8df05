"""``farwatch demo``: the same changes, watched directly and through a mount."""

from __future__ import annotations

import os

import click

from farwatch.cli.failure import Failure

PAUSE_SECONDS = 1.5
"""Between two changes, so that a person can follow: fifteen take half a minute."""


@click.command()
@click.option(
    "--pause",
    type=click.FloatRange(0),
    default=PAUSE_SECONDS,
    hidden=True,
    help="Seconds between two changes.",
)
def demo(pause: float) -> int:
    """Show farwatch at work, for half a minute.

    Makes a temporary directory, mounts part of it, and makes changes behind the
    mount while an ordinary inotify program watches; beside each the same change
    in a plain directory.  Leaves nothing behind.
    """
    if os.geteuid() != 0:
        raise Failure("the demo mounts a file system", remedy="run it as root: sudo farwatch demo")
    # The table needs rich, which `farwatch demo --help` does not.
    from farwatch.cli.demo.show import show

    return show(pause)
