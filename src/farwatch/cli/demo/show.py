"""The demo from beginning to end."""

from __future__ import annotations

from contextlib import closing

from rich.console import Console

from farwatch.cli.demo.interrupts import Interrupts
from farwatch.cli.demo.rehearsal import rehearse
from farwatch.cli.demo.stage import Mounter, farwatch_mount, staged
from farwatch.cli.demo.view import View


def show(pause: float, mounter: Mounter = farwatch_mount, console: Console | None = None) -> int:
    """Run all acts, ``pause`` seconds apart; 0 if both watchers heard the same, else 1.

    Raises Failure when there is nothing to show: the mount or a watcher failed.
    """
    console = console or Console(highlight=False)
    outcomes = []
    with (
        Interrupts() as interrupts,
        staged(interrupts, mounter) as stage,
        closing(View(console)) as view,
    ):
        view.introduce("SRC", "MNT")
        for outcome in rehearse(stage, pause, view.grow):
            view.finish(outcome)
            outcomes.append(outcome)
        view.summarise(outcomes)
    return 0 if all(outcome.equal for outcome in outcomes) else 1
