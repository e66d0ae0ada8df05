"""Operations in a guest: on farwatch's mount, and beside it on the C virtiofsd's.

Rounds are short and alternate between the two, so that noise meets both; a round's figure
is the median of its operations, and what counts is the ratio within a round.  Each daemon
has a new ext4 of its own, for the mark by which farwatch hears of changes would make it
work while the other is measured.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.figures import Spread, spread
from bench.guest_machine import Guest

BIG = 64 << 20
PER_DIRECTORY = 100
_GIT = {
    "PATH": "/usr/bin:/bin",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "farwatch"), ("EMAIL", "farwatch@localhost"))
    },
}


class Operation(NamedTuple):
    """How one is measured, and what is aimed at."""

    share: float = 0.0
    """Of the samples; at least one a round."""
    turns: float = 1
    """By so much there are more rounds, and each is shorter; at least two."""
    is_throughput: bool = False
    target: float | None = None
    """Of the ratio farwatch to C: at most this, of a throughput at least."""


METADATA, THROUGHPUT = 1.3, 0.85
OPERATIONS = {
    "fstat": Operation(1.0, 5, target=METADATA),
    "stat": Operation(0.5, 5, target=METADATA),
    "open, close": Operation(0.5, 5, target=METADATA),
    "create, close, unlink": Operation(0.25, 5, target=METADATA),
    "git status": Operation(turns=0.5, target=METADATA),
    "find": Operation(target=METADATA),
    "direct read": Operation(turns=3, is_throughput=True, target=THROUGHPUT),
    "direct write": Operation(turns=3, is_throughput=True, target=THROUGHPUT),
    "plain read": Operation(turns=3, is_throughput=True),
    "plain write": Operation(turns=3, is_throughput=True),
    "random read": Operation(0.5, 5),
    "random write": Operation(0.5, 5),
}


class Row(NamedTuple):
    """One operation on both mounts: in microseconds, or in MB/s."""

    cache: str
    operation: str
    unit: str
    c: Spread
    farwatch: Spread
    round_ratio: Spread
    """farwatch to C, of each round."""
    target: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is; None if there is none."""
        if self.target is None:
            return None
        ratio = self.round_ratio.median
        return ratio >= self.target if self.unit == "MB/s" else ratio <= self.target


def prepare(guest: Guest, files: int) -> None:
    """The same files in both directories: one small, one large, a git repository of many."""
    for directory, inside in zip(guest.outside, guest.inside, strict=True):
        (directory / "made").mkdir()
        (directory / "file").write_bytes(bytes(4096))
        (directory / "big").write_bytes(os.urandom(1 << 20) * (BIG >> 20))
        lines = _tree(directory / "tree", files)
        (directory / "expected").write_text(str(lines))
        guest.worker.ask("refresh", inside, 2)


def measure(guest: Guest, cache: str, samples: int, rounds: int) -> Iterator[Row]:
    """Each operation in rounds by ``rounds`` and its own turns.  Raises Failure."""
    for name, operation in OPERATIONS.items():
        turns = max(2, int(rounds * operation.turns))
        count = max(1, int(samples * operation.share / turns))
        times: tuple[list[int], list[int]] = [], []
        for path in guest.inside:
            guest.worker.ask(name, path, 1)
        for number in range(turns):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                times[which].append(guest.worker.ask(name, guest.inside[which], count))
        yield _row(cache, name, operation, times)


def _row(cache: str, name: str, operation: Operation, times: tuple[list[int], list[int]]) -> Row:
    if operation.is_throughput:
        unit = "MB/s"
        c, farwatch = ([BIG * 1000 / value for value in each] for each in times)
    else:
        unit = "µs"
        c, farwatch = ([value / 1000 for value in each] for each in times)
    ratios = [far / other for far, other in zip(farwatch, c, strict=True)]
    return Row(cache, name, unit, spread(c), spread(farwatch), spread(ratios), operation.target)


def _tree(top: Path, files: int) -> int:
    """A repository with all of it committed; how many lines find says of its files."""
    directories = 0
    for number in range(files):
        directory = top / "files" / f"directory{number // PER_DIRECTORY:03}"
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
            directories += 1
        (directory / f"file{number:05}").write_text(f"This is file {number}.\n" * 8)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", "-C", str(top), *command], check=True, env=_GIT)
    return 1 + directories + files
