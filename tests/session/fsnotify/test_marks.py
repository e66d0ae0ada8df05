"""BEGIN, MARK, TAKE: what is refused, when they are answered, how marks live and end."""

from __future__ import annotations

import struct

import pytest

from farwatch.abi.fsnotify import VERSION
from farwatch.events import Change, Kind
from tests.session.fsnotify.client import (
    ALL,
    BEGIN,
    CREATE,
    DELETE_SELF,
    DROPPED,
    GONE,
    ISDIR,
    LIMBO,
    MARK,
    MERGED,
    MODIFY,
    REMOTE,
    REMOVED,
    TAKE,
    Client,
    End,
    created,
    died,
    kinds,
    notices,
    options,
    removed,
    touched,
)
from tests.session.kernel import GENERATION, ROOT, Refused
from tests.session.memory import MemoryDisk

# Hostile, or just wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b"", "EINVAL"),
        (struct.pack("<III", 1, REMOTE, 0), "EINVAL"),
        (struct.pack("<IIIII", 1, REMOTE, 0, 0, 0), "EINVAL"),
        (struct.pack("<IIII", 1, 0, 0, 0), "EINVAL"),
        (struct.pack("<IIII", 1, 3, 0, 0), "EINVAL"),
        (struct.pack("<IIII", 1, REMOTE, 1, 0), "EINVAL"),
        (struct.pack("<IIII", 0, REMOTE, 0, 0), "EPROTO"),
    ],
)
def test_begin_is_refused(disk: MemoryDisk, body: bytes, number: str) -> None:
    client = Client(disk)
    client.init()
    with pytest.raises(Refused, match=number):
        client.kernel.ask(BEGIN, ROOT, body)
    assert client.begin()[1] == REMOTE


def test_a_newer_client_is_answered_with_our_version(disk: MemoryDisk) -> None:
    client = Client(disk)
    client.init()
    assert client.begin(version=9)[0] == VERSION


def test_begin_twice(client: Client) -> None:
    with pytest.raises(Refused, match="EBUSY"):
        client.begin(MERGED)


def test_begin_is_of_the_root(disk: MemoryDisk) -> None:
    client = Client(disk)
    client.init()
    disk.do_mkdir("d")
    with pytest.raises(Refused, match="EINVAL"):
        client.kernel.ask(BEGIN, client.node("d"), struct.pack("<IIII", 1, 1, 0, 0))


def test_nothing_before_begin(disk: MemoryDisk) -> None:
    client = Client(disk)
    client.init()
    with pytest.raises(Refused, match="EPERM"):
        client.mark(ROOT)
    with pytest.raises(Refused, match="EPERM"):
        client.take()
    client.deliver(created(disk, "x"))
    assert client.heard() == []


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b"", "EINVAL"),
        (struct.pack("<QI", 0, ALL), "EINVAL"),
        (struct.pack("<QIII", 0, ALL, 0, 0), "EINVAL"),
        (struct.pack("<QII", 0, ALL, LIMBO), "EINVAL"),
        (struct.pack("<QII", 0, ALL, 2), "EINVAL"),
        (struct.pack("<QII", 0, 0, 2), "EINVAL"),
        (struct.pack("<QII", 0, ISDIR, 0), "EINVAL"),
        (struct.pack("<QII", 1, ALL, 0), "ESTALE"),
        (struct.pack("<QII", 1 << 63, ALL, 0), "ESTALE"),
    ],
)
def test_mark_is_refused(client: Client, body: bytes, number: str) -> None:
    with pytest.raises(Refused, match=number):
        client.kernel.ask(MARK, ROOT, body)
    client.deliver(created(client.disk, "x"))
    assert client.heard() == []


@pytest.mark.parametrize("node", [0, 2, 15, 1 << 40, (1 << 64) - 1])
def test_a_node_that_nobody_was_told_of(client: Client, node: int) -> None:
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node)


def test_a_node_of_another_generation(client: Client) -> None:
    client.disk.do_file("f")
    node = client.node("f")
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node, generation=GENERATION + 1)
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(ROOT, generation=GENERATION)


def test_a_node_that_was_forgotten(client: Client) -> None:
    client.disk.do_file("f")
    node = client.node("f")
    client.kernel.forget_all()
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node)


def test_an_inode_that_is_gone(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    node = client.node("f")
    disk.do_remove("f")
    disk.do_close(inode)
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node)


def test_the_kinds_that_can_be_told_are_answered(client: Client) -> None:
    assert client.mark(ROOT, CREATE | ISDIR | 0x2000) == (CREATE, 0)


def test_too_many_marks(disk: MemoryDisk) -> None:
    client = Client(disk, options(most_marks=3))
    client.init()
    client.begin()
    for name in "abcd":
        disk.do_file(name)
    nodes = [client.watch(name) for name in "abc"]
    with pytest.raises(Refused, match="ENOSPC"):
        client.watch("d")
    client.mark(nodes[0], MODIFY)
    # Its ending takes the place until it is taken.
    client.mark(nodes[0], 0)
    with pytest.raises(Refused, match="ENOSPC"):
        client.watch("d")
    assert kinds(client.heard()) == ["ENDED(REMOVED)"]
    client.watch("d")


def test_marking_and_unmarking_for_ever_is_bounded(disk: MemoryDisk) -> None:
    client = Client(disk, options(most_marks=5))
    client.init()
    client.begin()
    refused = 0
    for _ in range(100):
        try:
            client.mark(ROOT)
        except Refused:
            refused += 1
        client.mark(ROOT, 0)
    assert refused == 95
    assert kinds(client.heard()) == ["ENDED(REMOVED)"] * 5


# How marks live and end ------------------------------------------------------------------


def test_a_mark_keeps_its_node(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    node = client.watch("f")
    client.kernel.forget_all()
    client.deliver(touched(disk, "f", Kind.MODIFY))
    (told,) = client.heard()
    assert told.node == node
    client.mark(node, 0)
    assert client.heard() == [End(2, node, GENERATION, REMOVED)]
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node)


def test_a_removal_is_followed_by_its_end(client: Client) -> None:
    disk = client.disk
    client.watch("")
    client.deliver(created(disk, "x"))
    kinds_, sequence = client.mark(ROOT, 0)
    assert (kinds_, sequence) == (0, 2)
    client.deliver(created(disk, "y"))
    assert kinds(client.heard()) == ["CREATE x", "ENDED(REMOVED)"]


def test_removing_what_is_not_marked(client: Client) -> None:
    assert client.mark(ROOT, 0) == (0, 0)
    assert client.heard() == []


def test_a_mark_is_replaced(client: Client) -> None:
    disk = client.disk
    client.watch("", CREATE)
    client.mark(ROOT, MODIFY)
    client.deliver(created(disk, "x"), touched(disk, "x", Kind.MODIFY))
    assert kinds(client.heard()) == ["MODIFY x"]


def test_the_answer_says_what_was_before(client: Client) -> None:
    disk = client.disk
    client.watch("")
    client.deliver(created(disk, "x"), created(disk, "y"))
    assert client.mark(ROOT, ALL) == (ALL, 2)


def test_an_end_comes_after_the_last_event(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    node = client.watch("f")
    client.kernel.forget_all()
    client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
    heard = client.heard()
    assert kinds(heard) == ["ATTRIB", "DELETE_SELF", "ENDED(GONE)"]
    assert heard[-1] == End(3, node, GENERATION, GONE)
    with pytest.raises(Refused, match="ESTALE"):
        client.mark(node)


def test_who_did_not_ask_for_delete_self_is_told_of_the_end(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    client.watch("f", MODIFY)
    client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
    assert kinds(client.heard()) == ["ENDED(GONE)"]


# Limbo -----------------------------------------------------------------------------------


def test_limbo_ends_with_the_inode(client: Client) -> None:
    """The reply to UNLINK comes first, the events of it later."""
    disk = client.disk
    inode = disk.do_file("f")
    node = client.watch("f", DELETE_SELF)
    gone = removed(disk, "f")
    client.mark(node, 0, LIMBO)
    assert client.heard() == []
    client.kernel.forget_all()
    client.deliver(gone, died(disk, inode, with_its_name=True))
    assert kinds(client.heard()) == ["DELETE_SELF", "ENDED(GONE)"]


def test_limbo_after_the_end(client: Client) -> None:
    """The events were faster: nothing is said twice."""
    disk = client.disk
    inode = disk.do_file("f")
    node = client.watch("f", DELETE_SELF)
    client.deliver(removed(disk, "f"), died(disk, inode, with_its_name=True))
    assert client.mark(node, 0, LIMBO) == (0, 2)
    assert kinds(client.heard()) == ["DELETE_SELF", "ENDED(GONE)"]


def test_limbo_lasts_while_somebody_has_it_open(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    node = client.watch("f")
    client.deliver(removed(disk, "f"))
    client.mark(node, 0, LIMBO)
    client.kernel.forget_all()
    close = touched_key(inode.key, Kind.CLOSE_WRITE)
    client.deliver(close)
    client.deliver(died(disk, inode))
    assert kinds(client.heard()) == ["ATTRIB", "CLOSE_WRITE", "DELETE_SELF", "ENDED(GONE)"]


def test_a_mark_comes_back_from_limbo(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    disk.do_link("f", "g")
    node = client.watch("f", MODIFY)
    client.mark(node, 0, LIMBO)
    client.mark(node, MODIFY)
    client.mark(node, 0)
    assert kinds(client.heard()) == ["ENDED(REMOVED)"]


def test_limbo_is_bounded(disk: MemoryDisk) -> None:
    client = Client(disk, options(most_in_limbo=2))
    client.init()
    client.begin()
    for name in "abc":
        disk.do_file(name)
    nodes = [client.watch(name) for name in "abc"]
    for node in nodes:
        client.mark(node, 0, LIMBO)
    assert client.heard() == [End(1, nodes[0], GENERATION, DROPPED)]
    client.deliver(touched(disk, "a", Kind.MODIFY), touched(disk, "b", Kind.MODIFY))
    assert kinds(client.heard()) == ["MODIFY"]


def test_limbo_of_what_is_not_marked(client: Client) -> None:
    client.disk.do_file("f")
    node = client.node("f")
    assert client.mark(node, 0, LIMBO) == (0, 0)
    assert client.heard() == []


# What happened before --------------------------------------------------------------------


class Behind:
    """Something has happened that is not delivered yet."""

    def __init__(self, client: Client) -> None:
        self.is_so = True
        client.session.must_catch_up = lambda: self.is_so


def test_a_mark_waits_for_what_happened_before(client: Client) -> None:
    disk = client.disk
    behind = Behind(client)
    before = created(disk, "x")
    assert client.kernel.try_ask(MARK, ROOT, client.mark_body(ROOT, ALL)) is None
    unique = client.kernel.last_unique
    assert client.answer() is None
    behind.is_so = False
    client.deliver(before)
    assert client.answer() == (unique, 0, struct.pack("<IIQ", ALL, 0, 0))
    client.deliver(created(disk, "y"))
    assert kinds(client.heard()) == ["CREATE y"]


def test_a_removal_waits_for_what_happened_before(client: Client) -> None:
    disk = client.disk
    client.watch("")
    behind = Behind(client)
    before = created(disk, "x")
    assert client.kernel.try_ask(MARK, ROOT, client.mark_body(ROOT, 0)) is None
    unique = client.kernel.last_unique
    behind.is_so = False
    client.deliver(before)
    assert client.answer() == (unique, 0, struct.pack("<IIQ", 0, 0, 2))
    client.deliver(created(disk, "y"))
    assert kinds(client.heard()) == ["CREATE x", "ENDED(REMOVED)"]


def test_a_mark_does_not_wait_for_what_happens_after(client: Client) -> None:
    """However busy the source is, one whole reading is enough."""
    disk = client.disk
    Behind(client)
    assert client.kernel.try_ask(MARK, ROOT, client.mark_body(ROOT, ALL)) is None
    assert client.answer() is None
    client.deliver(created(disk, "x"))
    assert client.answer() is not None
    client.deliver(created(disk, "y"))
    assert kinds(client.heard()) == ["CREATE y"]


def test_the_reading_under_way_is_not_enough(client: Client) -> None:
    disk = client.disk
    Behind(client)
    view = client.session.view
    view.drains.begin()
    assert client.kernel.try_ask(MARK, ROOT, client.mark_body(ROOT, ALL)) is None
    with view.lock:
        view.drains.end()
    assert client.answer() is None
    client.deliver(created(disk, "x"))
    assert client.answer() is not None


def test_marks_are_answered_in_their_order(client: Client) -> None:
    disk = client.disk
    disk.do_file("f")
    node = client.node("f")
    behind = Behind(client)
    uniques = []
    for mask in (ALL, 0, MODIFY):
        assert client.kernel.try_ask(MARK, node, client.mark_body(node, mask)) is None
        uniques.append(client.kernel.last_unique)
    client.kernel.forget_all()
    behind.is_so = False
    # One that comes now waits behind them all the same.
    assert client.kernel.try_ask(MARK, ROOT, client.mark_body(ROOT, CREATE)) is None
    uniques.append(client.kernel.last_unique)
    answers = [client.answer() for _ in uniques]
    assert [answer[0] for answer in answers if answer is not None] == uniques
    assert client.answer() is None
    client.deliver(touched(disk, "f", Kind.MODIFY))
    assert kinds(client.heard()) == ["ENDED(REMOVED)", "MODIFY"]


def test_what_was_parked_can_fail(client: Client) -> None:
    disk = client.disk
    inode = disk.do_file("f")
    node = client.node("f")
    behind = Behind(client)
    assert client.kernel.try_ask(MARK, node, client.mark_body(node, ALL)) is None
    unique = client.kernel.last_unique
    disk.do_remove("f")
    disk.do_close(inode)
    client.kernel.forget_all()
    behind.is_so = False
    assert client.answer() == (unique, 116, b"")


# TAKE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", bytes(4), bytes(8), struct.pack("<II", 597, 0)])
def test_a_take_with_tiny_room_is_refused(client: Client, body: bytes) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x"))
    with pytest.raises(Refused, match="EINVAL"):
        client.kernel.ask(TAKE, ROOT, body)
    # It has not become a client that takes.
    assert kinds(client.heard()) == ["CREATE x"]


def test_a_take_with_flags_or_of_another_node(client: Client) -> None:
    client.disk.do_mkdir("d")
    with pytest.raises(Refused, match="EINVAL"):
        client.kernel.ask(TAKE, ROOT, struct.pack("<II", 4096, 1))
    with pytest.raises(Refused, match="EINVAL"):
        client.kernel.ask(TAKE, client.node("d"), struct.pack("<II", 4096, 0))


def test_what_is_taken_is_not_sent(client: Client) -> None:
    client.watch("")
    assert client.take() is None
    unique = client.kernel.last_unique
    client.deliver(created(client.disk, "x"), created(client.disk, "y"))
    assert not client.session.has_notice
    assert client.session.next_notice() is None
    answer = client.answer()
    assert answer is not None
    assert (answer[0], answer[1]) == (unique, 0)
    assert kinds(notices(answer[2])) == ["CREATE x", "CREATE y"]
    client.deliver(created(client.disk, "z"))
    assert client.session.next_notice() is None
    found = client.take()
    assert found is not None
    assert kinds(found) == ["CREATE z"]


def test_a_second_take_ends_the_first(client: Client) -> None:
    client.watch("")
    assert client.take() is None
    first = client.kernel.last_unique
    assert client.take() is None
    second = client.kernel.last_unique
    assert client.answer() == (first, 0, b"")
    assert client.answer() is None
    client.deliver(created(client.disk, "x"))
    answer = client.answer()
    assert answer is not None
    assert answer[0] == second


def test_an_answer_holds_whole_notifications_and_no_more_than_asked_for(client: Client) -> None:
    disk = client.disk
    client.watch("")
    names = [f"{i}" * 200 for i in range(1, 9)]
    client.deliver(*(created(disk, name) for name in names))
    found = []
    while (part := client.take(1024)) is not None:
        assert 0 < len(part) <= 3
        found += part
    assert kinds(found) == [f"CREATE {name}" for name in names]


def test_a_take_is_interrupted(client: Client) -> None:
    client.watch("")
    assert client.take() is None
    unique = client.kernel.last_unique
    client.kernel.try_ask(36, 0, struct.pack("<Q", unique))
    assert client.answer() == (unique, 4, b"")
    client.deliver(created(client.disk, "x"))
    assert client.answer() is None
    found = client.take()
    assert found is not None
    assert kinds(found) == ["CREATE x"]


def test_where_nothing_is_interrupted_a_take_is_answered_in_time(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("farwatch.session.fsnotify.requests.time.monotonic", lambda: now)
    client = Client(disk, options(longest_wait=1.0))
    client.init()
    client.begin()
    assert client.session.due is None
    assert client.take() is None
    unique = client.kernel.last_unique
    assert client.session.due == 101.0
    assert client.answer() is None
    now = 101.0
    assert client.answer() == (unique, 0, b"")
    assert client.session.due is None


def touched_key(key: bytes, kind: Kind) -> Change:
    return Change(kind, None, key)
