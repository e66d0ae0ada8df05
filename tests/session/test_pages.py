"""What is told of a file whose content was changed: nothing that would keep old pages."""

from __future__ import annotations

import struct

import pytest

from farwatch.events import Change, Kind
from tests.session.kernel import SETATTR, Agent, Kernel, Refused, attributes_of, setattr_body
from tests.session.memory import MemoryDisk

ATIME, MTIME = 1 << 4, 1 << 5
TOUCH = 8


def mark_of_touch(agent: Agent) -> int:
    """The user id that the agent's utimensat comes with."""
    done = 0
    while True:
        batch = agent.wait(done)
        assert batch is not None
        done = batch.number
        if TOUCH in [step.op for step in batch.steps]:
            return batch.mark(TOUCH)


def touched(kernel: Kernel, agent: Agent, node: int, valid: int, mark: int) -> tuple[int, bytes]:
    """How long the answer to the agent's utimensat is valid, and the attributes in it."""
    answer = kernel.ask(SETATTR, node, setattr_body(valid), uid=mark, pid=agent.pid)
    return struct.unpack_from("<Q", answer)[0], answer[16:]


@pytest.mark.parametrize("is_open", [False, True])
def test_modify(kernel: Kernel, agent: Agent, disk: MemoryDisk, is_open: bool) -> None:
    """An mtime that the client cannot know: its pages go, and before the event."""
    inode = disk.do_file("x", b"12345")
    node = kernel.lookup("x").node
    if is_open:
        kernel.open(node)
    known = kernel.getattr(node)
    disk.do_write("x", b"54321")
    kernel.deliver(Change(Kind.MODIFY, disk.place("x"), inode.key))
    mark = mark_of_touch(agent)
    if is_open:
        # Pages are dropped for the answer to a LOOKUP, which the VFS asks for after ESTALE.
        with pytest.raises(Refused, match="ESTALE"):
            touched(kernel, agent, node, MTIME, mark)
        entry = kernel.lookup("x", uid=mark, pid=agent.pid)
        assert (entry.node, entry.entry_valid, entry.attr_valid) == (node, 0, 0)
        assert (entry.attributes.mtime, entry.attributes.mtimensec) == (1, 999_999_999)
        assert entry.attributes.size == 5, "who reads at the moment would read to any other"
    seconds, data = touched(kernel, agent, node, MTIME, mark)
    told = attributes_of(data)
    assert told.size == 5
    if is_open:
        assert seconds == 0
        assert (told.mtime, told.mtimensec) == (1, 999_999_999)
    assert kernel.getattr(node).size == known.size == 5
    assert kernel.getattr(node).mtime != 1


def test_other_changes_are_told_as_they_are(kernel: Kernel, agent: Agent, disk: MemoryDisk) -> None:
    inode = disk.do_file("x", b"12345")
    node = kernel.lookup("x").node
    kernel.open(node)
    kernel.deliver(Change(Kind.ATTRIB, disk.place("x"), inode.key))
    seconds, data = touched(kernel, agent, node, ATIME | MTIME, mark_of_touch(agent))
    assert seconds == 1
    assert attributes_of(data) == kernel.getattr(node)
