"""A server that says what it must not: ProtocolError, at once, and nothing is kept of it."""

from __future__ import annotations

import errno
import random
import struct

import pytest

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.errors import Misuse, ProtocolError
from farwatch.client.protocol import (
    Caller,
    Connection,
    Notification,
    Reply,
    most_answered,
    taken,
)


def message(unique: int, payload: bytes = b"", error: int = 0, length: int | None = None) -> bytes:
    size = 16 + len(payload) if length is None else length
    return struct.pack("<IiQ", size, error, unique) + payload


@pytest.fixture
def connection() -> Connection:
    return Connection(Caller(1, 2, 3))


def asked(connection: Connection, opcode: int = Opcode.GETATTR, body: bytes = bytes(16)) -> int:
    return connection.request(opcode, 1, body)[0]


def test_request_bytes(connection: Connection) -> None:
    unique, data = connection.request(Opcode.LOOKUP, 7, b"name\0")
    assert data == struct.pack("<IIQQIIIHH", 45, 1, unique, 7, 1, 2, 3, 0, 0) + b"name\0"


def test_numbers_are_not_used_twice(connection: Connection) -> None:
    numbers = [asked(connection) for _ in range(100)]
    assert len(set(numbers)) == 100
    assert not any(number & 1 for number in numbers), "the odd ones are for INTERRUPT"


def test_replies_in_any_order_and_any_pieces(connection: Connection) -> None:
    numbers = [asked(connection) for _ in range(5)]
    stream = b"".join(message(number, bytes(104)) for number in reversed(numbers))
    stream += message(0, b"event", 0x4657)
    found = []
    for byte in stream:
        connection.receive_data(bytes([byte]))
        while (event := connection.next_event()) is not None:
            found.append(event)
    replies = [Reply(number, 0, bytes(104)) for number in reversed(numbers)]
    assert found == [*replies, Notification(0x4657, b"event")]
    assert connection.under_way == 0
    connection.receive_end()


def test_an_error(connection: Connection) -> None:
    unique = asked(connection)
    connection.receive_data(message(unique, error=-errno.ENOENT))
    assert connection.next_event() == Reply(unique, errno.ENOENT, b"")


def test_interrupt(connection: Connection) -> None:
    unique = asked(connection)
    data = connection.interrupt(unique)
    assert struct.unpack("<IIQQIIIHHQ", data)[:3] == (48, 36, unique | 1)
    assert data[-8:] == struct.pack("<Q", unique)
    connection.receive_data(message(unique | 1, error=-errno.EAGAIN))
    connection.receive_data(message(unique, error=-errno.EINTR))
    assert connection.next_event() == Reply(unique, errno.EINTR, b"")
    assert connection.interrupt(unique) == b""


@pytest.mark.parametrize(
    "wrong",
    [
        lambda unique: message(unique, length=15),
        lambda unique: message(unique, length=0),
        lambda unique: message(unique, length=0xFFFFFFFF),
        lambda unique: message(unique, bytes(105)),
        lambda unique: message(unique, bytes(1), error=-5),
        lambda unique: message(unique, error=5),
        lambda unique: message(unique, error=-512),
        lambda unique: message(unique, error=-0x80000000),
        lambda unique: message(unique + 2),
        lambda unique: message(unique + 1),
        lambda unique: message(unique + 1, error=-5, length=17),
        lambda unique: message(unique + 3, error=-5),
        lambda unique: message((1 << 64) - 1, error=-5),
        lambda unique: message((1 << 64) - 2),
        lambda unique: message(unique) + message(unique),
        lambda unique: message(0, b"x", error=-3),
        lambda unique: message(0, b"x", error=0),
        lambda unique: message(0, error=1, length=1 << 20),
    ],
)
def test_wrong_messages(connection: Connection, wrong: object) -> None:
    """As soon as the header is there, whatever it announces."""
    assert callable(wrong)
    unique = asked(connection)
    connection.receive_data(wrong(unique))
    with pytest.raises(ProtocolError):
        while connection.next_event() is not None:
            pass
    with pytest.raises(ProtocolError):
        connection.next_event()
    assert not connection._data


def test_no_answer_to_what_has_none(connection: Connection) -> None:
    unique, _ = connection.request(Opcode.FORGET, 5, bytes(8), expects_reply=False)
    connection.receive_data(message(unique))
    with pytest.raises(ProtocolError):
        connection.next_event()


def test_the_end_within_a_message(connection: Connection) -> None:
    connection.receive_data(b"\x20\0\0")
    with pytest.raises(ProtocolError):
        connection.receive_end()


def test_messages_with_borders(connection: Connection) -> None:
    unique = asked(connection)
    for wrong in (b"", b"\x10\0", message(unique, b"x", length=16), message(unique) * 2):
        with pytest.raises(ProtocolError):
            Connection(Caller()).receive_message(wrong)
    connection.receive_message(message(unique, bytes(104)))
    assert connection.next_event() == Reply(unique, 0, bytes(104))


def test_bounds(connection: Connection) -> None:
    with pytest.raises(Misuse):
        connection.request(Opcode.WRITE, 1, bytes((1 << 20) + 5000))
    few = Connection(Caller(), most_under_way=2)
    asked(few)
    asked(few)
    with pytest.raises(Misuse):
        asked(few)


def test_what_an_answer_may_be() -> None:
    read = struct.pack("<QQIIQII", 1, 0, 4096, 0, 0, 0, 0)
    assert most_answered(Opcode.READ, read) == 4096
    assert most_answered(Opcode.READDIR, read) == 4096
    assert most_answered(Opcode.GETXATTR, struct.pack("<II", 0, 0) + b"n\0") == 8
    assert most_answered(Opcode.GETXATTR, struct.pack("<II", 77, 0) + b"n\0") == 77
    assert most_answered(fsnotify.TAKE, struct.pack("<II", 999, 0)) == 999
    assert most_answered(Opcode.UNLINK, b"x\0") == 0


def test_noise_is_never_more_than_an_error() -> None:
    """Whatever comes, it is a ProtocolError or an event, and little is kept."""
    chance = random.Random(4)
    for _ in range(3000):
        connection = Connection(Caller())
        unique = asked(connection)
        data = bytearray(message(unique, bytes(104)) + message(0, bytes(30), 0x4657))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        connection.receive_data(bytes(data))
        try:
            while connection.next_event() is not None:
                pass
        except ProtocolError:
            assert not connection._data


# What TAKE brings --------------------------------------------------------------------------


def test_taken() -> None:
    both = message(0, b"one", 0x4657) + message(0, b"", 0x4658)
    assert taken(both) == [Notification(0x4657, b"one"), Notification(0x4658, b"")]
    assert taken(b"") == []


@pytest.mark.parametrize(
    "payload",
    [
        b"x",
        message(0, b"x", 0x4657)[:-1],
        message(0, b"x", 0x4657) + b"\0",
        message(2, b"x", 0x4657),
        message(0, b"x", -1),
        message(0, b"x", 0),
        message(0, b"", 5, length=0),
        message(0, b"", 5, length=0xFFFFFFFF),
    ],
)
def test_taken_wrongly(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        taken(payload)


# What answers say --------------------------------------------------------------------------


def attributes(mode: int = 0o100644, size: int = 3, mtime_ns: int = 5) -> bytes:
    return struct.pack(
        "<6Q10I", 9, size, 8, 1, 2, 3, 4, mtime_ns, 6, mode, 1, 10, 11, 0x12345678, 4096, 0
    )


def entry(node: int = 5, mode: int = 0o100644) -> bytes:
    return struct.pack("<4Q2I", node, 7, 1, 1, 0, 0) + attributes(mode)


def dirent(name: bytes, following: int = 1, length: int | None = None) -> bytes:
    size = len(name) if length is None else length
    return struct.pack("<2Q2I", 3, following, size, 8) + name + bytes(-(24 + len(name)) % 8)


def test_attributes() -> None:
    found = answers.attributes(attributes())
    assert (found.ino, found.size, found.mode, found.uid, found.gid) == (9, 3, 0o100644, 10, 11)
    assert (found.atime_ns, found.mtime_ns, found.ctime_ns) == (
        1_000_000_004,
        2_000_000_005,
        3_000_000_006,
    )
    assert found.status().st_mtime_ns == 2_000_000_005


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: answers.attributes(attributes(mode=0o644)),
        lambda: answers.attributes(attributes(mode=0o170644)),
        lambda: answers.attributes(attributes(mode=0o100644 | 1 << 20)),
        lambda: answers.attributes(attributes(size=1 << 63)),
        lambda: answers.attributes(attributes(mtime_ns=1_000_000_000)),
        lambda: answers.attributes(attributes()[:-1]),
        lambda: answers.attr_out(b"short"),
        lambda: answers.entry(entry()[:-1]),
        lambda: answers.entry(b""),
        lambda: answers.made(bytes(128)),
        lambda: answers.created(entry()),
        lambda: answers.created(bytes(144)),
        lambda: answers.opened(bytes(15)),
        lambda: answers.written(struct.pack("<II", 11, 0), 10),
        lambda: answers.written(b"", 10),
        lambda: answers.number(b"1"),
        lambda: answers.size_of_xattr(struct.pack("<II", 1 << 20, 0)),
        lambda: answers.xattr_names(b"user.x"),
        lambda: answers.link_target(b""),
        lambda: answers.link_target(b"a\0b"),
        lambda: answers.link_target(b"a" * 4096),
        lambda: answers.statfs(b""),
        lambda: answers.init_out(bytes(64)),
        lambda: answers.init_out(fuse.INIT_OUT.pack(7, 30, 0, 0, 0, 0, 4096, 0, 0, 0, 0, 0)),
        lambda: answers.init_out(fuse.INIT_OUT.pack(8, 45, 0, 0, 0, 0, 4096, 0, 0, 0, 0, 0)),
        lambda: answers.init_out(fuse.INIT_OUT.pack(7, 45, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0)),
        lambda: answers.begun(bytes(24)),
        lambda: answers.begun(fsnotify.BEGIN_OUT.pack(2, 1, 0, 0, 1)),
        lambda: answers.marked(bytes(15)),
        lambda: list(answers.dirents(dirent(b"a/b"), plus=False)),
        lambda: list(answers.dirents(dirent(b"a\0b"), plus=False)),
        lambda: list(answers.dirents(dirent(b""), plus=False)),
        lambda: list(answers.dirents(dirent(b"n" * 256), plus=False)),
        lambda: list(answers.dirents(dirent(b"name", length=0xFFFFFFFF), plus=False)),
        lambda: list(answers.dirents(dirent(b"name", length=20), plus=False)),
        lambda: list(answers.dirents(dirent(b"name")[:20], plus=False)),
        lambda: list(answers.dirents(entry()[:-1], plus=True)),
    ],
)
def test_wrong_answers(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ProtocolError):
        wrong()


def test_dirents() -> None:
    data = dirent(b".") + dirent(b"name", 2)
    assert [each.name for each in answers.dirents(data, plus=False)] == [b".", b"name"]
    data = bytes(128) + dirent(b".") + entry() + dirent(b"name", 2)
    first, second = answers.dirents(data, plus=True)
    assert first.entry is None
    assert second.entry is not None
    assert second.entry.node == 5
