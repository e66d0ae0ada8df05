"""How a server is told of mounts."""

from __future__ import annotations

import os

import pytest

from farwatch.serving.submounts import Arrived, Gone, hear, pair, tell
from tests.export.exporting import open_descriptors


def test_what_is_told_is_heard() -> None:
    mine, theirs = pair()
    path = b"a/" + b"\xff\n" * 100
    before = open_descriptors()
    with mine, theirs:
        fd = os.open("/", os.O_PATH)
        tell(mine, Arrived(path, b"fuse.sshfs", 1 << 40, fd))
        tell(mine, Gone(path))
        arrived = hear(theirs)
        assert isinstance(arrived, Arrived)
        assert arrived[:3] == (path, b"fuse.sshfs", 1 << 40)
        assert os.path.samestat(os.fstat(arrived.tree), os.fstat(fd))
        assert hear(theirs) == Gone(path)
        os.close(arrived.tree)
        os.close(fd)
        assert open_descriptors() == before
        mine.close()
        assert hear(theirs) is None


def test_nobody_waits_for_a_server_that_does_not_listen() -> None:
    mine, theirs = pair()
    with mine, theirs:
        with pytest.raises(BlockingIOError):
            for _ in range(1 << 16):
                tell(mine, Gone(b"path"))
        assert hear(theirs) == Gone(b"path")
        tell(mine, Gone(b"path"))


def test_a_server_that_is_gone() -> None:
    mine, theirs = pair()
    theirs.close()
    with mine, pytest.raises(ConnectionError):
        tell(mine, Gone(b"path"))
