"""Somebody keeps replacing a name: what is answered belongs to one inode all the same."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from farwatch.events import Key
from tests.export.exporting import ROOT, Stage, open_descriptors

pytestmark = pytest.mark.root

LOOKS = 3000
ENOUGH = 200
SECONDS = 60


@contextmanager
def repeating(action: Callable[[], None]) -> Iterator[None]:
    """Do ``action`` again and again in another thread, at least once at first."""
    started, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                action()
                started.set()
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []


def test_key_and_attributes_are_of_one_inode(stage: Stage) -> None:
    keys: dict[int, Key] = {}
    for name in ("first", "second"):
        (stage.source / name).write_bytes(b"")
        key, status = stage.export.lookup(stage.export.root_key, name.encode())
        keys[status.st_ino] = key
    seen: set[Key] = set()

    def replace() -> None:
        for name in ("first", "second"):
            (stage.source / "new").hardlink_to(stage.source / name)
            (stage.source / "new").rename(stage.source / "name")
            (stage.source / "new").unlink(missing_ok=True)

    looks = 0
    end = time.monotonic() + SECONDS
    with repeating(replace):
        while looks < LOOKS or len(seen) < len(keys):
            assert time.monotonic() < end
            looks += 1
            key, status = stage.export.lookup(stage.export.root_key, b"name")
            assert keys[status.st_ino] == key
            seen.add(key)
            assert stage.export.node_at(stage.export.root_key, b"name") in keys.values()
    assert seen == set(keys.values())


@pytest.mark.parametrize("directories", [False, True])
def test_also_while_inodes_are_made_and_freed(stage: Stage, directories: bool) -> None:
    """Inode numbers come back at once here, and only the handle's generation differs."""
    name = stage.source / "name"

    def replace() -> None:
        name.touch()
        name.unlink()
        if directories:
            name.mkdir()
            name.rmdir()

    found = looks = 0
    end = time.monotonic() + SECONDS
    with repeating(replace):
        while looks < 4 * LOOKS or found < ENOUGH:
            assert time.monotonic() < end
            looks += 1
            try:
                key, status = stage.export.lookup(stage.export.root_key, b"name")
                now = stage.export.getattr(key)
            except FileNotFoundError:
                continue
            except OSError as error:
                assert error.errno == errno.ESTALE  # noqa: PT017
                continue
            found += 1
            assert (now.st_ino, stat.S_IFMT(now.st_mode)) == (
                status.st_ino,
                stat.S_IFMT(status.st_mode),
            )


def test_nothing_but_files_is_opened_when_raced(stage: Stage) -> None:
    """Without O_EXCL a FIFO, a device or a link that slips in is not opened."""
    name, new = stage.source / "name", stage.source / "new"
    secret = stage.outside / "secret"
    secret.write_bytes(b"secret")
    makers: list[Callable[[], None]] = [
        new.touch,
        lambda: os.mkfifo(new),
        lambda: new.symlink_to(secret),
    ]

    def replace() -> None:
        # In any order: or the two threads may fall into step.
        for make in random.sample(makers, len(makers)):
            make()
            new.rename(name)
        name.unlink()

    before = open_descriptors()
    opened = refused = 0
    end = time.monotonic() + SECONDS
    with repeating(replace):
        while opened < ENOUGH or refused < ENOUGH:
            assert time.monotonic() < end
            try:
                _, status, fd = stage.export.create(
                    stage.export.root_key, b"name", 0o600, os.O_WRONLY | os.O_TRUNC, ROOT
                )
            except OSError as error:
                assert error.errno == errno.ESTALE  # noqa: PT017
                refused += 1
                continue
            try:
                assert stat.S_ISREG(os.fstat(fd).st_mode)
                assert os.fstat(fd).st_ino == status.st_ino
                opened += 1
            finally:
                os.close(fd)
    assert secret.read_bytes() == b"secret"
    assert open_descriptors() == before
