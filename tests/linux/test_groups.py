"""The owners of fanotify and inotify descriptors, and the C library below."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farwatch.abi import inotify as layout
from farwatch.events import Mask
from farwatch.linux import fanotify as fan
from farwatch.linux import libc
from farwatch.linux.inotify import IN_MASK_CREATE, Inotify
from tests.linux import areas


def group() -> fan.Group:
    return fan.Group(fan.FAN_CLASS_NOTIF | fan.FAN_REPORT_FID | fan.FAN_NONBLOCK | fan.FAN_CLOEXEC)


@pytest.mark.root
@pytest.mark.parametrize("make", [group, Inotify])
def test_owns_its_descriptor(make: Callable[[], fan.Group | Inotify]) -> None:
    with make() as owner:
        fd = owner.fileno()
        assert not os.get_inheritable(fd)
        with pytest.raises(BlockingIOError):
            owner.read(bytearray(4096))
    owner.close()
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EBADF):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        owner.fileno()


@pytest.mark.root
def test_fanotify_errors() -> None:
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
        fan.Group(1 << 31)
    with group() as owner, pytest.raises(FileNotFoundError) as caught:
        owner.mark(fan.FAN_MARK_ADD, fan.FAN_OPEN, path=b"/nowhere/at/all")
    assert caught.value.filename == b"/nowhere/at/all"


@pytest.mark.root
def test_an_o_path_descriptor_is_marked_by_name(tmp_path: Path) -> None:
    with group() as owner, areas.opened(tmp_path, os.O_PATH) as fd:
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EBADF):
            owner.mark(fan.FAN_MARK_ADD, fan.FAN_CREATE, fd)
        owner.mark(fan.FAN_MARK_ADD, fan.FAN_CREATE, fd, b".")
        (tmp_path / "a").touch()
        assert owner.read(bytearray(4096)) > 0


def test_inotify_watches(tmp_path: Path) -> None:
    with Inotify() as inotify, areas.opened(tmp_path, os.O_PATH) as fd:
        watch = inotify.add_fd(fd, Mask.CREATE)
        assert inotify.add(str(tmp_path), Mask.CREATE) == watch
        with pytest.raises(FileExistsError) as caught:
            inotify.add(tmp_path, Mask.CREATE | IN_MASK_CREATE)
        assert caught.value.filename == bytes(tmp_path)
        inotify.remove(watch)
        buffer = bytearray(4096)
        size = inotify.read(buffer)
        assert layout.parse(bytes(buffer[:size])) == [(watch, Mask.IGNORED, 0, b"")]
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            inotify.remove(watch)


def test_declare_makes_functions_of_their_own() -> None:
    one = libc.declare("getpid")
    two = libc.declare("getpid", result=ctypes.c_short, checked=False)
    assert one is not two
    assert one() == os.getpid()


def test_raw_system_calls() -> None:
    assert libc.syscall(39, 172)() == os.getpid()
    with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOSYS):
        libc.syscall(-1, -1)()
