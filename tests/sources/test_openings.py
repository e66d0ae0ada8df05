"""Opens and closes of a file system, from a real fanotify group."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.events import Key, Record
from farwatch.linux import mounts
from farwatch.linux.handles import fsid, name_to_handle
from farwatch.sources.openings import CLOSED, OPENED, Openings

pytestmark = pytest.mark.root


@contextmanager
def listening() -> Iterator[tuple[Openings, Path, Path]]:
    """A directory, and a bind mount of it of which nothing is told."""
    with tempfile.TemporaryDirectory(prefix="farwatch-test-", dir="/tmp") as name:
        seen, silent = Path(name, "seen"), Path(name, "silent")
        seen.mkdir()
        silent.mkdir()
        subprocess.run(["mount", "--bind", str(seen), str(silent)], check=True)
        fd = os.open(silent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with Openings(fd) as openings:
                yield openings, seen, silent
        finally:
            os.close(fd)
            mounts.umount(bytes(silent), mounts.MNT_DETACH)


def key_of(path: Path) -> Key:
    fd = os.open(path, os.O_PATH)
    try:
        return fsid(fd) + name_to_handle(fd, b"", empty_path=True)[0]
    finally:
        os.close(fd)


def of(path: Path, records: list[Record]) -> list[tuple[int, int]]:
    """Kinds and processes of the records about a file; others use the file system, too."""
    key = key_of(path)
    return [(record.mask, record.thread) for record in records if record.node == key]


def test_opens_and_closes() -> None:
    with listening() as (openings, seen, _):
        path, me = seen / "file", os.getpid()
        with path.open("w"):
            assert of(path, openings.read()) == [(OPENED, me)]
        assert [mask & ~CLOSED for mask, _ in of(path, openings.read())] == [0]
        path.read_bytes()
        ((mask, _),) = of(path, openings.read())
        assert mask & OPENED
        assert mask & CLOSED
        assert openings.read() is not None


def test_nothing_of_directories_and_of_what_is_silent() -> None:
    with listening() as (openings, seen, silent):
        (seen / "file").write_text("x")
        openings.read()
        (silent / "file").read_text()
        os.listdir(seen)
        records = openings.read()
        assert of(seen / "file", records) == []
        assert of(seen, records) == []
