"""How opens of one inode do I/O, with backing ids in memory.

The kernel's rule that is kept here: all opens of an inode that are there at one time go to
one backing file, or none does (fs/fuse/iomode.c).
"""

from __future__ import annotations

import errno
import os
from typing import cast

import pytest

from farwatch.events import Change, Key, Kind
from farwatch.export.backing import BackingFiles
from farwatch.session.session import Session
from tests.session.kernel import Agent, Kernel, Opened, Refused, in_session, settings
from tests.session.memory import MemoryDisk

DIRECT_IO, KEEP_CACHE, NOFLUSH, PASSTHROUGH = 1 << 0, 1 << 1, 1 << 5, 1 << 7
OPEN_CLOSE = 9
ALL = 0xFFFFFFFF
KEEPS_MARKS = 1 << 29
"""In flags2: who asks for that is told of events, and nothing is replayed."""


class Backing:
    """``BackingFiles`` without a kernel: one id for each inode that is open."""

    def __init__(self) -> None:
        self.held: dict[Key, list[int]] = {}
        self.next_id = 1
        self.refuses = False

    def acquire(self, key: Key, fd: int) -> int:
        os.fstat(fd)
        if self.refuses:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if key not in self.held:
            self.held[key] = [self.next_id, 0]
            self.next_id += 1
        self.held[key][1] += 1
        return self.held[key][0]

    def share(self, key: Key) -> int | None:
        if key not in self.held:
            return None
        self.held[key][1] += 1
        return self.held[key][0]

    def release(self, key: Key) -> None:
        self.held[key][1] -= 1
        if not self.held[key][1]:
            del self.held[key]


@pytest.fixture
def backing() -> Backing:
    return Backing()


@pytest.fixture
def kernel(disk: MemoryDisk, backing: Backing) -> Kernel:
    session = Session(
        in_session(disk),
        settings(passthrough=True),
        disk,
        lambda thread, key: None,
        cast("BackingFiles", backing),
    )
    made = Kernel(disk, session)
    made.init(45, ALL, ALL & ~KEEPS_MARKS)
    return made


def passes(opened: Opened) -> bool:
    assert not opened.flags & KEEP_CACHE, "with PASSTHROUGH it would be EIO"
    assert bool(opened.backing_id) == bool(opened.flags & PASSTHROUGH)
    return bool(opened.flags & PASSTHROUGH)


def test_opens_of_one_inode_share_an_id(kernel: Kernel, backing: Backing) -> None:
    kernel.disk.do_file("f")
    node = kernel.lookup("f").node
    first, second = kernel.open(node, os.O_RDWR), kernel.open(node)
    assert passes(first)
    assert passes(second)
    assert first.backing_id == second.backing_id
    kernel.release(node, first.fh)
    assert len(backing.held) == 1
    kernel.release(node, second.fh)
    assert backing.held == {}
    third = kernel.open(node)
    assert third.backing_id != first.backing_id
    kernel.release(node, third.fh)


def test_what_cannot_be_passed_through_is_not(kernel: Kernel, backing: Backing) -> None:
    node = kernel.mknod("f").node
    backing.refuses = True
    first = kernel.open(node)
    assert not passes(first)
    # And stays so while it is open, for everybody.
    backing.refuses = False
    second = kernel.open(node)
    assert not passes(second)
    for opened in (first, second):
        kernel.release(node, opened.fh)
    third = kernel.open(node)
    assert passes(third)
    kernel.release(node, third.fh)


def test_an_open_of_the_other_kind_is_refused_and_not_leaked(
    kernel: Kernel, backing: Backing
) -> None:
    node = kernel.mknod("f").node
    first = kernel.open(node)
    backing.refuses = True
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused, match="ENOTSUP"):
        kernel.open(node)
    assert len(os.listdir("/proc/self/fd")) == before
    kernel.release(node, first.fh)
    assert backing.held == {}


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_set_id_files_are_not_passed_through(kernel: Kernel, mode: int) -> None:
    """The server must take the bits away on a write."""
    inode = kernel.disk.do_file("f")
    os.fchmod(inode.memory, mode)
    node = kernel.lookup("f").node
    opened = kernel.open(node, os.O_RDWR)
    assert not passes(opened)
    kernel.release(node, opened.fh)


def replayed(kernel: Kernel, agent: Agent) -> tuple[int, Opened]:
    """The agent's open of "f" for a remote close."""
    node = kernel.lookup("f").node
    place, inode = kernel.disk.place("f"), kernel.disk.at("f")
    kernel.deliver(Change(Kind.CLOSE_WRITE, place, inode.key))
    batch = agent.wait()
    assert batch is not None
    return node, kernel.open(node, os.O_WRONLY, uid=batch.mark(OPEN_CLOSE), pid=agent.pid)


def test_a_replay_s_open_alone_is_direct(kernel: Kernel, backing: Backing) -> None:
    kernel.disk.do_file("f", b"precious")
    node, opened = replayed(kernel, Agent(kernel).register())
    assert opened.flags & DIRECT_IO
    assert not passes(opened)
    # It does not decide for those that come: the kernel tries the replay again.
    assert passes(kernel.open(node))
    kernel.release(node, opened.fh)
    assert len(backing.held) == 1


def test_a_replay_s_open_beside_others_names_their_id(kernel: Kernel, backing: Backing) -> None:
    kernel.disk.do_file("f", b"precious")
    node = kernel.lookup("f").node
    real = kernel.open(node)
    agent = Agent(kernel).register()
    _, opened = replayed(kernel, agent)
    assert opened.flags & DIRECT_IO
    assert opened.backing_id == real.backing_id
    kernel.release(node, real.fh)
    assert len(backing.held) == 1
    kernel.release(node, opened.fh)
    assert backing.held == {}


def test_nothing_is_behind_a_replay_s_open(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"precious")
    node, opened = replayed(kernel, Agent(kernel).register())
    for act in (
        lambda: kernel.read(node, opened.fh),
        lambda: kernel.write(node, opened.fh, b"x"),
        lambda: kernel.setattr(node, 1 << 6 | 1 << 3, opened.fh, size=0),
    ):
        with pytest.raises(Refused, match="EBADF"):
            act()
    assert kernel.getattr(node, opened.fh).size == 8
    kernel.release(node, opened.fh)
    assert kernel.disk.at("f").content() == b"precious"
