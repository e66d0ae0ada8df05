"""What a client is told of each change, in the kernel's order."""

from __future__ import annotations

import pytest

from farwatch.events import Change, Kind
from tests.session.fsnotify.client import (
    ALL,
    ATTRIB,
    CREATE,
    DELETE,
    HOST_THREAD,
    ISDIR,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OPEN,
    REMOTE_SOURCE,
    RENAME,
    Client,
    Told,
    created,
    died,
    kinds,
    linked,
    made_directory,
    removed,
    renamed,
    touched,
)
from tests.session.kernel import GENERATION, ROOT


def test_a_file_is_made(client: Client) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x"))
    assert client.heard() == [Told(1, CREATE, 0, 0, ROOT, 0, 0, 0, 0, REMOTE_SOURCE, 0, b"x", b"")]


def test_a_child_that_the_client_knows_is_named_by_its_node(client: Client) -> None:
    client.disk.do_file("x")
    node = client.node("x")
    client.watch("")
    client.deliver(touched(client.disk, "x", Kind.MODIFY))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.mask, told.node, told.generation) == (MODIFY, node, GENERATION)
    assert (told.parent, told.name) == (ROOT, b"x")


def test_only_what_is_marked_is_told(client: Client) -> None:
    disk = client.disk
    disk.do_mkdir("d")
    disk.do_file("d/f")
    client.node("d/f")
    client.deliver(touched(disk, "d/f", Kind.MODIFY), created(disk, "d/g"))
    assert client.heard() == []


def test_only_the_kinds_of_the_mark_are_told(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    client.watch("", CREATE)
    client.deliver(touched(disk, "f", Kind.MODIFY), created(disk, "g"), removed(disk, "g"))
    assert kinds(client.heard()) == ["CREATE g"]


def test_a_node_s_own_mark_is_told_without_a_name(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    node = client.watch("f")
    client.deliver(touched(disk, "f", Kind.MODIFY))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.node, told.parent, told.name) == (node, 0, b"")


def test_both_marks_are_served_by_one_event(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    node = client.watch("f")
    client.watch("")
    client.deliver(touched(disk, "f", Kind.CLOSE_WRITE))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.node, told.parent, told.name) == (node, ROOT, b"f")


def test_a_link_counts_before_its_name_comes(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    node = client.watch("f")
    client.watch("")
    client.deliver(linked(disk, "f", "g"))
    count, name = client.heard()
    assert isinstance(count, Told)
    assert isinstance(name, Told)
    assert (count.mask, count.node, count.parent) == (ATTRIB, node, 0)
    assert (name.mask, name.node, name.name) == (CREATE, node, b"g")


def test_the_last_name_goes_after_the_inode(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    client.watch("f")
    client.watch("")
    client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
    assert kinds(client.heard()) == ["ATTRIB", "DELETE_SELF", "ENDED(GONE)", "DELETE f"]


def test_what_was_open_dies_after_its_name(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    client.watch("f")
    client.watch("")
    close = touched(disk, "f", Kind.CLOSE_WRITE)
    client.deliver(removed(disk, "f"), close, died(disk, inode, with_its_name=True))
    assert kinds(client.heard()) == [
        "ATTRIB",
        "DELETE f",
        "CLOSE_WRITE f",
        "DELETE_SELF",
        "ENDED(GONE)",
    ]


def test_one_of_two_links_goes(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    disk.do_link("f", "g")
    client.watch("f")
    client.deliver(removed(disk, "g"))
    assert kinds(client.heard()) == ["ATTRIB"]


def test_a_directory_goes(client: Client) -> None:
    disk = client.disk
    inode = disk.do_mkdir("d")
    client.watch("d")
    client.watch("")
    client.deliver(removed(disk, "d"), died(disk, inode, with_its_name=True))
    heard = client.heard()
    assert kinds(heard) == ["DELETE_SELF", "ENDED(GONE)", "DELETE d"]
    assert isinstance(heard[2], Told)
    assert heard[2].mask == DELETE | ISDIR


def test_a_rename_has_both_halves_in_one(client: Client) -> None:
    disk = client.disk
    for name in ("a", "b"):
        disk.do_mkdir(name)
    disk.do_file("a/f")
    node, a, b = client.watch("a/f"), client.watch("a"), client.watch("b")
    client.deliver(renamed(disk, "a/f", "b/g"))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert told.mask == RENAME
    assert (told.node, told.generation) == (node, GENERATION)
    assert (told.parent, told.parent_generation, told.name) == (a, GENERATION, b"f")
    assert (told.new_parent, told.new_parent_generation, told.new_name) == (b, GENERATION, b"g")
    assert told.cookie


@pytest.mark.parametrize(
    ("path", "mask", "expected"),
    [
        ("a", MOVED_FROM, ["RENAME f"]),
        ("b", MOVED_TO, ["RENAME -> g"]),
        ("a/f", MOVE_SELF, ["MOVE_SELF"]),
        ("a", MOVED_TO, []),
        ("b", MOVED_FROM, []),
        ("a/f", ATTRIB, []),
    ],
)
def test_a_rename_is_told_where_it_is_watched(
    client: Client, path: str, mask: int, expected: list[str]
) -> None:
    disk = client.disk
    for name in ("a", "b"):
        disk.do_mkdir(name)
    disk.do_file("a/f")
    client.watch(path, mask)
    client.deliver(renamed(disk, "a/f", "b/g"))
    assert kinds(client.heard()) == expected


def test_a_rename_over_something(client: Client) -> None:
    """inotify(7) on both files and the directory hears FROM, TO, ATTRIB, MOVE_SELF."""
    disk = client.disk
    disk.do_file("f")
    over = disk.do_file("g")
    f, g = client.watch("f"), client.watch("g")
    client.watch("")
    change = renamed(disk, "f", "g")
    client.deliver(change, died(disk, over))
    heard = client.heard()
    assert kinds(heard) == ["RENAME f -> g", "ATTRIB", "MOVE_SELF", "DELETE_SELF", "ENDED(GONE)"]
    assert [each.node for each in heard] == [0, g, f, g, g]


def test_an_exchange_is_two_renames(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    disk.do_mkdir("d")
    f, d = client.watch("f"), client.watch("d")
    client.watch("")
    client.deliver(renamed(disk, "f", "d", 2))
    heard = client.heard()
    assert kinds(heard) == ["RENAME f -> d", "RENAME d -> f"]
    first, second = heard
    assert isinstance(first, Told)
    assert isinstance(second, Told)
    assert (first.node, first.mask, second.node, second.mask) == (f, RENAME, d, RENAME | ISDIR)
    assert first.cookie != second.cookie


def test_an_exchange_of_what_is_not_known_tells_which_is_a_directory(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    disk.do_mkdir("d")
    client.watch("")
    client.deliver(renamed(disk, "f", "d", 2))
    assert [each.mask for each in client.heard() if isinstance(each, Told)] == [
        RENAME,
        RENAME | ISDIR,
    ]


def test_a_directory_s_own_changes_are_heard_by_its_name(client: Client) -> None:
    disk = client.disk
    disk.do_mkdir("d")
    client.watch("")
    client.deliver(touched(disk, "d", Kind.ATTRIB))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.mask, told.name) == (ATTRIB | ISDIR, b"d")


def test_a_directory_s_own_changes_are_heard_by_the_name_that_it_had(client: Client) -> None:
    disk = client.disk
    disk.do_mkdir("d")
    client.watch("")
    client.deliver(
        touched(disk, "d", Kind.ATTRIB),
        renamed(disk, "d", "e"),
        touched(disk, "e", Kind.ATTRIB),
        removed(disk, "e"),
    )
    assert kinds(client.heard()) == ["ATTRIB d", "RENAME d -> e", "ATTRIB e", "DELETE e"]


def test_a_removed_directory_s_last_change(client: Client) -> None:
    disk = client.disk
    disk.do_mkdir("d")
    client.watch("")
    client.deliver(touched(disk, "d", Kind.OPEN), removed(disk, "d"))
    assert kinds(client.heard()) == ["OPEN d", "DELETE d"]


def test_every_event_has_a_number_of_its_own(client: Client) -> None:
    disk = client.disk
    client.watch("")
    client.deliver(created(disk, "x"), created(disk, "y"))
    first = client.heard()
    client.deliver(removed(disk, "x"))
    assert [each.sequence for each in first + client.heard()] == [1, 2, 3]


def test_an_overflow_of_the_source_is_told(client: Client) -> None:
    client.watch("")
    client.deliver(Change(Kind.OVERFLOW, None, None), created(client.disk, "x"))
    assert kinds(client.heard()) == ["Q_OVERFLOW", "CREATE x"]


def test_who_died_in_what_the_source_lost_is_told(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    disk.do_file("g")
    client.watch("f")
    client.watch("g")
    disk.do_remove("f")
    disk.do_close(inode)
    client.deliver(Change(Kind.OVERFLOW, None, None))
    assert kinds(client.heard()) == ["Q_OVERFLOW", "DELETE_SELF", "ENDED(GONE)"]


def test_reading_is_asked_of_the_source_while_somebody_watches_for_it(client: Client) -> None:
    client.disk.do_file("f")
    assert client.session.reading == 0
    node = client.watch("f", OPEN | MODIFY)
    assert client.session.reading == OPEN
    client.watch("", ALL)
    client.mark(node, 0)
    assert client.session.reading == 0x31
    client.mark(ROOT, CREATE)
    assert client.session.reading == 0


def test_made_directories_say_that_they_are(client: Client) -> None:
    client.watch("")
    client.deliver(made_directory(client.disk, "d"))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert told.mask == CREATE | ISDIR


def test_a_count_that_nothing_explains(client: Client) -> None:
    """A name outside of what the client knows came or went."""
    disk = client.disk
    inode = disk.do_file("f")
    client.watch("f")
    client.watch("")
    client.deliver(Change(Kind.ATTRIB, None, inode.key, linked=True, thread=HOST_THREAD))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.mask, told.parent) == (ATTRIB, 0)
