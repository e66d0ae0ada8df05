"""The benchmark measures what it says: on a bind mount, where both sides are native."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench import burst, figures, guest, guest_events, guest_work, watching
from bench.__main__ import PARTS, QUICK, run
from bench.daemons import C_VIRTIOFSD
from bench.latency import SUBJECTS
from bench.local import OPERATIONS
from farwatch.abi.inotify import InotifyEvent
from farwatch.events import Mask
from tests.cli.bind import bind_mount
from tests.guest.absent import NoGuest
from tests.guest.kernel import kernel
from tests.guest.machine import require_programs


def event(name: str, mask: int = Mask.CREATE) -> InotifyEvent:
    return InotifyEvent(1, mask, 0, name.encode())


def test_a_latency_knows_its_tail_and_its_rounds() -> None:
    one = figures.latency([[1000] * 50, [3000] * 49 + [900_000]])
    assert (one.median, one.lowest_round, one.highest_round, one.samples) == (2.0, 1.0, 3.0, 100)
    assert 3.0 < one.p99 < 900.0


def test_a_burst_counts_what_is_lost_and_doubled() -> None:
    reads = [
        watching.Read(1_000_000_000, [event("a"), event("b"), event("b")]),
        watching.Read(3_000_000_000, [event("", Mask.Q_OVERFLOW), event("end")]),
    ]
    judged = burst.judge(["a", "b", "c"], reads, started=1_000_000_000, made=2_000_000_000)
    assert judged == burst.Burst(made_in=1.0, heard_in=2.0, lost=1, doubled=1, overflows=1)


def test_a_watcher_that_is_told_to_end_hands_on_what_it_has(tmp_path: Path) -> None:
    with watching.watching("end", int(Mask.CREATE), tmp_path) as watcher:
        os.mknod(tmp_path / "a")
        reads = watcher.rest(0.1)
    assert [event.name for read in reads for event in read.events] in ([b"a"], [])


@pytest.mark.root
@pytest.mark.long
def test_every_part_runs_and_is_written_down(tmp_path: Path) -> None:
    if not C_VIRTIOFSD.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"no {C_VIRTIOFSD} (Debian: qemu-system-common)")
    output = tmp_path / "figures.json"
    console = Console(width=160, record=True, file=StringIO())
    assert run(QUICK, tuple(name for name in PARTS if name != "guest"), output, console, bind_mount)
    written = json.loads(output.read_text())
    assert [row["kind"] for row in written["latency"]] == list(SUBJECTS)
    assert [row["operation"] for row in written["local"]] == list(OPERATIONS)
    assert [row["side"] for row in written["burst"]] == ["native", "farwatch"]
    assert {"GETATTR", "READ 1024 KiB"} <= {row["operation"] for row in written["vhost"]}
    # Both sides are the same here, so a ratio far from 1 is the benchmark's own doing.
    assert all(0.2 < row["ratio"] < 5 for row in written["latency"] + written["local"])
    assert "DELETE" in console.export_text()


@pytest.mark.long
@pytest.mark.root
@pytest.mark.guest
@pytest.mark.timeout(400)
def test_a_guest_is_measured(tmp_path: Path) -> None:
    try:
        require_programs()
        kernel("6.12")
    except NoGuest as absent:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no guest: {absent}")
    output = tmp_path / "figures.json"
    console = Console(width=160, record=True, file=StringIO())
    assert run(QUICK, ("guest",), output, console)
    rows = json.loads(output.read_text())["guest"]
    work = {(row["cache"], row["operation"]) for row in rows if "operation" in row}
    assert work == {(cache, name) for cache in guest.CACHES for name in guest_work.OPERATIONS}
    assert [row["kind"] for row in rows if "kind" in row] == list(guest_events.KINDS)
    # Both daemons do the same, so a time far from the other's is a fault of the measurement.
    assert all(0.02 < row["round_ratio"]["median"] < 50 for row in rows if "operation" in row)
    # A change cannot be heard of before it is made.
    assert all(row["guest"]["median"] > 0 for row in rows if "kind" in row)
    assert "git status" in console.export_text()
