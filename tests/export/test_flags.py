"""Who may set inode flags, where the client's kernel has not asked (Linux before 5.13)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.export import flags

pytestmark = pytest.mark.root

NODUMP, IMMUTABLE = 0x40, 0x10
XNODUMP, XIMMUTABLE = 0x80, 0x08
OWNER = 1234


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield fd
    flags.pass_on(fd, flags.SETFLAGS, struct.pack("=I", 0x80000), 0)
    os.close(fd)


def current(fd: int) -> int:
    return int(struct.unpack("=I", flags.pass_on(fd, flags.GETFLAGS, b"", OWNER))[0])


def put(fd: int, value: int, uid: int, command: int = flags.SETFLAGS) -> None:
    given = struct.pack("=I", value)
    flags.pass_on(fd, command, given if command == flags.SETFLAGS else given + bytes(24), uid)


@pytest.mark.parametrize(
    ("command", "harmless", "locked"),
    [(flags.SETFLAGS, NODUMP, IMMUTABLE), (flags.FSSETXATTR, XNODUMP, XIMMUTABLE)],
)
def test_owner_root_and_others(file: int, command: int, harmless: int, locked: int) -> None:
    before = current(file) if command == flags.SETFLAGS else 0
    with pytest.raises(PermissionError):
        put(file, before | harmless, OWNER, command)
    os.fchown(file, OWNER, OWNER)
    put(file, before | harmless, OWNER, command)
    assert current(file) & NODUMP
    with pytest.raises(PermissionError):
        put(file, before | locked, OWNER, command)
    put(file, before | locked, 0, command)
    assert current(file) & IMMUTABLE
    with pytest.raises(PermissionError):
        put(file, before, OWNER, command)
    put(file, before, 0, command)
    assert not current(file) & IMMUTABLE


@pytest.mark.parametrize("command", sorted(flags.SETTING))
def test_too_little(file: int, command: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        flags.pass_on(file, command, b"\0\0", 0)


def test_nothing_more_is_given_back_than_there_is(file: int) -> None:
    """lsattr(1) has room for an int, whatever the command's number says."""
    assert len(flags.pass_on(file, flags.GETFLAGS, b"", 0)) == 4
    assert len(flags.pass_on(file, flags.GETVERSION, bytes(8), 0)) == 4
    assert len(flags.pass_on(file, flags.FSGETXATTR, b"", 0)) == 28
