"""Marks at the server: when they are asked for, and what comes before, meanwhile and after.

Answers and notifications are given by hand, in every order that matters.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Generator
from typing import Any, NamedTuple

import pytest

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fsnotify import (
    MARK,
    NOTIFY_ENDED,
    NOTIFY_EVENT,
    Ended,
    Event,
    MarkFlag,
    Mode,
    Reason,
    Source,
    encode_ended,
    encode_event,
)
from farwatch.abi.fuse import Opcode
from farwatch.client.errors import ProtocolError
from farwatch.client.fsnotify import Group
from farwatch.client.kernel import Kernel
from farwatch.client.naming import RENAME_WHITEOUT
from farwatch.events import Mask
from farwatch.linux.inotify import IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT, IN_ONLYDIR
from tests.client.hostile import entry
from tests.client.inprocess import InProcess, heard
from tests.session.memory import MemoryDisk

FILE, GENERATION = 5, 7
CREATE, DELETE, ATTRIB, OPEN = (
    int(kind) for kind in (Mask.CREATE, Mask.DELETE, Mask.ATTRIB, Mask.OPEN)
)


class Asked(NamedTuple):
    """A request that waits for its answer."""

    opcode: int
    node: int
    body: bytes


class Answer:
    """What ``ask`` gives: it is awaited until it is there."""

    def __init__(self) -> None:
        self.payload: bytes | OSError | None = None

    def __await__(self) -> Generator[None, None, bytes]:
        while self.payload is None:
            yield
        if isinstance(self.payload, OSError):
            raise self.payload
        return self.payload


class Running:
    """An operation that is stepped by hand."""

    def __init__(self, operation: Coroutine[Any, Any, Any]) -> None:
        self._operation = operation
        self.result: Any = None
        self.is_over = False
        self.step()

    def step(self) -> None:
        if not self.is_over:
            try:
                self._operation.send(None)
            except StopIteration as end:
                self.is_over, self.result = True, end.value


class ByHand:
    """A kernel layer whose server is the test."""

    def __init__(self, mode: Mode) -> None:
        self.waiting: list[tuple[Asked, Answer]] = []
        self.told: list[tuple[int, int]] = []
        self.running: list[Running] = []
        self.kernel = Kernel(self.ask, self.tell, mode=mode)
        self.kernel.mode = mode
        self.sequence = 0

    def ask(self, opcode: int, node: int, body: bytes) -> Answer:
        answer = Answer()
        self.waiting.append((Asked(opcode, node, body), answer))
        return answer

    def tell(self, opcode: int, node: int, body: bytes) -> None:
        self.told.append((opcode, node))

    def run(self, operation: Coroutine[Any, Any, Any]) -> Running:
        self.running.append(Running(operation))
        return self.running[-1]

    def answer(self, payload: bytes = b"", *, error: int = 0, index: int = 0) -> Asked:
        """Answers the request that waits longest, or another."""
        asked, answer = self.waiting.pop(index)
        answer.payload = OSError(error, os.strerror(error)) if error else payload
        for running in self.running:
            running.step()
        return asked

    def marks(self, *, after: int = 0, index: int = 0) -> tuple[int, int, int]:
        """Answers a MARK; its node, mask and flags."""
        asked = self.answer(fsnotify.MARK_OUT.pack(0, 0, after), index=index)
        assert asked.opcode == MARK
        _, mask, flags = fsnotify.MARK_IN.unpack(asked.body)
        return asked.node, mask, flags

    def looks_up(self, name: bytes = b"file", mode: int = 0o100644) -> None:
        asked = self.answer(entry(FILE, mode))
        assert (asked.opcode, asked.body) == (Opcode.LOOKUP, name + b"\0")

    def event(self, mask: int, sequence: int, *, name: bytes = b"", node: int = 0) -> None:
        fact = Event(
            mask,
            node=node,
            generation=GENERATION if node else 0,
            parent=1 if name else 0,
            name=name,
            source=Source.REMOTE,
            sequence=sequence,
        )
        self.kernel.notified(NOTIFY_EVENT, encode_event(fact))

    def ended(self, sequence: int, reason: Reason, node: int = 1, generation: int = 0) -> None:
        self.kernel.notified(NOTIFY_ENDED, encode_ended(Ended(node, generation, reason, sequence)))

    def settle(self) -> Running:
        return self.run(self.kernel.catch_up())


@pytest.fixture
def hand() -> ByHand:
    return ByHand(Mode.REMOTE)


def place(hand: ByHand, mask: int, path: str = "/", group: Group | None = None) -> Group:
    """A watch, placed in peace."""
    group = group or hand.kernel.core.group()
    running = hand.run(hand.kernel.add_watch(group, path, mask))
    if path != "/":
        hand.looks_up()
    hand.marks()
    assert running.is_over
    return group


def test_what_happened_before_is_not_for_the_watch(hand: ByHand) -> None:
    group = hand.kernel.core.group()
    running = hand.run(hand.kernel.add_watch(group, "/", CREATE))
    assert hand.marks(after=5) == (1, CREATE, 0)
    assert running.result == 1
    hand.event(CREATE, 5, name=b"early")
    hand.event(CREATE, 6, name=b"late")
    assert heard(group) == ["1:CREATE(late)"]


def test_an_event_before_the_answer_is_kept(hand: ByHand) -> None:
    """Notifications and answers come by different ways."""
    other = place(hand, CREATE)
    group = hand.kernel.core.group()
    running = hand.run(hand.kernel.add_watch(group, "/", CREATE))
    hand.event(CREATE, 5, name=b"early")
    hand.event(CREATE, 6, name=b"late")
    assert not running.is_over
    hand.marks(after=5)
    assert heard(group) == ["1:CREATE(late)"]
    assert heard(other) == ["1:CREATE(early)", "1:CREATE(late)"]


def test_masks_are_joined(hand: ByHand) -> None:
    group = place(hand, CREATE)
    running = hand.run(hand.kernel.add_watch(group, "/", DELETE | IN_MASK_ADD))
    assert hand.marks() == (1, CREATE | DELETE, 0)
    assert running.is_over
    another = hand.kernel.core.group()
    running = hand.run(hand.kernel.add_watch(another, "/", OPEN))
    assert hand.marks() == (1, CREATE | DELETE | OPEN, 0)
    hand.run(hand.kernel.close_group(another))
    assert hand.marks() == (1, CREATE | DELETE, 0)


def test_a_narrower_mask_is_told_afterwards(hand: ByHand) -> None:
    """Nothing is missed in between."""
    group = place(hand, CREATE | DELETE)
    running = hand.run(hand.kernel.add_watch(group, "/", CREATE))
    assert hand.marks() == (1, CREATE | DELETE, 0)
    assert hand.marks() == (1, CREATE, 0)
    assert running.is_over


def test_two_are_placed_at_once(hand: ByHand) -> None:
    """The later request has what the earlier one asks for: neither misses anything."""
    groups = [hand.kernel.core.group() for _ in range(2)]
    first = hand.run(hand.kernel.add_watch(groups[0], "/", CREATE))
    second = hand.run(hand.kernel.add_watch(groups[1], "/", DELETE))
    assert hand.marks(after=1) == (1, CREATE, 0)
    hand.event(CREATE, 2, name=b"x")
    assert hand.marks(after=1) == (1, CREATE | DELETE, 0)
    assert first.is_over
    assert second.is_over
    assert heard(groups[0]) == ["1:CREATE(x)"]
    assert not hand.waiting


def test_refused(hand: ByHand) -> None:
    group = hand.kernel.core.group()
    hand.run(_expects(hand.kernel.add_watch(group, "/file", CREATE), errno.ENOSPC))
    hand.looks_up()
    hand.answer(error=errno.ENOSPC)
    assert all(running.is_over for running in hand.running)
    assert len(hand.kernel.inodes) == 1
    assert hand.told == [(Opcode.FORGET, FILE)]
    assert not hand.waiting


async def _expects(operation: Coroutine[Any, Any, Any], number: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - which is below
        await operation
    assert refused.value.errno == number


def test_what_cannot_be_is_not_asked(hand: ByHand) -> None:
    group = place(hand, CREATE)
    for mask, number in (
        (0, errno.EINVAL),
        (1 << 20, errno.EINVAL),
        (CREATE | IN_MASK_CREATE, errno.EEXIST),
        (CREATE | IN_MASK_CREATE | IN_MASK_ADD, errno.EINVAL),
    ):
        assert hand.run(_expects(hand.kernel.add_watch(group, "/", mask), number)).is_over
    running = hand.run(
        _expects(hand.kernel.add_watch(group, "/file", CREATE | IN_ONLYDIR), errno.ENOTDIR)
    )
    hand.looks_up()
    assert running.is_over
    assert hand.run(_expects(hand.kernel.rm_watch(group, 7), errno.EINVAL)).is_over


def test_done_over_at_estale(hand: ByHand) -> None:
    """The path is walked once more, and no further."""
    group = hand.kernel.core.group()
    running = hand.run(hand.kernel.add_watch(group, "/file", CREATE))
    hand.looks_up()
    hand.answer(error=errno.ESTALE)
    hand.looks_up()
    assert hand.marks() == (FILE, CREATE, 0)
    assert running.is_over


# Endings --------------------------------------------------------------------------------------


def test_removed_and_placed_again(hand: ByHand) -> None:
    """The first mark's ENDED comes late, and is not the second's."""
    group = place(hand, CREATE)
    hand.run(hand.kernel.rm_watch(group, 1))
    assert hand.marks() == (1, 0, 0)
    hand.run(hand.kernel.add_watch(group, "/", CREATE))
    hand.marks(after=7)
    hand.ended(7, Reason.REMOVED)
    hand.event(CREATE, 8, name=b"x")
    assert heard(group) == ["1:IGNORED", "2:CREATE(x)"]


def test_one_shot_is_removed_at_the_server(hand: ByHand) -> None:
    group = place(hand, ATTRIB | IN_ONESHOT, "/file")
    hand.event(ATTRIB, 1, node=FILE)
    assert heard(group) == ["1:ATTRIB", "1:IGNORED"]
    assert hand.kernel.has_work
    hand.settle()
    assert hand.marks() == (FILE, 0, 0)
    assert not hand.kernel.has_work
    assert hand.told == [(Opcode.FORGET, FILE)]
    assert len(hand.kernel.inodes) == 1


@pytest.mark.parametrize("asked_for", [ATTRIB, ATTRIB | int(Mask.DELETE_SELF)])
def test_gone_at_the_server(hand: ByHand, asked_for: int) -> None:
    """It ends its mark by itself; nothing more is asked, and the node is forgotten."""
    group = place(hand, asked_for, "/file")
    if asked_for != ATTRIB:
        hand.event(int(Mask.DELETE_SELF), 1, node=FILE)
        hand.settle()
        assert heard(group) == ["1:DELETE_SELF", "1:IGNORED"]
    hand.ended(2, Reason.GONE, FILE, GENERATION)
    hand.settle()
    assert heard(group) == ([] if asked_for != ATTRIB else ["1:IGNORED"])
    assert not hand.waiting
    assert hand.told == [(Opcode.FORGET, FILE)]


def removing(hand: ByHand, *, nlink: int = 1) -> None:
    """unlink(2) of the file, up to the server's answer."""
    hand.run(hand.kernel.unlink("/file"))
    asked = hand.answer(_linked(nlink))
    assert asked.opcode == Opcode.LOOKUP


def _linked(nlink: int) -> bytes:
    data = bytearray(entry(FILE))
    start = fuse.ENTRY_OUT_HEAD.size + 6 * 8 + 4 * 4
    data[start : start + 4] = nlink.to_bytes(4, "little")
    return bytes(data)


ENDS = ["1:ATTRIB", "1:DELETE_SELF", "1:IGNORED"]


def test_limbo_the_answer_first(hand: ByHand) -> None:
    """The client has removed the file itself, and the events come later: none is lost."""
    group = place(hand, 0xFFF, "/file")
    removing(hand)
    assert hand.answer().opcode == Opcode.UNLINK
    assert hand.marks() == (FILE, 0, MarkFlag.LIMBO)
    assert heard(group) == []
    hand.event(ATTRIB, 1, node=FILE)
    hand.event(int(Mask.DELETE_SELF), 2, node=FILE)
    hand.ended(3, Reason.GONE, FILE, GENERATION)
    hand.settle()
    assert heard(group) == ENDS
    assert not hand.waiting
    assert len(hand.kernel.inodes) == 1


def test_limbo_the_events_first(hand: ByHand) -> None:
    group = place(hand, 0xFFF, "/file")
    removing(hand)
    hand.event(ATTRIB, 1, node=FILE)
    hand.event(int(Mask.DELETE_SELF), 2, node=FILE)
    hand.ended(3, Reason.GONE, FILE, GENERATION)
    assert hand.answer().opcode == Opcode.UNLINK
    hand.settle()
    assert heard(group) == ENDS
    assert not hand.waiting
    assert len(hand.kernel.inodes) == 1


@pytest.mark.parametrize("reason", [Reason.GONE, Reason.DROPPED])
def test_limbo_ends_by_the_servers_word(hand: ByHand, reason: Reason) -> None:
    group = place(hand, ATTRIB, "/file")
    removing(hand)
    hand.answer()
    hand.marks()
    hand.event(ATTRIB, 1, node=FILE)
    hand.ended(2, reason, FILE, GENERATION)
    hand.settle()
    assert heard(group) == ["1:ATTRIB", "1:IGNORED"]
    assert len(hand.kernel.inodes) == 1


def test_another_link_is_no_limbo(hand: ByHand) -> None:
    place(hand, 0xFFF, "/file")
    removing(hand, nlink=2)
    assert hand.answer().opcode == Opcode.UNLINK
    assert not hand.waiting
    assert hand.kernel.watched == 1


def test_open_is_no_limbo_until_it_is_closed(hand: ByHand) -> None:
    place(hand, 0xFFF, "/file")
    opening = hand.run(hand.kernel.open("/file"))
    hand.looks_up()
    hand.answer(fuse.OPEN_OUT.pack(3, fuse.Open.NOFLUSH, 0))
    removing(hand)
    assert hand.answer().opcode == Opcode.UNLINK
    assert not hand.waiting
    hand.run(opening.result.close())
    assert hand.answer().opcode == Opcode.RELEASE
    assert hand.marks() == (FILE, 0, MarkFlag.LIMBO)


def test_merged_ends_at_once() -> None:
    """The client raises its own events, so nothing is waited for."""
    hand = ByHand(Mode.MERGED)
    group = place(hand, 0xFFF, "/file")
    removing(hand)
    assert hand.answer().opcode == Opcode.UNLINK
    assert heard(group) == ENDS
    assert hand.marks() == (FILE, 0, 0)
    hand.ended(1, Reason.REMOVED, FILE, GENERATION)
    hand.settle()
    assert len(hand.kernel.inodes) == 1
    assert heard(group) == []


# What no server may say -------------------------------------------------------------------------


def test_merged_what_others_removed_is_not_ended_here() -> None:
    """They may have it open still: the server says when it is gone."""
    with MemoryDisk() as disk, InProcess(disk, Mode.MERGED) as there:
        for name, removing in (("theirs", disk.do_remove), ("own", there.kernel.unlink)):
            disk.do_file(name)
            group = there.watch(name, int(Mask.DELETE_SELF))
            file = there.run(there.kernel.open(name))
            done = removing(name)
            if isinstance(done, Coroutine):
                there.run(done)
            assert there.run(file.stat()).nlink == 0
            there.run(file.close())
            ended = ["1:DELETE_SELF", "1:IGNORED"] if name == "own" else []
            assert heard(group) == ended
            there.run(there.kernel.close_group(group))


def test_a_whiteout_is_left_behind_by_who_asks_for_it(hand: ByHand) -> None:
    running = hand.run(hand.kernel.rename("a", "b", RENAME_WHITEOUT))
    hand.looks_up(b"a")
    hand.answer(error=errno.ENOENT)
    asked = hand.answer()
    assert asked.opcode == Opcode.RENAME2
    assert fuse.RENAME2_IN.unpack_from(asked.body) == (1, RENAME_WHITEOUT, 0)
    assert running.is_over
    hand.run(_expects(hand.kernel.rename("a", "b", RENAME_WHITEOUT | 2), errno.EINVAL))


def test_nothing_is_told_in_local_mode() -> None:
    hand = ByHand(Mode.REMOTE)
    hand.kernel.mode = None
    with pytest.raises(ProtocolError):
        hand.event(CREATE, 1, name=b"x")


def test_twice_is_once(hand: ByHand) -> None:
    group = place(hand, CREATE)
    for sequence in (1, 1, 2, 1):
        hand.event(CREATE, sequence, name=b"%d" % sequence)
    assert heard(group) == ["1:CREATE(1)", "1:CREATE(2)"]


def test_of_nodes_that_nobody_watches(hand: ByHand) -> None:
    place(hand, CREATE)
    hand.event(ATTRIB, 1, node=99)
    hand.ended(2, Reason.GONE, 99, 3)
    assert len(hand.kernel.inodes) == 1
    assert not hand.kernel.has_work
