"""A directory on each kind of file system that people share, made for the test.

with place("xfs") as directory: ...
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount
from tests.linux import areas

KINDS = ("ext4", "xfs", "btrfs", "subvolume", "subvolume-below", "tmpfs", "overlayfs", "bind")
"""``subvolume`` is a mount of a btrfs subvolume, ``subvolume-below`` one that is reached
through a mount of the top; ``bind`` is a bind mount of a directory that is not a top."""
_ROOM = 256 << 20
"""Bytes, which a file system has at least: for all cases of a kind, one after another."""
OVERLAY_OPTIONS = "index=on,nfs_export=on"


@contextmanager
def place(kind: str) -> Iterator[Path]:
    """A directory on a new file system of this kind."""
    if kind in ("ext4", "xfs", "btrfs"):
        with areas.image(kind, _ROOM) as path:
            yield path
    elif kind in ("subvolume", "subvolume-below"):
        with areas.image("btrfs", _ROOM) as top:
            subvolume(top / "sub")
            if kind == "subvolume":
                with bound(top / "sub") as path:
                    yield path
            else:
                yield top / "sub"
    elif kind == "tmpfs":
        with areas.tmpfs() as path:
            yield path
    elif kind == "overlayfs":
        with overlay(OVERLAY_OPTIONS) as path:
            yield path
    else:
        with areas.directory() as directory:
            (directory / "part").mkdir()
            with bound(directory / "part") as path:
                yield path


def subvolume(path: Path) -> None:
    """A new subvolume of btrfs."""
    subprocess.run(["btrfs", "subvolume", "create", path], check=True, capture_output=True)


@contextmanager
def bound(source: Path) -> Iterator[Path]:
    """A bind mount, at a directory of its own: of a subvolume, it is as one mounted by name."""
    with areas.directory() as base:
        point = base / "point"
        point.mkdir()
        mount(bytes(source), bytes(point), None, MS_BIND)
        try:
            yield point
        finally:
            umount(bytes(point), MNT_DETACH)


@contextmanager
def overlay(options: str) -> Iterator[Path]:
    """An overlay with an upper and a lower directory, both empty."""
    with areas.tmpfs() as base:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        data = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,{options}"
        with areas.mounted("farwatch-test", "overlay", data) as path:
            yield path
