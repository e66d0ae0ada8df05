"""Parts of the agent that need no mount: handles, kept descriptors."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.agent import marks
from farwatch.agent.channel import Channel
from farwatch.agent.endings import NotServed
from farwatch.agent.kept import Kept
from farwatch.linux.fdinfo import decode_fuse


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF))
def test_a_handle_is_what_fdinfo_shows(node: int, generation: int) -> None:
    packed = marks._HANDLE.pack(12, marks._HANDLE_TYPE, node >> 32, node & 0xFFFFFFFF, generation)
    assert decode_fuse(packed) == (node, generation)


def test_a_handle_of_a_real_kernel() -> None:
    # proc_pid_fdinfo(5) of an inotify watch on a FUSE directory, Linux 6.18:
    # fhandle-bytes:c fhandle-type:81 f_handle:000000000200000000000000
    data = struct.pack("<Ii", 0xC, 0x81) + bytes.fromhex("000000000200000000000000")
    assert decode_fuse(data) == (2, 0)


def descriptor() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_kept_is_closed_once() -> None:
    kept = Kept()
    first, second, third = descriptor(), descriptor(), descriptor()
    kept.put(1, first)
    kept.put(2, second)
    kept.put(1, third)
    assert [is_open(fd) for fd in (first, second, third)] == [False, True, True]
    assert kept.get(1) == third
    kept.drop(2)
    assert not is_open(second)
    for act in (kept.get, kept.drop):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            act(2)
    kept.close()
    assert not is_open(third)
    kept.close()


def test_a_directory_of_another_file_system_is_not_served(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NotServed, match="its server is not farwatch"):
            Channel(fd).hello()
    finally:
        os.close(fd)
