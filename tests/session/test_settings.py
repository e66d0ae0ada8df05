"""What a session may be told by its settings: caching, waiting, ids, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from farwatch.abi.fuse import Init
from farwatch.events import Change, Kind
from farwatch.session import delivery
from farwatch.session.session import Session
from farwatch.session.settings import Caching
from tests.session.kernel import (
    GETXATTR,
    Agent,
    Kernel,
    Refused,
    in_session,
    settings,
)
from tests.session.memory import MemoryDisk

Make = Callable[..., Kernel]


@pytest.fixture
def make(disk: MemoryDisk) -> Iterator[Make]:
    made: list[Kernel] = []

    def with_settings(**fields: Any) -> Kernel:
        chosen = settings()._replace(**fields)
        session = Session(in_session(disk), chosen, disk, lambda thread, key: None)
        made.append(Kernel(disk, session))
        made[-1].init()
        return made[-1]

    yield with_settings
    for kernel in made:
        kernel.session.close()


class Clock:
    """The time, as a session sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(delivery, "time", made)
    return made


# WAIT ---------------------------------------------------------------------------------


def idle(kernel: Kernel) -> tuple[Agent, int]:
    """An agent whose WAIT is parked, with everything said; the last batch."""
    agent = Agent(kernel).register()
    done = 0
    while (batch := agent.wait(done)) is not None:
        done = batch.number
    return agent, done


def test_a_wait_is_answered_when_it_is_due(make: Make, clock: Clock) -> None:
    kernel = make(longest_wait=1.0)
    assert kernel.session.due is None
    agent, done = idle(kernel)
    assert kernel.session.due == 1001.0
    clock.now += 0.999
    assert agent.woken() is None
    clock.now += 0.001
    batch = agent.woken()
    assert batch is not None
    assert (batch.number, batch.flags, batch.steps) == (done + 1, 0, [])
    assert kernel.session.due is None
    assert kernel.session.answer() is None
    # The next one has its own second.
    assert agent.wait(batch.number) is None
    assert kernel.session.due == 1002.0


def test_a_change_does_not_wait_for_it(make: Make, clock: Clock, disk: MemoryDisk) -> None:
    kernel = make(longest_wait=1.0)
    agent, _ = idle(kernel)
    inode = disk.do_file("x")
    kernel.deliver(Change(Kind.CREATE, disk.place("x"), inode.key))
    batch = agent.woken()
    assert batch is not None
    assert [step.name for step in batch.steps] == [b"x"]


def test_without_that_setting_it_waits_for_ever(make: Make, clock: Clock) -> None:
    kernel = make()
    agent, _ = idle(kernel)
    clock.now += 1e9
    assert kernel.session.due is None
    assert agent.woken() is None


# Caching ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caching", "alone", "replayed"),
    [
        (Caching(), (1, 1, 1), (1, 1, 1)),
        (Caching(0, 0), (0, 0, 0), (0, 0, 0)),
        (Caching(1, 600), (1, 1, 1), (600, 600, 1)),
        (Caching(0, 600), (0, 0, 0), (600, 600, 1)),
    ],
)
def test_how_long_is_believed(
    make: Make,
    disk: MemoryDisk,
    caching: Caching,
    alone: tuple[int, int, int],
    replayed: tuple[int, int, int],
) -> None:
    """Names, attributes of directories, attributes of files."""
    disk.do_mkdir("d")
    disk.do_file("f")
    kernel = make(caching=caching)

    def believed() -> tuple[int, int, int]:
        directory, file = kernel.lookup("d"), kernel.lookup("f")
        assert directory.entry_valid == file.entry_valid
        return directory.entry_valid, directory.attr_valid, file.attr_valid

    assert believed() == alone
    agent = Agent(kernel).register()
    assert believed() == replayed
    kernel.releasedir(1, agent.fh)
    assert believed() == alone


@pytest.mark.parametrize("seconds", [0, 1, 600])
def test_a_pending_name_is_believed_once_whatever_the_settings(
    make: Make, disk: MemoryDisk, seconds: int
) -> None:
    disk.do_file("x")
    kernel = make(caching=Caching(seconds, seconds))
    Agent(kernel).register()
    kernel.lookup("x")
    old = disk.do_remove("x")
    kernel.deliver(Change(Kind.DELETE, disk.place("x"), old.key))
    disk.do_file("x")
    assert kernel.lookup("x").entry_valid == 0


@pytest.mark.parametrize("direct", [False, True])
def test_direct(make: Make, direct: bool) -> None:
    kernel = make(caching=Caching(direct=direct))
    node, created = kernel.create("x")
    opened = kernel.open(node.node)
    assert bool(created.flags & 1) is bool(opened.flags & 1) is direct


# Ids and the rest ----------------------------------------------------------------------


def test_ids_and_handles_are_above_the_base(make: Make, disk: MemoryDisk) -> None:
    disk.do_file("x")
    kernel = make(base=7 << 32)
    node = kernel.lookup("x").node
    assert node >> 32 == kernel.open(node).fh >> 32 == kernel.opendir().fh >> 32 == 7
    assert kernel.getattr(1).nlink
    with pytest.raises(Refused, match="ESTALE"):
        kernel.getattr(node - (1 << 32))


def test_what_is_refused_is_not_negotiated(make: Make) -> None:
    readdirplus = Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO
    assert make().init()[3] & readdirplus == readdirplus
    assert not make(refused=readdirplus).init()[3] & readdirplus


def test_without_extended_attributes(make: Make, disk: MemoryDisk) -> None:
    disk.do_file("x")
    kernel = make(xattrs=False)
    node = kernel.lookup("x").node
    body = b"\x40\0\0\0\0\0\0\0user.x\0"
    for uid in (0, 0xFA520000):
        with pytest.raises(Refused, match="ENOSYS"):
            kernel.ask(GETXATTR, node, body, uid=uid)


def test_the_end_of_an_agent_whose_descriptor_is_a_dead_servers(make: Make) -> None:
    kernel = make(base=7 << 32)
    agent = Agent(kernel)
    agent.fh = 3
    agent.register()
    with pytest.raises(Refused, match="EBADF"):
        kernel.releasedir(1, agent.fh)
    assert not kernel.session.channel.is_agent(agent.pid)
