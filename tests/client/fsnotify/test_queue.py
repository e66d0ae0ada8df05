"""Limits of a group's queue."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farwatch.abi.inotify import parse
from farwatch.client.fsnotify import Fsnotify, InotifyEvent
from farwatch.client.fsnotify.queue import OVERFLOW, EventQueue
from farwatch.events import Mask
from farwatch.linux.inotify import Inotify
from tests.client.fsnotify.facts import ALL, DIRECTORY, FILE, heard, of_name, of_node

LIMIT = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
NAMED = 32
"""Bytes of an event with a short name: inotify(7)."""


class Overflowing:
    """A real group and the core's, of the same limit, on a directory with two files."""

    def __init__(self, root: Path, real: Inotify) -> None:
        self._root = root
        self._real = real
        self._core = Fsnotify()
        self._group = self._core.group(limit=LIMIT)
        for name in ("a", "b"):
            (root / name).touch()
        assert real.add(root, Mask.ATTRIB) == 1
        assert self._group.add_watch(DIRECTORY, Mask.ATTRIB, is_dir=True) == 1

    def attrib(self, times: int) -> None:
        """So many events, no two neighbours of which are equal."""
        for index in range(times):
            name = "ab"[index % 2]
            os.chmod(self._root / name, 0o600)
            self._core.fsnotify(of_name(Mask.ATTRIB, name.encode()))

    def remove_watch(self) -> None:
        self._real.remove(1)
        self._group.rm_watch(1)

    def read(self, count: int) -> list[InotifyEvent]:
        """That many events, which were equal."""
        buffer = bytearray(NAMED * count)
        size = self._real.read(buffer)
        real = parse(bytes(buffer[:size]))
        ours = self._group.read(len(real))
        assert [tuple(event) for event in real] == [event[:4] for event in ours]
        return ours

    def is_empty(self) -> bool:
        with pytest.raises(BlockingIOError):
            self._real.read(bytearray(4096))
        return not self._group.has_events


def test_overflows_as_the_kernel_does(tmp_path: Path) -> None:
    with Inotify() as real:
        pair = Overflowing(tmp_path, real)
        pair.attrib(LIMIT + 10)
        assert len(pair.read(5)) == 5
        pair.attrib(10)
        rest = pair.read(2 * LIMIT)
        assert rest.count(OVERFLOW) == 1
        assert rest[-1] != OVERFLOW, "what had room again came behind it"
        assert pair.is_empty()
        pair.attrib(LIMIT)
        pair.remove_watch()
        rest = pair.read(2 * LIMIT)
        assert len(rest) == LIMIT + 1
        assert rest[-1] == OVERFLOW, "IGNORED is lost as well"
        assert pair.is_empty()


def test_an_event_that_waits_may_be_told_again_when_it_was_read() -> None:
    core = Fsnotify()
    group = core.group()
    watch = group.add_watch(FILE, ALL, is_dir=False)
    for _ in range(2):
        core.fsnotify(of_node(Mask.MODIFY))
        core.fsnotify(of_node(Mask.MODIFY))
        assert heard(group) == [(watch, Mask.MODIFY, b"")]


def test_overflow_of_the_server_reaches_every_group_once() -> None:
    core = Fsnotify()
    groups = [core.group(), core.group(limit=0)]
    core.overflow()
    core.fsnotify(of_node(Mask.Q_OVERFLOW))
    for group in groups:
        assert group.read() == [OVERFLOW]
    core.overflow()
    assert groups[0].read() == [OVERFLOW]


def test_nothing_but_overflow_enters_a_full_queue() -> None:
    queue = EventQueue(1)
    first = InotifyEvent(1, Mask.OPEN, 0, b"")
    for event in (first, first, InotifyEvent(2, Mask.OPEN, 0, b"")):
        queue.put(event)
    assert queue.take() == [first, OVERFLOW]
    assert queue.take() == []
    with pytest.raises(ValueError, match="-1"):
        EventQueue(-1)


def test_internal_bits_are_compared_and_not_shown() -> None:
    """OPEN of a program that is executed has a bit that no program sees: two events."""
    core = Fsnotify()
    group = core.group()
    watch = group.add_watch(FILE, ALL, is_dir=False)
    core.fsnotify(of_node(Mask.OPEN))
    core.fsnotify(of_node(Mask.OPEN | 0x1000))
    assert heard(group) == [(watch, Mask.OPEN, b"")] * 2


def test_calls_back_at_each_event_that_is_queued() -> None:
    core = Fsnotify()
    group = core.group()
    calls: list[None] = []
    assert group.on_event is None
    group.on_event = lambda: calls.append(None)
    group.add_watch(FILE, ALL, is_dir=False)
    core.fsnotify(of_node(Mask.OPEN))
    core.fsnotify(of_node(Mask.OPEN))
    core.fsnotify(of_node(Mask.MODIFY))
    assert len(calls) == 2
    group.on_event = None
    core.fsnotify(of_node(Mask.OPEN))
    assert len(calls) == 2
