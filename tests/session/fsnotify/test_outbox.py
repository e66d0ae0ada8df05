"""Notifications that nobody takes, or that do not fit."""

from __future__ import annotations

from farwatch.abi.fsnotify import Dialect, Ended, Event, Reason
from farwatch.events import Kind, Mask
from farwatch.session.fsnotify.outbox import LARGEST, Outbox
from tests.session.fsnotify.client import (
    Client,
    created,
    died,
    kinds,
    options,
    removed,
    renamed,
    touched,
)
from tests.session.memory import MemoryDisk


def few(disk: MemoryDisk, most: int) -> Client:
    client = Client(disk, options(most_notices=most))
    client.init()
    client.begin()
    return client


def test_a_full_outbox_says_so_once(disk: MemoryDisk) -> None:
    client = few(disk, 3)
    client.watch("")
    client.deliver(*(created(disk, f"f{i}") for i in range(10)))
    assert client.session.has_lost
    assert kinds(client.heard()) == ["CREATE f0", "CREATE f1", "CREATE f2", "Q_OVERFLOW"]
    assert not client.session.has_lost


def test_what_follows_is_left_out_until_all_has_been_taken(disk: MemoryDisk) -> None:
    client = few(disk, 2)
    client.watch("")
    client.deliver(*(created(disk, f"f{i}") for i in range(3)))
    assert client.session.next_notice() is not None
    client.deliver(created(disk, "x"))
    assert kinds(client.heard()) == ["CREATE f1", "Q_OVERFLOW"]
    client.deliver(created(disk, "y"))
    assert kinds(client.heard()) == ["CREATE y"]


def test_an_ending_is_never_lost(disk: MemoryDisk) -> None:
    client = few(disk, 2)
    inodes = {name: disk.do_file(name) for name in "abc"}
    for name in inodes:
        client.watch(name)
    client.watch("")
    for name, inode in inodes.items():
        client.deliver(removed(disk, name), died(disk, inode, with_its_name=True))
    assert kinds(client.heard()) == [
        "ATTRIB",
        "DELETE_SELF",
        "ENDED(GONE)",
        "Q_OVERFLOW",
        "ENDED(GONE)",
        "ENDED(GONE)",
    ]


def test_no_number_is_used_twice(disk: MemoryDisk) -> None:
    client = few(disk, 2)
    client.watch("")
    client.deliver(*(created(disk, f"f{i}") for i in range(5)))
    found = client.heard()
    client.deliver(created(disk, "x"))
    sequences = [each.sequence for each in found + client.heard()]
    assert sequences == sorted(set(sequences))


def test_an_event_without_room_becomes_an_overflow_in_its_place(client: Client) -> None:
    disk = client.disk
    client.watch("")
    client.deliver(created(disk, "a"), created(disk, "b" * 200), created(disk, "c"))
    heard = client.heard(room=100)
    assert kinds(heard) == ["CREATE a", "Q_OVERFLOW", "CREATE c"]
    assert [each.sequence for each in heard] == [1, 2, 3]


def test_without_room_for_that_nothing_is_taken(client: Client) -> None:
    disk = client.disk
    client.watch("")
    client.deliver(created(disk, "a"))
    assert client.session.next_notice(room=80) is None
    assert client.session.has_notice
    assert kinds(client.heard()) == ["CREATE a"]


def test_the_largest_is_a_rename(client: Client) -> None:
    disk = client.disk
    disk.do_file("x" * 255)
    client.watch("")
    client.deliver(renamed(disk, "x" * 255, "y" * 255))
    notice = client.session.next_notice()
    assert notice is not None
    assert sum(map(len, notice)) == LARGEST


def test_the_posted_dialects_have_no_ending() -> None:
    outbox = Outbox(Dialect.AGGREGATED, 4)
    outbox.ended(Ended(16, 1, Reason.GONE))
    outbox.event(Event(int(Mask.MODIFY), 16, generation=1), to_parent=False, to_node=True)
    assert len(outbox) == 1


def test_taking_many_leaves_what_does_not_fit(client: Client) -> None:
    disk = client.disk
    client.watch("")
    disk.do_file("f")
    client.deliver(*(touched(disk, "f", Kind.MODIFY) for _ in range(20)))
    found = client.take(LARGEST)
    assert found is not None
    assert 0 < len(found) < 20
    rest = client.take(1 << 20)
    assert rest is not None
    assert len(found) + len(rest) == 20
