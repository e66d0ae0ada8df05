"""Passthrough registration, on a connection of our own to the kernel's FUSE."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.export.backing import BACKING_CLOSE, BackingFiles
from farwatch.linux.files import ioctl
from farwatch.linux.mounts import MNT_DETACH, mount, umount
from tests.export.exporting import ROOT, Stage

pytestmark = pytest.mark.root

FUSE_INIT = 26
INIT_EXT = 1 << 30
PASSTHROUGH = 1 << (37 - 32)
# struct fuse_init_out of linux/fuse.h 7.40
INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")


def _answer_init(fuse_fd: int) -> None:
    request = os.read(fuse_fd, 1 << 17)
    _, opcode, unique = struct.unpack_from("=IIQ", request)
    assert opcode == FUSE_INIT
    body = INIT_OUT.pack(7, 40, 0, INIT_EXT, 0, 0, 4096, 1, 0, 0, PASSTHROUGH, 1)
    os.write(fuse_fd, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)


@pytest.fixture
def fuse_fd(tmp_path: Path) -> Iterator[int]:
    mountpoint = tmp_path / "fuse"
    mountpoint.mkdir()
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
        mount(b"farwatch-test", os.fsencode(mountpoint), b"fuse.farwatch-test", 0, options)
        try:
            _answer_init(fd)
            yield fd
        finally:
            umount(os.fsencode(mountpoint), MNT_DETACH)
    finally:
        os.close(fd)


def _is_registered(fuse_fd: int, backing_id: int) -> bool:
    """Asked by closing it: so only once."""
    try:
        ioctl(fuse_fd, BACKING_CLOSE, bytearray(struct.pack("=I", backing_id)))
    except OSError as error:
        assert error.errno == errno.ENOENT  # noqa: PT017
        return False
    return True


def test_opens_of_a_node_share_an_id(stage: Stage, fuse_fd: int) -> None:
    export, root = stage.export, stage.export.root_key
    first, _, fd = export.create(root, b"first", 0o600, os.O_RDWR, ROOT)
    second, _, other_fd = export.create(root, b"second", 0o600, os.O_RDWR, ROOT)
    try:
        with BackingFiles(fuse_fd) as backing:
            backing_id = backing.acquire(first, fd)
            assert backing_id > 0
            assert backing.acquire(first, -1) == backing_id
            other = backing.acquire(second, other_fd)
            assert other != backing_id
            backing.release(first)
            assert first in backing
            backing.release(first)
            assert first not in backing
            assert not _is_registered(fuse_fd, backing_id)
            with pytest.raises(KeyError):
                backing.release(first)
        assert not _is_registered(fuse_fd, other)
    finally:
        os.close(fd)
        os.close(other_fd)


def test_a_refusal_is_not_remembered(stage: Stage, fuse_fd: int) -> None:
    with BackingFiles(fuse_fd) as backing:
        with pytest.raises(OSError, match="Bad file descriptor"):
            backing.acquire(stage.export.root_key, -1)
        assert stage.export.root_key not in backing
