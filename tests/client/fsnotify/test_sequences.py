"""What a server numbers: facts are heard once, and by the watches that were there."""

from __future__ import annotations

import pytest

from farwatch.abi.fsnotify import Reason
from farwatch.client.fsnotify import Fsnotify, NodeId
from farwatch.events import Mask
from farwatch.linux.inotify import IN_MASK_ADD, IN_ONESHOT
from tests.client.fsnotify.facts import (
    ALL,
    DIRECTORY,
    FILE,
    OTHER,
    ended,
    heard,
    of_name,
    of_node,
    renamed,
)

OPEN = (1, Mask.OPEN, b"")
MODIFY = (1, Mask.MODIFY, b"")
IGNORED = (1, Mask.IGNORED, b"")


def test_a_fact_is_heard_once() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False)
    for sequence, mask in ((1, Mask.OPEN), (2, Mask.MODIFY), (1, Mask.OPEN), (2, Mask.MODIFY)):
        core.fsnotify(of_node(mask, sequence=sequence))
    assert core.heard == 2
    core.fsnotify(of_node(Mask.OPEN))
    core.fsnotify(of_node(Mask.MODIFY))
    assert heard(group) == [OPEN, MODIFY, OPEN, MODIFY]


def test_an_ending_is_heard_once_and_counts() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False)
    core.ended(ended(Reason.GONE, sequence=2))
    core.fsnotify(of_node(Mask.OPEN, DIRECTORY, sequence=2))
    group.add_watch(FILE, ALL, is_dir=False)
    core.ended(ended(Reason.GONE, sequence=2))
    assert core.is_marked(FILE)
    assert heard(group) == [IGNORED]


def test_a_new_watch_hears_what_comes_after_it() -> None:
    core = Fsnotify()
    old, new = core.group(), core.group()
    old.add_watch(FILE, ALL, is_dir=False, after=2)
    new.add_watch(FILE, ALL, is_dir=False, after=4)
    for sequence in range(1, 7):
        mask = Mask.OPEN if sequence % 2 else Mask.MODIFY
        core.fsnotify(of_node(mask, sequence=sequence))
    assert heard(old) == [OPEN, MODIFY, OPEN, MODIFY]
    assert heard(new) == [OPEN, MODIFY]


def test_what_this_client_does_is_always_after() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False, after=9)
    core.fsnotify(of_node(Mask.OPEN))
    assert heard(group) == [OPEN]


@pytest.mark.parametrize("mask", [Mask.OPEN | Mask.MODIFY, Mask.MODIFY | IN_MASK_ADD])
def test_only_new_kinds_are_late(mask: int) -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, Mask.OPEN, is_dir=False)
    group.add_watch(FILE, mask, is_dir=False, after=3)
    for sequence, kind in ((1, Mask.OPEN), (2, Mask.MODIFY), (3, Mask.OPEN)):
        core.fsnotify(of_node(kind, sequence=sequence))
    assert heard(group) == [OPEN], "the second is the first over again"
    core.fsnotify(of_node(Mask.MODIFY, sequence=4))
    assert heard(group) == [MODIFY]


def test_kinds_that_come_and_go_are_as_late_as_the_last_time() -> None:
    core = Fsnotify()
    group = core.group()
    for mask, after in ((Mask.OPEN, 1), (Mask.MODIFY, 2), (Mask.OPEN, 3), (Mask.OPEN, 5)):
        group.add_watch(FILE, mask, is_dir=False, after=after)
    core.fsnotify(of_node(Mask.OPEN, sequence=3))
    assert not group.has_events
    core.fsnotify(of_node(Mask.OPEN, sequence=4))
    assert heard(group) == [OPEN]


def test_one_shot_is_not_used_up_by_what_was_before() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, Mask.OPEN | IN_ONESHOT, is_dir=False, after=1)
    core.fsnotify(of_node(Mask.OPEN, sequence=1))
    assert core.is_marked(FILE)
    core.fsnotify(of_node(Mask.OPEN, sequence=2))
    assert heard(group) == [OPEN, IGNORED]


def test_each_half_of_a_rename_for_itself() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL, is_dir=True, after=1)
    group.add_watch(OTHER, ALL, is_dir=True)
    core.fsnotify(renamed(b"a", b"b", new_parent=OTHER)._replace(sequence=1))
    assert heard(group) == [(2, Mask.MOVED_TO, b"b")]


def test_an_inode_that_was_gone_before_ends_all_the_same() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False, after=5)
    core.fsnotify(of_node(Mask.DELETE_SELF, sequence=5))
    assert heard(group) == [IGNORED]


def test_another_session_has_other_numbers() -> None:
    core = Fsnotify()
    group = core.group()
    nodes = {DIRECTORY: DIRECTORY, FILE: OTHER, OTHER: FILE}
    for node in (*nodes, NodeId(99, 0)):
        group.add_watch(node, ALL, is_dir=node is DIRECTORY, after=50)
    core.enter_limbo(FILE)
    core.fsnotify(of_name(Mask.DELETE, b"x", sequence=60))
    core.reconnected(nodes)
    assert heard(group) == [(1, Mask.DELETE, b"x"), (4, Mask.IGNORED, b"")]
    assert core.heard == 0
    assert set(core.take_changed()) == set(nodes)
    assert core.marked() == [DIRECTORY, OTHER, FILE]
    assert not core.in_limbo(OTHER)
    assert group.watched(2) == OTHER
    core.fsnotify(of_node(Mask.OPEN, OTHER, sequence=1))
    core.fsnotify(of_node(Mask.MODIFY, FILE, sequence=2))
    core.fsnotify(of_name(Mask.CREATE, b"x", sequence=3))
    assert heard(group) == [(2, Mask.OPEN, b""), (3, Mask.MODIFY, b""), (1, Mask.CREATE, b"x")]
    core.ended(ended(Reason.GONE, OTHER, sequence=4))
    assert heard(group) == [(2, Mask.IGNORED, b"")]
    with pytest.raises(ValueError, match="two nodes"):
        core.reconnected({FILE: FILE, DIRECTORY: FILE})
    assert core.marked() == [DIRECTORY, FILE]
