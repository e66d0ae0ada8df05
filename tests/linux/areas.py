"""Where the tests of system calls work: file systems and processes of their own.

Each is removed when its ``with`` ends, also after a failure.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farwatch.linux import mounts

IMAGE_SIZES = {"ext4": 16 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory on the disk's file system."""
    path = Path(tempfile.mkdtemp(prefix="farwatch-linux-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def mounted(source: str, fstype: str, data: str = "", flags: int = 0) -> Iterator[Path]:
    """A new mount, on a directory of its own."""
    with directory() as base:
        point = base / "mnt"
        point.mkdir()
        mounts.mount(source.encode(), bytes(point), fstype.encode(), flags, data.encode() or None)
        try:
            yield point
        finally:
            mounts.umount(bytes(point), mounts.MNT_DETACH)


def tmpfs() -> contextlib.AbstractContextManager[Path]:
    return mounted("farwatch-test", "tmpfs")


@contextlib.contextmanager
def image(fstype: str, size: int = 0) -> Iterator[Path]:
    """A new file system in a file, mounted through a loop device; of ``size`` bytes if more."""
    maker = shutil.which(f"mkfs.{fstype}")
    if maker is None:
        pytest.skip(f"no mkfs.{fstype} here")
    with directory() as base:
        file, point = base / "image", base / "mnt"
        point.mkdir()
        with file.open("wb") as stream:
            stream.truncate(max(size, IMAGE_SIZES[fstype]))
        subprocess.run([maker, "-q", file], check=True, capture_output=True)
        result = subprocess.run(
            ["mount", "-t", fstype, "-o", "loop", file, point],
            check=False,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            pytest.skip(f"{fstype} cannot be mounted here: {result.stderr.strip()}")
        try:
            yield point
        finally:
            mounts.umount(bytes(point), mounts.MNT_DETACH)


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor for the block."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def reaped(pid: int) -> Iterator[None]:
    """Wait for a child at the end of the block; after a failure kill it before."""
    try:
        yield
    except BaseException:
        os.kill(pid, 9)
        raise
    finally:
        os.waitpid(pid, 0)


def in_child(function: Callable[[], Any]) -> Any:
    """What the function returns in a forked child; AssertionError if it raised there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer = (True, function())
        except BaseException:  # noqa: BLE001 - reported to the parent
            answer = (False, traceback.format_exc())
        with open(writer, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with reaped(pid), open(reader, "rb") as stream:
        good, value = pickle.load(stream)
    if not good:
        raise AssertionError(value)
    return value
