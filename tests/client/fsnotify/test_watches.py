"""Watches of groups, and what a server has to know of them."""

from __future__ import annotations

import errno

import pytest

from farwatch.abi.fsnotify import KINDS, Source
from farwatch.client.fsnotify import Fsnotify, InotifyEvent, NodeId
from farwatch.events import Mask
from farwatch.linux.inotify import (
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
)
from tests.client.fsnotify.facts import (
    ALL,
    DIRECTORY,
    FILE,
    OTHER,
    heard,
    of_name,
    of_node,
    renamed,
)


def test_descriptors_count_up_and_are_not_used_again() -> None:
    core = Fsnotify()
    group = core.group()
    assert group.add_watch(FILE, ALL, is_dir=False) == 1
    assert group.add_watch(FILE, Mask.OPEN, is_dir=False) == 1
    assert group.rm_watch(1) == FILE
    assert group.add_watch(FILE, ALL, is_dir=False) == 2
    assert group.add_watch(DIRECTORY, ALL, is_dir=True) == 3
    assert core.group().add_watch(FILE, ALL, is_dir=False) == 1
    assert group.watched(3) == DIRECTORY
    assert group.watched(1) is None


@pytest.mark.parametrize(
    "mask",
    [0, 0x1000, 0x10000, 0x0800_0000, 1 << 32 | 1, -1, IN_MASK_ADD | IN_MASK_CREATE | Mask.OPEN],
)
def test_refuses_masks(mask: int) -> None:
    group = Fsnotify().group()
    for call in (group.add_watch, group.check_watch):
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            call(FILE, mask, is_dir=False)
    assert group.add_watch(FILE, ALL, is_dir=False) == 1


def test_refuses_what_the_node_does_not_allow() -> None:
    core = Fsnotify()
    group = core.group()
    with pytest.raises(NotADirectoryError):
        group.add_watch(FILE, Mask.OPEN | IN_ONLYDIR, is_dir=False)
    assert not core.is_marked(FILE)
    group.add_watch(FILE, Mask.OPEN | IN_MASK_CREATE | IN_DONT_FOLLOW, is_dir=False)
    with pytest.raises(FileExistsError):
        group.add_watch(FILE, Mask.MODIFY | IN_MASK_CREATE, is_dir=False)
    assert core.union(FILE) == Mask.OPEN
    core.group().add_watch(FILE, Mask.MODIFY | IN_MASK_CREATE, is_dir=False)


def test_removed_once() -> None:
    core = Fsnotify()
    group = core.group()
    watch = group.add_watch(FILE, ALL, is_dir=False)
    group.rm_watch(watch)
    assert heard(group) == [(watch, Mask.IGNORED, b"")]
    for descriptor in (watch, 0, -1, 2):
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            group.rm_watch(descriptor)
    core.fsnotify(of_node(Mask.OPEN))
    assert not group.has_events


def test_another_generation_is_another_node() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, ALL, is_dir=False)
    core.fsnotify(of_node(Mask.OPEN, NodeId(FILE.node, FILE.generation + 1)))
    core.fsnotify(of_node(Mask.DELETE_SELF, NodeId(FILE.node, FILE.generation + 1)))
    assert not group.has_events
    assert core.is_marked(FILE)


def test_who_made_it_is_told() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL, is_dir=True)
    core.fsnotify(of_name(Mask.CREATE)._replace(source=Source.REMOTE, client=4))
    core.fsnotify(of_node(Mask.DELETE_SELF, DIRECTORY)._replace(source=Source.LOCAL, client=2))
    assert group.read() == [
        InotifyEvent(1, Mask.CREATE, 0, b"a", Source.REMOTE, 4),
        InotifyEvent(1, Mask.DELETE_SELF, 0, b"", Source.LOCAL, 2),
        InotifyEvent(1, Mask.IGNORED, 0, b"", Source.UNKNOWN, 0),
    ]


@pytest.mark.parametrize("known", [True, False])
def test_halves_of_a_rename(known: bool) -> None:
    """Each half is told where the directory is known; the cookies pair."""
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL, is_dir=True)
    group.add_watch(OTHER, ALL, is_dir=True)
    fact = renamed(b"a", b"b", new_parent=OTHER)
    if not known:
        fact = fact._replace(node=0, generation=0)
    group.add_watch(FILE, ALL, is_dir=False)
    core.fsnotify(fact)
    core.fsnotify(fact)
    events = group.read()
    size = 3 if known else 2
    assert [(event.wd, event.mask, event.name) for event in events[:size]] == [
        (1, Mask.MOVED_FROM, b"a"),
        (2, Mask.MOVED_TO, b"b"),
        (3, Mask.MOVE_SELF, b""),
    ][:size]
    assert len(events) == 2 * size
    cookies = [event.cookie for event in events]
    assert cookies[0] == cookies[1] != cookies[size] == cookies[size + 1]
    assert 0 not in (cookies[0], cookies[size])
    assert cookies[2:size] == [0] * (size - 2)


@pytest.mark.parametrize("half", [Mask.MOVED_FROM, Mask.MOVED_TO])
def test_half_a_rename(half: int) -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL, is_dir=True)
    group.add_watch(OTHER, ALL, is_dir=True)
    fact = renamed(b"a", b"b", new_parent=OTHER)
    if half == Mask.MOVED_FROM:
        fact = fact._replace(new_parent=0, new_name=b"")
        expected = (1, half, b"a")
    else:
        fact = fact._replace(parent=0, name=b"")
        expected = (2, half, b"b")
    core.fsnotify(fact)
    assert heard(group) == [expected]


def test_cookies_come_round() -> None:
    core = Fsnotify()
    core._cookie = 0xFFFF_FFFE
    assert [core.next_cookie() for _ in range(3)] == [0xFFFF_FFFF, 1, 2]


@pytest.mark.parametrize(
    "mask",
    [0, Mask.ISDIR, Mask.IGNORED, Mask.UNMOUNT, Mask.ISDIR | Mask.IGNORED, 1 << 40, IN_ONESHOT],
)
def test_a_fact_of_no_kind_is_for_nobody(mask: int) -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL, is_dir=True)
    group.add_watch(FILE, ALL, is_dir=False)
    core.fsnotify(of_name(mask))
    core.fsnotify(of_node(mask))
    assert not group.has_events
    core.fsnotify(of_name(mask | Mask.ATTRIB))
    assert [event.mask & ~Mask.ISDIR for event in group.read()] == [Mask.ATTRIB] * 2


def test_unmount() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(FILE, Mask.OPEN, is_dir=False)
    group.add_watch(DIRECTORY, IN_ONESHOT, is_dir=True)
    core.enter_limbo(FILE)
    core.unmount()
    assert heard(group) == [
        (1, Mask.UNMOUNT, b""),
        (1, Mask.IGNORED, b""),
        (2, Mask.UNMOUNT | Mask.ISDIR, b""),
        (2, Mask.IGNORED, b""),
    ]
    assert core.marked() == []
    assert group.add_watch(FILE, Mask.OPEN, is_dir=False) == 3


def test_forgotten_inode() -> None:
    core = Fsnotify()
    groups = [core.group(), core.group()]
    for group in groups:
        group.add_watch(FILE, ALL, is_dir=False)
    core.forget_inode(FILE)
    core.forget_inode(FILE)
    for group in groups:
        assert heard(group) == [(1, Mask.IGNORED, b"")]


def test_a_closed_group_is_gone() -> None:
    core = Fsnotify()
    with_others, alone = core.group(), core.group()
    with_others.add_watch(FILE, Mask.OPEN, is_dir=False)
    alone.add_watch(FILE, Mask.MODIFY, is_dir=False)
    alone.add_watch(DIRECTORY, ALL, is_dir=True)
    core.fsnotify(of_node(Mask.MODIFY))
    core.take_changed()
    alone.close()
    alone.close()
    assert sorted(core.take_changed()) == [DIRECTORY, FILE]
    assert core.marked() == [FILE]
    assert core.union(FILE) == Mask.OPEN
    assert not alone.has_events
    core.overflow()
    assert not alone.has_events
    for call in (
        alone.read,
        lambda: alone.rm_watch(1),
        lambda: alone.add_watch(FILE, ALL, is_dir=False),
        lambda: alone.check_watch(FILE, ALL, is_dir=False),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_union_is_what_any_mark_asks_for() -> None:
    core = Fsnotify()
    one, other = core.group(), core.group()
    assert core.union(FILE) == 0
    assert core.union(FILE, adding=Mask.OPEN | IN_ONESHOT) == Mask.OPEN
    one.add_watch(FILE, Mask.OPEN | IN_ONESHOT, is_dir=False)
    other.add_watch(FILE, Mask.MODIFY, is_dir=False)
    assert core.union(FILE) == Mask.OPEN | Mask.MODIFY
    assert core.union(FILE, adding=ALL) == ALL
    core.take_changed()
    core.fsnotify(of_node(Mask.OPEN))
    assert core.take_changed() == [FILE]
    assert core.take_changed() == []
    assert core.union(FILE) == Mask.MODIFY
    other.rm_watch(1)
    assert core.take_changed() == [FILE]
    assert core.union(FILE) == 0
    assert not core.is_marked(FILE)
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
        core.union(FILE, adding=0x1000)


def test_union_is_never_empty_while_there_is_a_watch() -> None:
    """Mask 0 would remove the server's mark, and nobody would say when the inode goes."""
    core = Fsnotify()
    core.group().add_watch(FILE, IN_ONESHOT, is_dir=False)
    assert core.union(FILE) == Mask.DELETE_SELF


def test_union_has_the_names_that_exclusion_needs() -> None:
    core = Fsnotify()
    core.group().add_watch(DIRECTORY, Mask.MODIFY | IN_EXCL_UNLINK, is_dir=True)
    union = core.union(DIRECTORY)
    assert union & ~KINDS == 0
    assert union == (Mask.MODIFY | Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)
