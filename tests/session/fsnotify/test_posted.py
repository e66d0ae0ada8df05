"""The dialects that were posted: asked for, marked, told, byte for byte in the tests of abi."""

from __future__ import annotations

import struct

import pytest

from farwatch.abi.fsnotify import Dialect
from farwatch.events import Change, Kind
from farwatch.session.settings import SPOKEN
from tests.session.fsnotify.client import (
    ALL,
    ATTRIB,
    CREATE,
    DELETE_SELF,
    FSNOTIFY,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OPEN,
    Q_OVERFLOW,
    Client,
    Posted,
    created,
    died,
    options,
    removed,
    renamed,
    touched,
)
from tests.session.kernel import FLAGS_6_18, GENERATION, ROOT, Refused
from tests.session.memory import MemoryDisk

ON_CHILD = 0x08000000
DIALECTS = [Dialect.POSTED, Dialect.AGGREGATED, Dialect.PARENTED]


def body_of(dialect: Dialect, mask: int, generation: int = GENERATION) -> bytes:
    if dialect is Dialect.POSTED:
        return struct.pack("<QQI4x", mask or ALL, 0xFFFF888000000000, 1 if mask else 0)
    if dialect is Dialect.AGGREGATED:
        return struct.pack("<II", mask, generation)
    return struct.pack("<Q", mask)


def by_group(client: Client, node: int, group: int, mask: int) -> bytes:
    """POSTED's ADD of a mask, or its REMOVE."""
    body = struct.pack("<QQI4x", mask or ALL, group, 1 if mask else 0)
    return client.kernel.ask(FSNOTIFY, node, body)


def speaking(disk: MemoryDisk, dialect: Dialect) -> Client:
    client = Client(disk, options(fsnotify=SPOKEN["parented"]))
    if dialect is Dialect.PARENTED:
        client.kernel.init(38, FLAGS_6_18, 1 << 2)
    else:
        client.kernel.init(36, FLAGS_6_18, 0, long=False)
    return client


def mark(client: Client, dialect: Dialect, node: int, mask: int = ALL) -> None:
    generation = 0 if node == ROOT else GENERATION
    assert client.kernel.ask(FSNOTIFY, node, body_of(dialect, mask, generation)) == b""


def padded(name: bytes) -> bytes:
    return name.ljust((len(name) // 16 + 1) * 16, b"\0")


def test_the_first_request_tells_which_of_the_two(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    disk.do_file("f")
    subscription = client.session.subscription
    assert subscription is not None
    mark(client, Dialect.AGGREGATED, client.node("f"))
    assert subscription.dialect is Dialect.AGGREGATED
    with pytest.raises(Refused, match="EINVAL"):
        mark(client, Dialect.POSTED, ROOT)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_event_before_the_first_request(disk: MemoryDisk, dialect: Dialect) -> None:
    client = speaking(disk, dialect)
    client.node("")
    client.deliver(created(disk, "x"), Change(Kind.OVERFLOW, None, None))
    assert client.posted(dialect) == []


def test_posted(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    mark(client, Dialect.POSTED, ROOT)
    client.deliver(created(disk, "x"))
    assert client.posted(Dialect.POSTED) == [Posted((ROOT, CREATE, 16, 0), padded(b"x"))]


def test_one_message_for_each_marked_inode(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.AGGREGATED)
    disk.do_file("f")
    node = client.node("f")
    mark(client, Dialect.AGGREGATED, node)
    mark(client, Dialect.AGGREGATED, ROOT)
    client.deliver(touched(disk, "f", Kind.MODIFY))
    assert client.posted(Dialect.AGGREGATED) == [
        Posted((ROOT, MODIFY, 16, 0, 0), padded(b"f")),
        Posted((node, MODIFY, 0, 0, GENERATION), b""),
    ]


def test_parented_has_both_in_one(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.PARENTED)
    disk.do_file("f")
    node = client.node("f")
    mark(client, Dialect.PARENTED, node)
    mark(client, Dialect.PARENTED, ROOT)
    client.deliver(touched(disk, "f", Kind.MODIFY))
    assert client.posted(Dialect.PARENTED) == [
        Posted((node, ROOT, MODIFY | ON_CHILD, 1, GENERATION, 1), b"f")
    ]


def test_a_rename_is_two_and_one_with_a_cookie(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.AGGREGATED)
    for name in ("a", "b"):
        disk.do_mkdir(name)
    disk.do_file("a/f")
    a, b, node = client.node("a"), client.node("b"), client.node("a/f")
    for each in (a, b, node):
        mark(client, Dialect.AGGREGATED, each)
    client.deliver(renamed(disk, "a/f", "b/g"))
    out, into, itself = client.posted(Dialect.AGGREGATED)
    cookie = out.fields[3]
    assert cookie
    assert out == Posted((a, MOVED_FROM, 16, cookie, GENERATION), padded(b"f"))
    assert into == Posted((b, MOVED_TO, 16, cookie, GENERATION), padded(b"g"))
    assert itself == Posted((node, MOVE_SELF, 0, 0, GENERATION), b"")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_rename_over_something_is_in_the_kernel_s_order(
    disk: MemoryDisk, dialect: Dialect
) -> None:
    client = speaking(disk, dialect)
    disk.do_file("f")
    over = disk.do_file("g")
    for node in (client.node("f"), client.node("g"), ROOT):
        mark(client, dialect, node)
    client.deliver(renamed(disk, "f", "g"), died(disk, over))
    at = 2 if dialect is Dialect.PARENTED else 1
    assert [each.fields[at] for each in client.posted(dialect)] == [
        MOVED_FROM,
        MOVED_TO,
        ATTRIB,
        MOVE_SELF,
        DELETE_SELF,
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_mark_is_removed(disk: MemoryDisk, dialect: Dialect) -> None:
    client = speaking(disk, dialect)
    mark(client, dialect, ROOT)
    mark(client, dialect, ROOT, 0)
    client.deliver(created(disk, "x"))
    assert client.posted(dialect) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_inode_s_end_is_told_once_and_unmarks_it(disk: MemoryDisk, dialect: Dialect) -> None:
    client = speaking(disk, dialect)
    inode = disk.do_file("f")
    node = client.node("f")
    mark(client, dialect, node, DELETE_SELF)
    client.kernel.forget_all()
    client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
    assert len(client.posted(dialect)) == 1
    with pytest.raises(Refused, match="ESTALE"):
        mark(client, dialect, node)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_overflow_is_told(disk: MemoryDisk, dialect: Dialect) -> None:
    client = speaking(disk, dialect)
    mark(client, dialect, ROOT)
    client.deliver(Change(Kind.OVERFLOW, None, None))
    (told,) = client.posted(dialect)
    assert told.fields[2 if dialect is Dialect.PARENTED else 1] == Q_OVERFLOW


def test_aggregated_checks_the_generation(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.AGGREGATED)
    disk.do_file("f")
    node = client.node("f")
    with pytest.raises(Refused, match="ESTALE"):
        client.kernel.ask(FSNOTIFY, node, body_of(Dialect.AGGREGATED, ALL, GENERATION + 1))


@pytest.mark.parametrize("size", [0, 4, 7, 9, 12, 16, 23, 25, 4000])
def test_a_request_of_no_layout(disk: MemoryDisk, size: int) -> None:
    client = speaking(disk, Dialect.POSTED)
    with pytest.raises(Refused, match="EINVAL"):
        client.kernel.ask(FSNOTIFY, ROOT, bytes(size))
    mark(client, Dialect.POSTED, ROOT)


def test_a_mark_is_what_all_its_groups_ask_for(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    disk.do_file("f")

    def heard() -> list[int]:
        client.deliver(
            touched(disk, "f", Kind.MODIFY),
            touched(disk, "f", Kind.ATTRIB),
            created(disk, "x"),
            removed(disk, "x"),
        )
        return [each.fields[1] for each in client.posted(Dialect.POSTED)]

    by_group(client, ROOT, 1, MODIFY)
    by_group(client, ROOT, 2, ATTRIB | CREATE)
    assert heard() == [MODIFY, ATTRIB, CREATE]
    by_group(client, ROOT, 1, ATTRIB)
    assert heard() == [ATTRIB, CREATE]
    by_group(client, ROOT, 2, 0)
    assert heard() == [ATTRIB]
    by_group(client, ROOT, 2, 0)
    by_group(client, ROOT, 3, 0)
    assert heard() == [ATTRIB]
    by_group(client, ROOT, 1, 0)
    assert heard() == []


def test_reading_is_asked_for_while_a_group_does(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    for group in (1, 2):
        by_group(client, ROOT, group, OPEN)
    by_group(client, ROOT, 1, 0)
    assert client.session.reading & OPEN
    by_group(client, ROOT, 2, MODIFY)
    assert not client.session.reading & OPEN


def test_a_mark_s_node_goes_with_the_last_group(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    disk.do_file("f")
    node = client.node("f")
    for group in (1, 2):
        by_group(client, node, group, MODIFY)
    client.kernel.forget_all()
    by_group(client, node, 1, 0)
    assert node in client.session.view.nodes.by_id
    by_group(client, node, 2, 0)
    assert node not in client.session.view.nodes.by_id


def test_too_many_groups_of_one_node(disk: MemoryDisk) -> None:
    client = speaking(disk, Dialect.POSTED)
    for group in range(256):
        by_group(client, ROOT, group, MODIFY)
    with pytest.raises(Refused, match="ENOSPC"):
        by_group(client, ROOT, 256, MODIFY)
    by_group(client, ROOT, 255, CREATE)
    by_group(client, ROOT, 0, 0)
    by_group(client, ROOT, 256, MODIFY)


def test_groups_count_as_marks(disk: MemoryDisk) -> None:
    client = Client(disk, options(most_marks=4))
    client.kernel.init(36, FLAGS_6_18, 0, long=False)
    disk.do_file("f")
    node = client.node("f")
    for _ in range(3):
        for group in (1, 2, 3):
            by_group(client, ROOT, group, MODIFY)
        by_group(client, node, 1, MODIFY)
        for at, group in ((ROOT, 4), (node, 2)):
            with pytest.raises(Refused, match="ENOSPC"):
                by_group(client, at, group, MODIFY)
        by_group(client, node, 1, 0)
        for group in (1, 2, 3):
            by_group(client, ROOT, group, 0)


def test_a_mark_of_many_groups_ends_with_its_inode(disk: MemoryDisk) -> None:
    client = Client(disk, options(most_marks=3))
    client.kernel.init(36, FLAGS_6_18, 0, long=False)
    for _ in range(3):
        inode = disk.do_file("f")
        node = client.node("f")
        for group in (1, 2, 3):
            by_group(client, node, group, DELETE_SELF)
        client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
        assert [each.fields[1] for each in client.posted(Dialect.POSTED)] == [DELETE_SELF]
