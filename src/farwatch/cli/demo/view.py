"""How the demo looks: a table that grows by a row, in a terminal and without one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from farwatch.cli.demo.comparison import describe, kinds
from farwatch.cli.demo.rehearsal import Hearing, Outcome

PLAIN_WIDTH = 100
"""Columns where there is no terminal to ask."""
TITLE_WIDTH, LATENCY_WIDTH = 22, 9

INTRODUCTION = """\
One directory is watched directly, the other through a mount, each by the same
plain inotify program. Every change below is made behind the mount's back, where
a shared file system without farwatch tells a watcher nothing at all.
"""


class View:
    """Prints finished rows, and keeps the row that is growing below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PLAIN_WIDTH

    def introduce(self, source: str, mountpoint: str) -> None:
        """What is about to be seen, and the table's head."""
        self._console.print(INTRODUCTION)
        self._console.print(f"[dim]farwatch mount {source} {mountpoint}[/dim]\n", soft_wrap=True)
        table = self._table()
        plain, behind = Text("on a plain directory", "bold"), Text("behind farwatch", "bold cyan")
        table.add_row(Text("change", "bold"), plain, "", behind, "", "")
        self._console.print(table)

    def grow(self, outcome: Outcome) -> None:
        """Show a row that is not finished; nothing where there is no terminal."""
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._row(outcome), refresh=True)

    def finish(self, outcome: Outcome) -> None:
        """Print a finished row for good."""
        self.close()
        self._console.print(self._row(outcome))

    def close(self) -> None:
        """Take away the row that is growing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def summarise(self, outcomes: Sequence[Outcome]) -> None:
        """The last line, and before it the events of each change that differed."""
        different = [outcome for outcome in outcomes if not outcome.equal]
        for outcome in different:
            self._console.print(f"\n[red]{outcome.title}[/red] differed")
            for name, hearing in (("plain", outcome.plain), ("behind", outcome.behind)):
                lines = describe(hearing.events) or ["nothing"]
                self._console.print("\n".join(f"  {name}: {line}" for line in lines))
        self._console.print(f"\n{summary(outcomes)}", soft_wrap=True)

    def _table(self) -> Table:
        events = max(12, (min(self._console.width, 120) - TITLE_WIDTH - 2 * LATENCY_WIDTH - 6) // 2)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(width=TITLE_WIDTH)
        for style in ("", "cyan"):
            table.add_column(width=events, style=style)
            table.add_column(width=LATENCY_WIDTH, justify="right", style=style)
        table.add_column(width=1)
        return table

    def _row(self, outcome: Outcome) -> Table:
        table = self._table()
        verdict = Text("=", "green") if outcome.equal else Text("≠", "bold red")
        table.add_row(
            Text(outcome.title),
            *_cells(outcome.plain),
            *_cells(outcome.behind),
            verdict if outcome.finished else Text("…"),
        )
        return table


def summary(outcomes: Sequence[Outcome]) -> str:
    """The demo's result in one line."""
    different = sum(not outcome.equal for outcome in outcomes)
    verdict = f"{different} of them heard differently" if different else "every event equal"
    plain, behind = (
        [heard.latency for heard in side if heard.latency is not None]
        for side in (
            [outcome.plain for outcome in outcomes],
            [outcome.behind for outcome in outcomes],
        )
    )
    line = f"{len(outcomes)} changes, {verdict}"
    if not plain or not behind:
        return line
    ratio = median(behind) / median(plain)
    return (
        f"{line}; first event after {microseconds(median(plain))} on a plain directory, "
        f"{microseconds(median(behind))} behind farwatch (medians, {ratio:.1f} ×)"
    )


def microseconds(nanoseconds: float) -> str:
    """A latency with its unit."""
    return f"{nanoseconds / 1000:,.0f} µs"


def _cells(hearing: Hearing) -> tuple[Text, Text]:
    latency = hearing.latency
    words = " ".join(kinds(hearing.events)) or ("nothing" if hearing.complete else "")
    return Text(words), Text(microseconds(latency) if latency is not None else "")
