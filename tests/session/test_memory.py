"""The disk in memory is what a session takes for an export."""

from __future__ import annotations

import errno
import os

import pytest

from farwatch.export.tree import Export
from tests.session.memory import MemoryDisk, Tree


def test_both_disks_are_trees() -> None:
    """Checked by mypy: neither may lack a method, or want other arguments."""
    kinds: list[type[Tree]] = [MemoryDisk, Export]
    assert len(kinds) == 2


def test_link_counts(disk: MemoryDisk) -> None:
    disk.do_mkdir("d")
    disk.do_mkdir("d/e")
    disk.do_file("d/f")
    disk.do_link("d/f", "g")
    assert (disk.root.nlink, disk.at("d").nlink, disk.at("g").nlink) == (3, 3, 2)
    disk.do_rename("d/e", "e")
    assert (disk.root.nlink, disk.at("d").nlink) == (4, 2)
    inode = disk.do_remove("g")
    assert inode.nlink == 1


def test_an_inode_without_a_name_lives_until_it_is_closed(disk: MemoryDisk) -> None:
    disk.do_file("f", b"x")
    key = disk.at("f").key
    inode = disk.do_remove("f")
    assert disk.getattr(key).st_nlink == 0
    disk.do_close(inode)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        disk.getattr(key)


def test_an_exchange_moves_directories_links(disk: MemoryDisk) -> None:
    disk.do_mkdir("a")
    disk.do_mkdir("a/d")
    disk.do_file("f")
    disk.do_rename("a/d", "f", 2)
    assert disk.at("f").is_dir
    assert (disk.root.nlink, disk.at("a").nlink) == (4, 2)


def test_content_is_behind_real_descriptors(disk: MemoryDisk) -> None:
    disk.do_file("f", b"abc")
    fd = disk.open(disk.at("f").key, os.O_RDWR)
    try:
        assert disk.write_from(fd, [memoryview(b"X")], 1) == 1
        assert disk.getattr_open(fd).st_size == 3
    finally:
        os.close(fd)
    assert disk.at("f").content() == b"aXc"
