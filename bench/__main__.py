"""``python -m bench`` (``make bench``): measures, as root, in a few minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console

from bench import burst, cache, guest, latency, local, report, vhost
from bench.sides import Mounter, Sides, fresh_ext4, sides
from bench.watching import Deaf
from farwatch.cli.demo.stage import farwatch_mount
from farwatch.cli.failure import Failure


class Size(NamedTuple):
    """How much is measured."""

    samples: int
    files: int
    operations: int
    rounds: int


FULL = Size(samples=1000, files=20_000, operations=5000, rounds=7)
QUICK = Size(samples=20, files=500, operations=50, rounds=2)


@contextmanager
def _unmounted(source: Path, mountpoint: Path) -> Iterator[None]:
    """For what needs no mount, and would only be slower for one that hears of it."""
    yield


@contextmanager
def _separate(source: Path, mountpoint: Path) -> Iterator[None]:
    """Two file systems alike, for what must not hear of what is done in the other."""
    with fresh_ext4(mountpoint.with_name("second"), mountpoint):
        yield


class Part(NamedTuple):
    """One part of the benchmark: how it is measured, and how it is shown."""

    measure: Callable[[Sides, Size], list[Any]]
    show: Callable[[Console, Any], None]
    mounter: Mounter | None = None
    """What there is on the second side, where that is no mount of farwatch's."""


PARTS = {
    "latency": Part(
        lambda on, size: list(latency.measure(on, size.samples, size.rounds)),
        report.show_latency,
    ),
    "burst": Part(
        lambda on, size: burst.measure(on, size.files, size.rounds),
        report.show_burst,
    ),
    "local": Part(
        lambda on, size: list(local.measure(on, size.operations, size.rounds)),
        report.show_local,
    ),
    "cache": Part(
        lambda on, size: list(cache.measure(on, size.operations, size.rounds)),
        report.show_cache,
        mounter=_unmounted,
    ),
    "vhost": Part(
        lambda on, size: list(vhost.measure(on.native.outside, size.samples, size.rounds)),
        report.show_vhost,
        mounter=_unmounted,
    ),
    "guest": Part(
        lambda on, size: list(guest.measure(on, size.samples, size.operations, size.rounds)),
        report.show_guest,
        mounter=_separate,
    ),
}


@click.command()
@click.option("--quick", is_flag=True, help="Few samples: does it run at all?")
@click.option("--json", "output", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="These parts.")
def bench(quick: bool, output: Path | None, only: tuple[str, ...]) -> None:
    """Measure farwatch beside the same thing done natively."""
    if os.geteuid() != 0:
        sys.exit("farwatch: the benchmark mounts file systems; run it as root: sudo make bench")
    try:
        exact = run(QUICK if quick else FULL, only or tuple(PARTS), output, report.open_console())
    except (Failure, Deaf) as failure:
        sys.exit(f"farwatch: {failure}")
    if not exact:
        sys.exit("farwatch: events were lost or doubled (see the burst)")


def run(
    size: Size,
    names: tuple[str, ...],
    output: Path | None,
    console: Console,
    mounter: Mounter = farwatch_mount,
) -> bool:
    """Measure the parts ``names`` and show each when it is done.

    Each part has a file system and a mount of its own.  False if the burst was
    not heard exactly.  Raises Failure if there is no mount, Deaf if an event
    does not come.
    """
    measured: dict[str, list[Any]] = {}
    for name in names:
        part = PARTS[name]
        with sides(part.mounter or mounter) as on:
            measured[name] = part.measure(on, size)
        part.show(console, measured[name])
    if output is not None:
        report.write_json(output, measured)
    return all(row.exact for row in measured.get("burst", []))


if __name__ == "__main__":
    bench()
