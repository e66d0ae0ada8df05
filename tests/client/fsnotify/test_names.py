"""Whose a name is, as far as facts have told."""

from __future__ import annotations

from farwatch.client.fsnotify import Fsnotify, NodeId
from farwatch.client.fsnotify.names import Names
from farwatch.events import Mask
from farwatch.linux.inotify import IN_EXCL_UNLINK
from tests.client.fsnotify.facts import (
    ALL,
    DIRECTORY,
    FILE,
    OTHER,
    heard,
    of_name,
    renamed,
)

NEW = NodeId(11, 0)


def test_nothing_is_known_of_a_name_that_was_not_told() -> None:
    names = Names()
    assert not names.is_unlinked(DIRECTORY, b"a", FILE)
    assert not names.is_unlinked(DIRECTORY, b"a", None)


def test_a_name_that_went() -> None:
    names = Names()
    names.went(DIRECTORY, b"a", FILE)
    assert names.is_unlinked(DIRECTORY, b"a", FILE)
    assert names.is_unlinked(DIRECTORY, b"a", None)
    assert not names.is_unlinked(OTHER, b"a", FILE)
    assert not names.is_unlinked(DIRECTORY, b"b", FILE)


def test_a_name_that_came_again() -> None:
    names = Names()
    names.went(DIRECTORY, b"a", FILE)
    names.came(DIRECTORY, b"a", NEW)
    assert names.is_unlinked(DIRECTORY, b"a", FILE)
    assert not names.is_unlinked(DIRECTORY, b"a", NEW)
    assert not names.is_unlinked(DIRECTORY, b"a", None)
    names.came(DIRECTORY, b"a", FILE)
    assert not names.is_unlinked(DIRECTORY, b"a", FILE)


def test_nobody_knows_who_came() -> None:
    names = Names()
    names.went(DIRECTORY, b"a", FILE)
    names.came(DIRECTORY, b"a", None)
    assert not names.is_unlinked(DIRECTORY, b"a", FILE)


def test_what_went_may_be_told_after_what_came() -> None:
    names = Names()
    names.came(DIRECTORY, b"a", NEW)
    names.went(DIRECTORY, b"a", FILE)
    assert not names.is_unlinked(DIRECTORY, b"a", NEW)
    assert names.is_unlinked(DIRECTORY, b"a", FILE)
    names.went(DIRECTORY, b"a", None)
    assert not names.is_unlinked(DIRECTORY, b"a", FILE)


def test_the_oldest_are_forgotten() -> None:
    names = Names(limit=2)
    for name in (b"a", b"b", b"a", b"c"):
        names.went(DIRECTORY, name, FILE)
    assert len(names) == 2
    assert [names.is_unlinked(DIRECTORY, name, FILE) for name in (b"a", b"b", b"c")] == [
        True,
        False,
        True,
    ]
    names.clear()
    assert not names.is_unlinked(DIRECTORY, b"a", FILE)


def test_facts_tell_the_core() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, Mask.MODIFY | IN_EXCL_UNLINK, is_dir=True)
    modify = of_name(Mask.MODIFY)
    core.fsnotify(modify)
    assert len(heard(group)) == 1
    for removed, back in (
        (of_name(Mask.DELETE), of_name(Mask.CREATE)),
        (of_name(Mask.MOVED_FROM), of_name(Mask.MOVED_TO)),
        (of_name(Mask.CREATE, node=NEW), of_name(Mask.CREATE)),
        (renamed(b"a", b"b"), of_name(Mask.CREATE)),
        (renamed(b"b", b"a")._replace(node=NEW.node, generation=0), of_name(Mask.CREATE)),
    ):
        core.fsnotify(removed)
        core.fsnotify(modify)
        assert not group.has_events
        core.fsnotify(modify, through_unlinked=False)
        assert len(heard(group)) == 1
        core.fsnotify(back)
        core.fsnotify(modify, through_unlinked=True)
        assert not group.has_events
        core.fsnotify(modify)
        assert len(heard(group)) == 1


def test_no_kind_but_those_of_open_files_is_kept_out() -> None:
    core = Fsnotify()
    group = core.group()
    group.add_watch(DIRECTORY, ALL | IN_EXCL_UNLINK, is_dir=True)
    core.fsnotify(of_name(Mask.DELETE))
    core.fsnotify(of_name(Mask.ATTRIB))
    core.fsnotify(of_name(Mask.OPEN))
    assert heard(group) == [(1, Mask.DELETE, b"a"), (1, Mask.ATTRIB, b"a")]
