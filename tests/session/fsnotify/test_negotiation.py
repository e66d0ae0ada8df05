"""Who keeps its own marks: by what it asks for in INIT, and what it is allowed."""

from __future__ import annotations

import struct

import pytest

from farwatch.abi.fsnotify import Dialect
from farwatch.abi.fuse import Init
from farwatch.session.settings import SPOKEN
from tests.session.fsnotify.client import (
    BEGIN,
    FSNOTIFY,
    HAVE_FSNOTIFY,
    MARK,
    NUMBER,
    TAKE,
    Client,
    created,
    options,
)
from tests.session.kernel import FLAGS2_6_18, FLAGS_6_18, ROOT, Kernel, Refused
from tests.session.memory import MemoryDisk

INIT_EXT = POSTED = 1 << 30
PARENTED = 1 << 2
"""Bit 34, in flags2."""
NONE = SPOKEN["none"]


def dialect_of(client: Client) -> Dialect | None:
    agreed = client.session.agreed
    assert agreed is not None
    return agreed.fsnotify


def test_what_a_client_asks_for_it_gets(disk: MemoryDisk) -> None:
    client = Client(disk)
    assert client.init()[10] & HAVE_FSNOTIFY
    assert dialect_of(client) is Dialect.CURRENT
    assert client.begin(1) == (1, 1, 0xFFF, 0, NUMBER)


@pytest.mark.parametrize("flags2", [FLAGS2_6_18, FLAGS2_6_18 & ~HAVE_FSNOTIFY, 0])
def test_a_client_that_offers_nothing_gets_nothing(disk: MemoryDisk, flags2: int) -> None:
    client = Client(disk)
    assert not client.init(flags2)[10] & HAVE_FSNOTIFY
    assert dialect_of(client) is None
    for opcode in (BEGIN, MARK, TAKE):
        with pytest.raises(Refused, match="ENOSYS"):
            client.kernel.ask(opcode, ROOT, struct.pack("<IIII", 1, 1, 0, 0))
    client.node("")
    client.deliver(created(disk, "x"))
    assert client.heard() == []


def test_a_server_that_does_not_offer_it_does_not_have_it(disk: MemoryDisk) -> None:
    client = Client(disk, options(fsnotify=NONE))
    assert not client.init()[10] & HAVE_FSNOTIFY
    assert dialect_of(client) is None
    with pytest.raises(Refused, match="ENOSYS"):
        client.begin()


def test_without_init_ext_the_flag_does_not_count(disk: MemoryDisk) -> None:
    kernel = Client(disk).kernel
    kernel.init(45, FLAGS_6_18 & ~INIT_EXT, HAVE_FSNOTIFY)
    assert kernel.session.agreed is not None
    assert kernel.session.agreed.fsnotify is None


@pytest.mark.parametrize(
    ("minor", "long", "names", "expected"),
    [
        (36, False, "posted", Dialect.POSTED),
        (36, False, "current", None),
        (36, False, "none", None),
        (36, True, "posted", None),
        (35, False, "posted", None),
        (37, False, "posted", None),
    ],
)
def test_the_posted_flag_counts_only_as_it_was_posted(
    disk: MemoryDisk, minor: int, long: bool, names: str, expected: Dialect | None
) -> None:
    client = Client(disk, options(fsnotify=SPOKEN[names]))
    flags = FLAGS_6_18 | POSTED
    answer = client.kernel.init(minor, flags, 0, long=long)
    assert dialect_of(client) is expected
    # A short INIT with the flag is asking; a long one says that it is long.
    assert bool(answer[3] & POSTED) == (expected is not None or long)


@pytest.mark.parametrize(
    ("minor", "flags2", "names", "expected"),
    [
        (38, PARENTED, "parented", Dialect.PARENTED),
        (38, PARENTED, "posted", None),
        (39, PARENTED, "parented", None),
        (38, 0, "parented", None),
        (38, PARENTED | HAVE_FSNOTIFY, "parented", Dialect.CURRENT),
    ],
)
def test_the_flag_of_2022_counts_only_where_it_is_expected(
    disk: MemoryDisk, minor: int, flags2: int, names: str, expected: Dialect | None
) -> None:
    client = Client(disk, options(fsnotify=SPOKEN[names]))
    answer = client.kernel.init(minor, FLAGS_6_18, flags2)
    assert dialect_of(client) is expected
    # Of everybody else it is CREATE_SUPP_GROUP, which is agreed.
    assert bool(answer[10] & PARENTED) == bool(flags2 & PARENTED)
    assert client.kernel.session.agreed is not None
    takes_groups = Init.CREATE_SUPP_GROUP in client.kernel.session.agreed.flags
    assert takes_groups == bool(flags2 & PARENTED and expected is not Dialect.PARENTED)


def test_51_is_tmpfile_for_everybody_else(disk: MemoryDisk) -> None:
    client = Client(disk)
    client.init()
    entry, _ = client.kernel.tmpfile()
    assert entry.attributes.nlink == 0
    short = Client(disk, options(fsnotify=NONE)).kernel
    short.init(36, FLAGS_6_18, 0, long=False)
    with pytest.raises(Refused, match="EINVAL"):
        short.ask(FSNOTIFY, ROOT, bytes(8))


def test_a_second_init_starts_from_nothing(client: Client) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x"))
    client.init()
    assert client.heard() == []
    with pytest.raises(Refused, match="EPERM"):
        client.mark(ROOT)
    client.begin()
    client.deliver(created(client.disk, "y"))
    assert client.heard() == []


def test_after_destroy_there_is_nothing(client: Client) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x"))
    client.kernel.ask(38, ROOT)
    assert client.session.next_notice() is None
    assert client.session.reading == 0


def test_nothing_is_passed_through_for_who_keeps_marks(disk: MemoryDisk) -> None:
    client = Client(disk, options()._replace(passthrough=True))
    assert not client.init()[10] & 1 << 5
    other = Kernel(disk, Client(disk, options()._replace(passthrough=True)).session)
    assert other.init()[10] & 1 << 5
