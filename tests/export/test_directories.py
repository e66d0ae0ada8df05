"""Listing directories, from any of their positions."""

from __future__ import annotations

import os
import stat

import pytest

from farwatch.export.tree import Directory, DirEntry
from tests.export.exporting import ROOT, Stage, open_descriptors

pytestmark = pytest.mark.root

COUNT = 250


def _all(directory: Directory, size: int, offset: int = 0) -> list[DirEntry]:
    entries: list[DirEntry] = []
    while found := directory.read(offset, size):
        entries += found
        offset = found[-1].next_offset
    return entries


@pytest.fixture
def many(stage: Stage) -> Stage:
    for number in range(COUNT):
        (stage.source / f"{number}{'n' * (number % 240)}").touch()
    os.mkfifo(stage.source / "fifo")
    (stage.source / "directory").mkdir()
    return stage


@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
def test_everything_is_listed_once(many: Stage, size: int) -> None:
    with many.export.opendir(many.export.root_key) as directory:
        entries = _all(directory, size)
    names = [entry.name for entry in entries]
    assert sorted(names) == sorted([b".", b"..", *os.listdir(os.fsencode(many.source))])
    for entry in entries:
        if entry.name != b"..":
            status = os.lstat(os.fsencode(many.source) + b"/" + entry.name)
            assert (entry.ino, entry.type) == (status.st_ino, stat.S_IFMT(status.st_mode) >> 12)


def test_every_position_can_be_gone_back_to(many: Stage) -> None:
    with many.export.opendir(many.export.root_key) as directory:
        entries = _all(directory, 4096)
        for index in range(0, len(entries), 37):
            rest = _all(directory, 4096, entries[index].next_offset)
            assert [entry.name for entry in rest] == [e.name for e in entries[index + 1 :]]


def test_from_the_start_again_new_names_show(stage: Stage) -> None:
    with stage.export.opendir(stage.export.root_key) as directory:
        assert len(_all(directory, 4096)) == 2
        stage.export.mkdir(stage.export.root_key, b"new", 0o700, ROOT)
        assert len(_all(directory, 4096)) == 3
        assert len(directory.read(0, 4096)) == 3
        stage.export.fsyncdir(directory, False)
        directory.sync(True)


@pytest.mark.parametrize("offset", [1, 77, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -1])
def test_positions_that_were_never_told(many: Stage, offset: int) -> None:
    with many.export.opendir(many.export.root_key) as directory:
        # ext4 shows nothing from 0 on if the very first position was its last one.
        directory.read(0, 4096)
        try:
            found = directory.read(offset, 4096)
        except OSError:
            found = []
        assert {entry.name for entry in found} <= {
            b".", b"..", *os.listdir(os.fsencode(many.source))
        }  # fmt: skip
        assert len(_all(directory, 4096)) == COUNT + 4


def test_only_directories_are_listed(stage: Stage) -> None:
    os.mkfifo(stage.source / "fifo")
    (stage.source / "link").symlink_to(stage.outside)
    before = open_descriptors()
    for name in (b"fifo", b"link"):
        key, _ = stage.export.lookup(stage.export.root_key, name)
        with pytest.raises(NotADirectoryError):
            stage.export.opendir(key)
    directory = stage.export.opendir(stage.export.root_key)
    directory.close()
    directory.close()
    assert open_descriptors() == before
