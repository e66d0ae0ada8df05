"""Mounts and mountinfo."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from farwatch.linux import mounts
from farwatch.linux.files import AT_FDCWD
from farwatch.linux.mounts import MountInfo
from tests.linux import areas


def test_parses_mountinfo() -> None:
    text = (
        b"22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n"
        b"45 22 0:39 /a\\040b /mnt/c\\134d\\012e rw - fuse.farwatch /s\\040rc rw,user_id=0\n"
        b"46 22 0:40 / /mnt/- rw - tmpfs  rw\n"
    )
    assert mounts.parse_mountinfo(text) == [
        MountInfo(
            22,
            1,
            os.makedev(254, 0),
            b"/",
            b"/",
            b"rw,relatime",
            (b"shared:1", b"master:2"),
            b"ext4",
            b"/dev/vda",
            b"rw,discard",
        ),
        MountInfo(
            45,
            22,
            os.makedev(0, 39),
            b"/a b",
            b"/mnt/c\\d\ne",
            b"rw",
            (),
            b"fuse.farwatch",
            b"/s rc",
            b"rw,user_id=0",
        ),
        MountInfo(46, 22, os.makedev(0, 40), b"/", b"/mnt/-", b"rw", (), b"tmpfs", b"", b"rw"),
    ]


def here() -> dict[bytes, MountInfo]:
    text = Path("/proc/self/mountinfo").read_bytes()
    return {mount.mount_point: mount for mount in mounts.parse_mountinfo(text)}


def test_errors_name_the_target() -> None:
    with pytest.raises(OSError, check=lambda e: e.filename == b"/nowhere/at/all"):
        mounts.umount(b"/nowhere/at/all")


@pytest.mark.root
def test_mountinfo_of_a_mount_with_an_odd_name() -> None:
    with areas.directory() as base:
        point = base / "a b\n\\c"
        point.mkdir()
        mounts.mount(b"odd source", bytes(point), b"tmpfs", mounts.MS_NODEV, b"size=1m")
        try:
            mount = here()[bytes(point)]
            assert mount.source == b"odd source"
            assert mount.fstype == b"tmpfs"
            assert b"nodev" in mount.options
            assert mount.device == point.stat().st_dev
            with areas.opened(point, os.O_PATH) as fd:
                assert mounts.statx_mount_id(fd) == mount.mount_id
                assert mounts.is_mount_root(fd)
            with areas.opened(base, os.O_PATH) as fd:
                assert not mounts.is_mount_root(fd)
        finally:
            mounts.umount(bytes(point))
        assert bytes(point) not in here()


@pytest.mark.root
def test_a_detached_clone() -> None:
    with areas.tmpfs() as tree:
        (tree / "a").touch()
        before = here()
        clone = mounts.open_tree(AT_FDCWD, bytes(tree), mounts.OPEN_TREE_CLONE)
        try:
            assert os.stat("a", dir_fd=clone).st_size == 0
            assert not os.get_inheritable(clone)
            assert here() == before
            mounts.mount_setattr(clone, mounts.MOUNT_ATTR_RDONLY, 0, recursive=False)
            with pytest.raises(OSError, check=lambda e: e.errno == errno.EROFS):
                os.mkdir("b", dir_fd=clone)
            (tree / "b").mkdir()
            mounts.mount_setattr(
                clone, 0, mounts.MOUNT_ATTR_RDONLY, recursive=False, propagation=mounts.MS_PRIVATE
            )
            os.mkdir("c", dir_fd=clone)
            with areas.directory() as target:
                mounts.move_mount(clone, bytes(target))
                try:
                    assert sorted(os.listdir(target)) == ["a", "b", "c"]
                finally:
                    mounts.umount(bytes(target), mounts.MNT_DETACH)
        finally:
            os.close(clone)


@pytest.mark.root
def test_open_tree_of_a_descriptor() -> None:
    with areas.tmpfs() as tree, areas.opened(tree, os.O_PATH) as fd:
        clone = mounts.open_tree(fd, b"", mounts.OPEN_TREE_CLONE)
        try:
            assert os.fstat(clone).st_dev == tree.stat().st_dev
            assert mounts.statx_mount_id(clone) != mounts.statx_mount_id(fd)
        finally:
            os.close(clone)


@pytest.mark.root
def test_a_new_file_system_without_a_place() -> None:
    fd = mounts.fsmount(b"tmpfs", {b"source": b"x", b"mode": b"0710"}, mounts.MOUNT_ATTR_NOSUID)
    try:
        os.mkdir("a", dir_fd=fd)
        assert os.fstat(fd).st_mode & 0o7777 == 0o710
        assert os.fstatvfs(fd).f_flag & os.ST_NOSUID
    finally:
        os.close(fd)
