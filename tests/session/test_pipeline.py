"""The pipeline between a source and a session: what it waits for, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from farwatch.abi.steps import Op
from farwatch.events import Mask, Place, Record
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from tests.session.kernel import Agent, Kernel

STRANGER = 77
EXCHANGE = 2


class Queue:
    """A source whose records the test puts in; the pipeline's ``Source``."""

    wanted = 0

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.next: list[Record] = []
        """What happens while the others are read."""
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def want(self, mask: int) -> None:
        raise AssertionError(f"nobody asked for {mask:#x}")

    def read(self, limit: int = 0) -> list[Record]:
        found, self.records, self.next = self.records, self.next, []
        return found

    def queued(self) -> int:
        return len(self.records)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.close()


@pytest.fixture
def piped(kernel: Kernel, queue: Queue) -> Pipeline:
    disk = kernel.disk
    modes = OpenModes(lambda thread, key: None)
    return Pipeline(
        queue, kernel.session, disk.node_at, disk.place_of, modes, lambda reply: None, ()
    )


def halves(kernel: Kernel) -> tuple[Record, Record]:
    """What a source says of an exchange of x and y, which have just been exchanged."""
    one, other = kernel.disk.place("x"), kernel.disk.place("y")
    first, second = kernel.disk.at("x"), kernel.disk.at("y")
    kernel.disk.do_rename("x", "y", EXCHANGE)
    return (
        Record(int(Mask.RENAME), STRANGER, one, first.key, other),
        Record(int(Mask.RENAME), STRANGER, other, second.key, one),
    )


def prepared(kernel: Kernel, piped: Pipeline) -> None:
    """The client knows both names, from before what is read next."""
    for name in ("x", "y"):
        kernel.disk.do_file(name)
        kernel.lookup(name)
    for _ in range(2):
        piped.deliver()


def counted(kernel: Kernel, queue: Queue, piped: Pipeline) -> float:
    """A link count is read that nothing explains; when it is due."""
    prepared(kernel, piped)
    key = kernel.disk.at("x").key
    queue.records.append(Record(int(Mask.ATTRIB), STRANGER, None, key))
    piped.deliver()
    assert piped.due is not None
    return piped.due


def test_half_an_exchange_is_kept_while_the_disk_says_exchanged(
    kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline
) -> None:
    """However late the second of its two events is queued, they are told as one."""
    prepared(kernel, piped)
    first, second = halves(kernel)
    queue.records.append(first)
    piped.deliver()
    assert piped.due is not None
    for _ in range(5):
        piped.deliver(flush=True)
    assert kernel.session.delivery.is_idle
    queue.records.append(second)
    piped.deliver()
    batch = agent.wait()
    assert batch is not None
    told = [step for step in batch.steps if step.new_name]
    assert len(told) == 1, batch
    assert (told[0].name, told[0].new_name) == (b"x", b"y")


def test_but_not_for_ever(kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline) -> None:
    """Its second event may have been lost."""
    prepared(kernel, piped)
    first, _ = halves(kernel)
    queue.records.append(first)
    piped.deliver()
    flushes = 0
    while piped.due is not None:
        piped.deliver(flush=True)
        flushes += 1
        assert flushes < 1000
    assert not kernel.session.delivery.is_idle


def test_nobody_waits_for_what_concerns_others(
    kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline
) -> None:
    """They may never rest: a count that nothing explains is told when it is due all the same."""
    first = counted(kernel, queue, piped)
    somewhere = Place(b"in nothing of this", b"w")
    while time.monotonic() < first:
        assert kernel.session.delivery.is_idle
        queue.records.append(Record(int(Mask.MODIFY), STRANGER + 1, somewhere, b"other"))
        piped.deliver()
        assert piped.due in (first, None)
    queue.records.append(Record(int(Mask.MODIFY), STRANGER + 1, somewhere, b"other"))
    piped.deliver()
    assert piped.due is None
    assert not kernel.session.delivery.is_idle


def test_nor_if_it_falls_due_while_a_batch_is_read(
    kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = counted(kernel, queue, piped)
    moments = chain([first - 0.001], repeat(first + 0.001))
    with monkeypatch.context() as meanwhile:
        clock = SimpleNamespace(monotonic=lambda: next(moments), time_ns=time.time_ns)
        meanwhile.setattr("farwatch.session.pipeline.time", clock)
        piped.deliver()
    assert piped.due == first
    while time.monotonic() < first:
        pass
    piped.deliver()
    assert piped.due is None
    assert not kernel.session.delivery.is_idle


def test_what_is_done_to_a_directory_that_has_moved_since_is_told_under_its_first_name(
    kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline
) -> None:
    """The disk has the next name by then, and what says so has not been read."""
    directory = kernel.disk.do_mkdir("s").key
    old, new = kernel.disk.place("s"), kernel.disk.place("t")
    kernel.disk.do_rename("s", "t")
    isdir = int(Mask.ISDIR)
    itself = Place(directory, b".")
    queue.records.append(Record(int(Mask.ATTRIB) | isdir, STRANGER, itself, directory))
    queue.next.append(Record(int(Mask.RENAME) | isdir, STRANGER, old, directory, new))
    piped.deliver()
    batch = agent.wait()
    assert batch is not None
    told = [(s.op, s.name, s.new_name) for s in batch.steps if s.op != Op.LOOK]
    assert told == [(Op.TOUCH, b"s", b""), (Op.RENAME, b"s", b"t")]


def test_or_if_it_is_moved_before_that_is_planned(
    kernel: Kernel, agent: Agent, queue: Queue, piped: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = kernel.disk.do_mkdir("s").key
    deliver = kernel.session.deliver

    def late(*batch: Any) -> None:
        kernel.disk.do_rename("s", "t")
        deliver(*batch)

    monkeypatch.setattr(kernel.session, "deliver", late)
    mask = int(Mask.ATTRIB | Mask.ISDIR)
    queue.records.append(Record(mask, STRANGER, Place(directory, b"."), directory))
    piped.deliver()
    batch = agent.wait()
    assert batch is not None
    assert [(step.op, step.name) for step in batch.steps] == [(Op.TOUCH, b"s")]
