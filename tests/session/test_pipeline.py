"""The pipeline between a source and a session: what it waits for, and for how long."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from farwatch.events import Mask, Record
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
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def want(self, mask: int) -> None:
        raise AssertionError(f"nobody asked for {mask:#x}")

    def read(self, limit: int = 0) -> list[Record]:
        found, self.records = self.records, []
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
