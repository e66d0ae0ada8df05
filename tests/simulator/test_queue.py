"""The disk's records, merged in the queue, confirmed by the kernel's fanotify."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farwatch.events import READING, Key, Place, Record
from farwatch.linux.handles import fsid, name_to_handle
from farwatch.sources.fanotify import FanotifySource
from tests.simulator.disk import WatchedDisk
from tests.simulator.facts import kinds
from tests.simulator.histories import OnDirectory, OnDisk, Op, ops, play
from tests.simulator.queue import Queue
from tests.simulator.random_histories import history
from tests.simulator.test_native import CASES, SETUP

pytestmark = pytest.mark.root
_ATTEMPTS = 3
"""Somebody else's look at a directory, just as it is removed, holds up its DELETE_SELF."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def told(records: list[Record], root: Key) -> list[str]:
    """Records without their keys: nodes are numbered as they come."""
    numbers: dict[Key | None, int] = {root: 0}

    def number(key: Key | None) -> int:
        return numbers.setdefault(key, len(numbers))

    def at(place: Place | None) -> str:
        return "-" if place is None else f"{number(place.directory)}/{place.name.decode()}"

    return [
        f"{kinds(record.mask)} {number(record.node)} {at(record.place)} {at(record.new_place)}"
        for record in records
    ]


def on_disk(history: list[Op]) -> list[str]:
    with WatchedDisk() as disk, closing(OnDisk(disk, 100)) as host:
        play(host, SETUP)
        queue = Queue()
        queue.want(READING)
        disk.listeners.append(queue.hear)
        play(host, history)
        return told(queue.read(), disk.root_key)


def on_directory(path: Path, history: list[Op]) -> list[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(OnDirectory(fd)) as program:
            play(program, SETUP)
            with FanotifySource.open(fd) as source:
                source.want(READING)
                # What others do in the file system, and what came of the set-up, is not ours.
                source.read()
                play(program, history)
                mine = [record for record in source.read() if record.thread == os.getpid()]
        handle, _ = name_to_handle(fd, b"", empty_path=True)
        return told(mine, fsid(fd) + handle)
    finally:
        os.close(fd)


def compare(path: Path, history: list[Op]) -> None:
    expected = on_disk(history)
    found: list[str] = []
    for attempt in range(_ATTEMPTS):
        directory = path / str(attempt)
        directory.mkdir()
        found = on_directory(directory, history)
        if found == expected:
            break
    assert found == expected


@pytest.mark.parametrize("text", CASES)
def test_the_kernel_queues_the_same(directory: Path, text: str) -> None:
    compare(directory, ops(text))


@pytest.mark.parametrize("seed", range(30))
def test_the_kernel_queues_the_same_of_random_histories(directory: Path, seed: int) -> None:
    compare(directory, history(seed, 25))
