"""The figures as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import burst, cache, guest, guest_events, guest_work, latency, local, vhost
from bench.figures import Spread
from farwatch import __version__

PLAIN_WIDTH = 140


def open_console() -> Console:
    """Where the tables go; wide enough for them where there is no terminal to ask."""
    found = Console()
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = PLAIN_WIDTH
    return found


def show_latency(console: Console, rows: Sequence[latency.Row]) -> None:
    """One line for each event type."""
    console.print(
        f"[bold]Latency[/bold] of {rows[0].native.samples:,} events each, µs: "
        "from just before the change to the watcher's return from read"
    )
    table = _table(
        ("event", "native", "p99", "farwatch", "p99", "rounds' medians", "ratio", "p99 ratio"),
    )
    for row in rows:
        far = row.farwatch
        table.add_row(
            row.kind,
            f"{row.native.median:,.0f}",
            f"{row.native.p99:,.0f}",
            f"{far.median:,.0f}",
            f"{far.p99:,.0f}",
            f"{far.lowest_round:,.0f} to {far.highest_round:,.0f}",
            f"{row.ratio:.1f} ×",
            f"{far.p99 / row.native.p99:.1f} ×",
        )
    console.print(table, "")


def show_burst(console: Console, rows: Sequence[burst.Row]) -> None:
    """One line for each side."""
    console.print(
        f"[bold]A burst[/bold] of {rows[0].files:,} creations; fs.inotify.max_queued_events is "
        f"{burst.LIMIT.read_text().strip()}, and the watcher reads meanwhile"
    )
    table = _table(
        ("", "made /s", "heard /s", "rounds", "lost", "doubled", "overflows", "ratio"),
    )
    native = rows[0].heard_per_second.median
    for row in rows:
        heard = row.heard_per_second
        table.add_row(
            row.side,
            f"{row.made_per_second.median:,.0f}",
            f"{heard.median:,.0f}",
            f"{heard.lowest:,.0f} to {heard.highest:,.0f}",
            str(row.lost),
            str(row.doubled),
            str(row.overflows),
            f"{heard.median / native:.2f} ×",
        )
    console.print(table, "")


def show_local(console: Console, rows: Sequence[local.Row]) -> None:
    """One line for each operation."""
    console.print(
        "[bold]Local operations[/bold], µs each (median round, lowest to highest): quiet, and "
        "while files appear behind the mount in a watched directory"
    )
    table = _table(
        ("operation", "native", "farwatch", "ratio", "native, storm", "farwatch, storm", "ratio"),
    )
    for row in rows:
        table.add_row(
            row.operation,
            _spread(row.native),
            _spread(row.farwatch),
            f"{row.ratio:.1f} ×",
            _spread(row.native_storm),
            _spread(row.farwatch_storm),
            f"{row.storm_ratio:.1f} ×",
        )
    console.print(table, "")


def show_cache(console: Console, rows: Sequence[cache.Row]) -> None:
    """One line for each piece of work."""
    console.print(
        f"[bold]A tree of {rows[0].files:,} files that was read before[/bold], µs (median round,"
        " lowest to highest) and the ratio to native: a command, or one stat; by --cache"
    )
    table = _table(("work", "native", "coherent", "", "auto", "", "never", ""))
    for row in rows:
        ways = (row.coherent, row.auto, row.never)
        figures = (
            figure
            for way, ratio in zip(ways, row.ratios, strict=True)
            for figure in (_spread(way), f"{ratio:.1f} ×")
        )
        table.add_row(row.work, _spread(row.native), *figures)
    console.print(table, "")


def show_vhost(console: Console, rows: Sequence[vhost.Row]) -> None:
    """One line for each kind of request."""
    console.print(
        f"[bold]Requests by vhost-user[/bold], {rows[0].c.samples:,} each, µs: the same front "
        "end before the C virtiofsd (cache=none) and before farwatch's, on one processor"
    )
    table = _table(("request", "C virtiofsd", "p99", "farwatch", "p99", "ratio", "more"))
    for row in rows:
        table.add_row(
            row.operation,
            f"{row.c.median:,.1f}",
            f"{row.c.p99:,.1f}",
            f"{row.farwatch.median:,.1f}",
            f"{row.farwatch.p99:,.1f}",
            f"{row.ratio:.1f} ×",
            f"{row.farwatch.median - row.c.median:+,.1f}",
        )
    console.print(table, "")


def show_guest(console: Console, rows: Sequence[guest.Row]) -> None:
    """A table of operations for each way of caching, and one of events."""
    work = [row for row in rows if isinstance(row, guest_work.Row)]
    for mode in dict.fromkeys(row.cache for row in work):
        _show_work(console, [row for row in work if row.cache == mode])
    _show_events(console, [row for row in rows if isinstance(row, guest_events.Row)])


def _show_work(console: Console, rows: Sequence[guest_work.Row]) -> None:
    console.print(
        f"[bold]In a guest, cache={rows[0].cache}[/bold], µs or MB/s: median round; the ratio "
        "is the median round's, lowest to highest"
    )
    table = _table(("operation", "", "C virtiofsd", "farwatch", "ratio", "rounds", "target"))
    for row in rows:
        ratio = row.round_ratio
        table.add_row(
            row.operation,
            row.unit,
            f"{row.c.median:,.0f}",
            f"{row.farwatch.median:,.0f}",
            f"{ratio.median:.2f} ×",
            f"{ratio.lowest:.2f} to {ratio.highest:.2f}",
            _target(row),
        )
    console.print(table, "")


def _target(row: guest_work.Row) -> str:
    if row.target is None:
        return ""
    sign = "≥" if row.unit == "MB/s" else "≤"
    return f"{sign} {row.target:.2f}{'' if row.is_met else ', missed'}"


def _show_events(console: Console, rows: Sequence[guest_events.Row]) -> None:
    console.print(
        f"[bold]Events into a guest[/bold], {rows[0].guest.samples:,} each, µs: natively; on the "
        "host, from the change until the daemon calls the front end (target "
        f"{guest_events.HOST_TARGET:,.0f}); from the change to the return from read in the guest "
        f"(target {guest_events.TARGET:,.0f})\nThe guest's clock is told from the host's to "
        f"{max(row.clock_error for row in rows):,.0f} µs."
    )
    table = _table(("event", "native", "p99", "on the host", "p99", "guest", "p99", "rounds"))
    for row in rows:
        inside = row.guest
        table.add_row(
            row.kind,
            *(
                f"{value:,.0f}"
                for each in (row.native, row.host, inside)
                for value in (each.median, each.p99)
            ),
            f"{inside.lowest_round:,.0f} to {inside.highest_round:,.0f}",
        )
    console.print(table, "")


def write_json(path: Path, parts: Mapping[str, Sequence[Any]]) -> None:
    """Every row of every part, with its ratios, and where it was measured."""
    figures = {
        "farwatch": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        **{name: [_plain(row) for row in rows] for name, rows in parts.items()},
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


def _plain(row: Any) -> dict[str, Any]:
    """A row's fields, and its properties: what is derived from them."""
    derived = [name for name, value in vars(type(row)).items() if isinstance(value, property)]
    fields = {
        name: value._asdict() if hasattr(value, "_asdict") else value
        for name, value in row._asdict().items()
    }
    return fields | {name: getattr(row, name) for name in derived}


def _table(columns: Sequence[str]) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _spread(value: Spread) -> str:
    return f"{value.median:,.1f} ({value.lowest:,.1f} to {value.highest:,.1f})"
