"""An inode that the client has removed, before its events are here."""

from __future__ import annotations

import pytest

from farwatch.abi.fsnotify import Reason
from farwatch.client.fsnotify import Fsnotify, Group, NodeId
from farwatch.events import Mask
from farwatch.linux.inotify import IN_EXCL_UNLINK
from tests.client.fsnotify.facts import (
    ALL,
    DIRECTORY,
    FILE,
    ended,
    heard,
    of_name,
    of_node,
)

IGNORED = (1, Mask.IGNORED, b"")


def in_limbo() -> tuple[Fsnotify, Group]:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False)
    core.take_changed()
    assert core.enter_limbo(FILE) == ()
    return core, group


def test_everything_is_heard_and_the_end_once() -> None:
    core, group = in_limbo()
    assert core.in_limbo(FILE)
    assert not group.has_events
    core.fsnotify(of_node(Mask.ATTRIB, sequence=1))
    core.fsnotify(of_node(Mask.DELETE_SELF, sequence=2))
    core.ended(ended(Reason.GONE, sequence=3))
    core.fsnotify(of_name(Mask.DELETE, sequence=4))
    assert heard(group) == [(1, Mask.ATTRIB, b""), (1, Mask.DELETE_SELF, b""), IGNORED]
    assert not core.is_marked(FILE)


@pytest.mark.parametrize("reason", Reason)
def test_ends_when_the_server_says_so(reason: Reason) -> None:
    core, group = in_limbo()
    core.ended(ended(reason, sequence=1))
    core.ended(ended(reason, sequence=2))
    core.fsnotify(of_node(Mask.DELETE_SELF, sequence=3))
    assert heard(group) == [IGNORED]


def test_without_marks_nothing_is_in_limbo() -> None:
    core = Fsnotify()
    assert core.enter_limbo(FILE) == ()
    assert not core.in_limbo(FILE)
    core.ended(ended(Reason.GONE, sequence=1))
    core.group().add_watch(FILE, ALL, is_dir=False, after=1)
    assert not core.in_limbo(FILE)


def test_the_server_s_mark_is_left_alone() -> None:
    """But for the removal of the last watch, nothing is to be asked for."""
    core, group = in_limbo()
    other = core.group()
    other.add_watch(DIRECTORY, ALL, is_dir=True)
    assert core.take_changed() == [DIRECTORY]
    assert core.union(FILE) == 0
    assert core.is_marked(FILE)
    group.rm_watch(1)
    assert heard(group) == [IGNORED]
    assert core.take_changed() == [FILE]
    assert not core.is_marked(FILE)


def test_one_of_two_watches_is_removed() -> None:
    core = Fsnotify()
    groups = core.group(), core.group()
    for group in groups:
        group.add_watch(FILE, ALL, is_dir=False)
    core.enter_limbo(FILE)
    core.take_changed()
    groups[0].rm_watch(1)
    assert core.take_changed() == []
    core.fsnotify(of_node(Mask.DELETE_SELF, sequence=1))
    assert heard(groups[0]) == [IGNORED]
    assert heard(groups[1]) == [(1, Mask.DELETE_SELF, b""), IGNORED]


def test_a_watch_that_is_placed_ends_limbo() -> None:
    """Somebody else has given it another name: it is the same inode, and the same watch."""
    core, group = in_limbo()
    assert core.union(FILE, adding=Mask.OPEN) == ALL
    assert group.add_watch(FILE, Mask.OPEN, is_dir=False, after=5) == 1
    assert not core.in_limbo(FILE)
    assert core.union(FILE) == Mask.OPEN
    assert core.take_changed() == [FILE]
    core.ended(ended(Reason.REMOVED, sequence=5))
    assert core.is_marked(FILE), "that was the mark before"
    core.ended(ended(Reason.GONE, sequence=6))
    assert heard(group) == [IGNORED]


def test_limbo_is_bounded() -> None:
    core = Fsnotify(limbo_limit=2)
    group = core.group()
    nodes = [NodeId(number, 0) for number in range(10, 14)]
    for node in nodes:
        group.add_watch(node, ALL, is_dir=False)
    assert [core.enter_limbo(node) for node in nodes[:2]] == [(), ()]
    assert core.enter_limbo(nodes[0]) == (), "it is there already"
    assert core.enter_limbo(nodes[2]) == (nodes[0],)
    assert heard(group) == [IGNORED]
    core.ended(ended(Reason.GONE, nodes[1], sequence=1))
    assert core.enter_limbo(nodes[3]) == ()
    assert [core.in_limbo(node) for node in nodes] == [False, False, True, True]


def test_a_limbo_of_none() -> None:
    core = Fsnotify(limbo_limit=0)
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False)
    assert core.enter_limbo(FILE) == (FILE,)
    assert heard(group) == [IGNORED]
    with pytest.raises(ValueError, match="-1"):
        Fsnotify(limbo_limit=-1)


def test_what_is_done_to_a_removed_file_is_excluded() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL | IN_EXCL_UNLINK, is_dir=False)
    core.enter_limbo(FILE)
    core.fsnotify(of_node(Mask.MODIFY, sequence=1))
    core.fsnotify(of_node(Mask.ATTRIB, sequence=2))
    assert heard(group) == [(1, Mask.ATTRIB, b"")]
