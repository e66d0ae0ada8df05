"""What a scan becomes: the flags and watches that the server is told."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from farwatch.abi.control import Watched, WatchFlag
from farwatch.agent.watching import summarize
from farwatch.linux.fdinfo import (
    FAN_MARK_EVICTABLE,
    PERMISSION,
    FanotifyMark,
    InotifyMark,
    Mark,
    Scan,
)

DEVICE = 0x2A
GENERATION = 7


def handle(node: int, generation: int = GENERATION) -> bytes:
    """As fs/fuse/inode.c makes them: 12 bytes, type 0x81, high, low, generation."""
    return struct.pack("<IiIII", 12, 0x81, node >> 32, node & 0xFFFFFFFF, generation)


def inotify(node: int, mask: int) -> InotifyMark:
    return InotifyMark(1, node, DEVICE, mask, handle(node))


def fanotify(kind: str, mask: int, node: int = 0, flags: int = 0) -> FanotifyMark:
    return FanotifyMark(kind, node, DEVICE, 0, flags, mask, 0, handle(node) if node else b"")


def test_nothing_is_watched() -> None:
    assert summarize(Scan([])) == (0, [])


def test_masks_of_one_node_are_one_watch() -> None:
    marks: list[Mark] = [inotify(16, 0x100), inotify(17, 0x2), inotify(16, 0x200)]
    assert summarize(Scan(marks)) == (
        0,
        [Watched(16, GENERATION, 0x300), Watched(17, GENERATION, 0x2)],
    )


def test_flags_of_a_watch_are_no_events() -> None:
    # IN_EXCL_UNLINK, IN_ONESHOT, IN_ISDIR … are above the twelve kinds.
    assert summarize(Scan([inotify(16, 0x84000FFF)])) == (0, [Watched(16, GENERATION, 0xFFF)])


def test_a_mount_or_superblock_mark_sees_everything() -> None:
    for kind in ("mount", "sb"):
        flags, watches = summarize(Scan([fanotify(kind, 0x2)]))
        assert flags & WatchFlag.EVERYTHING
        assert watches == [Watched(0, 0, 0x2)]


def test_an_evictable_mark_sees_everything() -> None:
    flags, watches = summarize(Scan([fanotify("inode", 0x2, 16, FAN_MARK_EVICTABLE)]))
    assert flags & WatchFlag.EVERYTHING
    assert watches == [Watched(16, GENERATION, 0x2)]


def test_an_inode_mark_pins() -> None:
    flags, watches = summarize(Scan([fanotify("inode", 0x2, 16)]))
    assert not flags & WatchFlag.EVERYTHING
    assert watches == [Watched(16, GENERATION, 0x2)]


def test_who_can_hold_up_an_open() -> None:
    for bit in (0x10000, 0x20000, 0x40000):
        assert bit & PERMISSION
        assert summarize(Scan([fanotify("sb", bit)]))[0] & WatchFlag.ASKS
    assert not summarize(Scan([fanotify("sb", 0x2)]))[0] & WatchFlag.ASKS


def test_a_mark_without_a_handle_of_ours_counts_for_all() -> None:
    """Whatever it is on, dropping it would lose what it asks for."""
    odd = InotifyMark(1, 16, DEVICE, 0x20, b"")
    foreign = InotifyMark(1, 16, DEVICE, 0x1, struct.pack("<IiII", 8, 1, 5, 6))
    assert summarize(Scan([odd, foreign])) == (0, [Watched(0, 0, 0x21)])


@given(
    st.lists(
        st.tuples(st.integers(1, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFF))
    )
)
def test_every_node_id_there_is(marks: list[tuple[int, int, int]]) -> None:
    scan = Scan([InotifyMark(1, 2, DEVICE, mask, handle(node, gen)) for node, gen, mask in marks])
    _, watches = summarize(scan)
    expected: dict[tuple[int, int], int] = {}
    for node, generation, mask in marks:
        expected[node, generation] = expected.get((node, generation), 0) | mask
    assert {(w.node, w.generation): w.mask for w in watches} == expected
    assert watches == sorted(watches)
