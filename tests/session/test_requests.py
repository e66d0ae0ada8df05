"""Requests as a real kernel made them, answered by a session (tests/abi/golden/record.py)."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from farwatch.session.session import Session
from tests.abi.golden.record import perform, prepare, record
from tests.session.kernel import (
    FLAGS2_6_18,
    FLAGS_6_18,
    checked,
    in_session,
    settings,
)
from tests.session.memory import MemoryDisk

RECORDING = Path(__file__).parents[1] / "abi" / "golden" / "requests-6.18.txt"


def recorded() -> list[tuple[str, bytes]]:
    lines = RECORDING.read_text().splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    return [(name, bytes.fromhex(data)) for name, data in words]


def replay(requests: Iterable[bytes]) -> tuple[list[int | None], MemoryDisk]:
    """The errnos of a session's answers, and the disk afterwards."""
    disk = MemoryDisk()
    prepare(disk)
    session = Session(in_session(disk), settings(), disk, lambda thread, key: None)
    errors: list[int | None] = []
    for data in requests:
        reply = session.receive(memoryview(data))
        unique = struct.unpack_from("<Q", data, 8)[0]
        errors.append(None if reply is None else checked(reply, unique)[0])
    session.close()
    return errors, disk


def assert_performed(disk: MemoryDisk) -> None:
    """The disk is as ``perform`` leaves one."""
    paths = dict(disk.walk())
    assert set(paths) == {
        "created", "device", "directory", "directory/file", "link", "other", "symlink",
    }  # fmt: skip
    other = paths["other"]
    assert other.content() == b"writ" + bytes(5)
    assert (other.mode, other.uid, other.gid) == (stat.S_IFREG | 0o600, 12, 34)
    assert (other.nlink, other.xattrs) == (1, {})
    assert other.times[:2] == [1_500_000_000, 2_500_000_000]
    assert paths["created"].content() == b"o"
    assert paths["symlink"].target == b"created"
    assert paths["device"].rdev == os.makedev(7, 300)
    assert paths["device"].mode == stat.S_IFCHR | 0o644
    assert disk.open_directories == 0


def test_the_init_of_this_kernel_is_what_other_tests_send() -> None:
    name, data = recorded()[0]
    assert name == "INIT"
    major, minor, _, flags, flags2 = struct.unpack_from("<5I", data, 40)
    assert (major, minor, flags, flags2) == (7, 45, FLAGS_6_18, FLAGS2_6_18)


def test_a_recording_is_answered_as_it_was() -> None:
    requests = recorded()
    errors, disk = replay(data for _, data in requests)
    with disk:
        for (name, data), error in zip(requests, errors, strict=True):
            if name in ("FORGET", "BATCH_FORGET"):
                assert error is None
            elif name == "GETXATTR" and b"security.capability" in data:
                assert error == errno.ENODATA
            elif name == "LOOKUP" and data[40:-1] not in (b"directory", b"file", b"link", b"other"):
                assert error == errno.ENOENT
            elif name != "FALLOCATE":
                assert error == 0, name
        assert_performed(disk)


def test_nothing_is_known_to_a_kernel_that_did_not_say_init() -> None:
    errors, disk = replay(data for name, data in recorded() if name != "INIT")
    with disk:
        assert set(errors) <= {errno.EIO, None}
        assert disk.journal == []


@pytest.mark.root
def test_this_machine_s_kernel_with_a_disk_in_memory() -> None:
    requests = record(perform)
    errors, disk = replay(requests)
    with disk:
        assert_performed(disk)
    assert errors.count(0) > 40
