"""What is told of a file whose content was changed: nothing that would keep old pages."""

from __future__ import annotations

import struct

import pytest

from farwatch.events import Change, Kind
from tests.session.kernel import SETATTR, Agent, Kernel, attributes_of, setattr_body
from tests.session.memory import MemoryDisk

ATIME, MTIME = 1 << 4, 1 << 5
TOUCH = 8


def touched(kernel: Kernel, agent: Agent, node: int, valid: int) -> tuple[int, bytes]:
    """How long the answer to the agent's utimensat is valid, and the attributes in it."""
    done = 0
    while True:
        batch = agent.wait(done)
        assert batch is not None
        done = batch.number
        if TOUCH in [step.op for step in batch.steps]:
            break
    mark = batch.mark(TOUCH)
    answer = kernel.ask(SETATTR, node, setattr_body(valid), uid=mark, pid=agent.pid)
    return struct.unpack_from("<Q", answer)[0], answer[16:]


@pytest.mark.parametrize("is_open", [False, True])
def test_modify(kernel: Kernel, agent: Agent, disk: MemoryDisk, is_open: bool) -> None:
    """Another size and another mtime than any that the client may know: its pages go."""
    inode = disk.do_file("x", b"12345")
    node = kernel.lookup("x").node
    if is_open:
        kernel.open(node)
    known = kernel.getattr(node)
    disk.do_write("x", b"54321")
    kernel.deliver(Change(Kind.MODIFY, disk.place("x"), inode.key))
    seconds, data = touched(kernel, agent, node, MTIME)
    told = attributes_of(data)
    if is_open:
        assert seconds == 0
        assert told.size == 6
        assert (told.mtime, told.mtimensec) == (1, 999_999_999)
    else:
        assert told.size == 5
    assert kernel.getattr(node).size == known.size == 5
    assert kernel.getattr(node).mtime != 1


def test_other_changes_are_told_as_they_are(kernel: Kernel, agent: Agent, disk: MemoryDisk) -> None:
    inode = disk.do_file("x", b"12345")
    node = kernel.lookup("x").node
    kernel.open(node)
    kernel.deliver(Change(Kind.ATTRIB, disk.place("x"), inode.key))
    seconds, data = touched(kernel, agent, node, ATIME | MTIME)
    assert seconds == 1
    assert attributes_of(data) == kernel.getattr(node)
