"""Trees a hundred deep, and deeper than any path can say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.mounting.mounted import Area
from tests.scale.ears import Ears, descend

pytestmark = pytest.mark.root

DEPTH = 100
MASK = Mask.CREATE | Mask.DELETE | Mask.MODIFY | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF
DIR = Mask.ISDIR


def make(root: Path, names: list[bytes]) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def watch_all(ears: Ears, root: Path, names: list[bytes]) -> None:
    """Every directory from the root's child on, called by its depth."""
    for depth in range(1, len(names) + 1):
        fd = descend(root, names[:depth])
        ears.add(f"/proc/self/fd/{fd}", str(depth))
        os.close(fd)


@pytest.mark.parametrize("size", [1, 255], ids=["short names", "a path of 25,600 bytes"])
def test_every_level_is_heard(area: Area, size: int) -> None:
    names = [(b"%03d" % number).ljust(size, b"x")[:size] for number in range(DEPTH)]
    make(area.src, names)
    with area.mounted(), Ears(MASK) as ears:
        watch_all(ears, area.mnt, names)
        for depth in (1, DEPTH // 2, DEPTH):
            fd = descend(area.src, names[:depth])
            os.close(os.open(b"new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.rename(b"new", b"moved", src_dir_fd=fd, dst_dir_fd=fd)
            os.unlink(b"moved", dir_fd=fd)
            os.close(fd)
            told = [(Mask.CREATE, b"new"), (Mask.MOVED_TO, b"moved"), (Mask.DELETE, b"moved")]
            ears.hear((kind, str(depth), name) for kind, name in told)


def test_the_top_is_renamed_and_the_bottom_still_heard(area: Area) -> None:
    names = [b"d%d" % number for number in range(DEPTH)]
    make(area.src, names)
    with area.mounted(), Ears(MASK) as ears:
        watch_all(ears, area.mnt, names)
        ears.add(area.mnt, "0")
        os.rename(area.src / "d0", area.src / "other")
        ears.hear([(Mask.MOVED_FROM | DIR, "0", b"d0"), (Mask.MOVED_TO | DIR, "0", b"other")])
        bottom = descend(area.src / "other", names[1:])
        os.close(os.open(b"deep", os.O_CREAT | os.O_WRONLY, dir_fd=bottom))
        ears.hear([(Mask.CREATE, str(DEPTH), b"deep")])
        os.close(bottom)
        through = descend(area.mnt / "other", names[1:])
        assert os.listdir(through) == ["deep"]
        os.close(through)


def test_a_tree_is_made_and_removed_while_watched_level_by_level(area: Area) -> None:
    """As a recursive watcher does it: a watch for each directory that is heard of."""
    names = [b"d%d" % number for number in range(DEPTH)]
    with area.mounted(), Ears(MASK) as ears:
        ears.add(area.mnt, "0")
        fds = [os.open(area.src, os.O_RDONLY | os.O_DIRECTORY)]
        for depth, name in enumerate(names):
            os.mkdir(name, dir_fd=fds[-1])
            ears.hear([(Mask.CREATE | DIR, str(depth), name)])
            inner = descend(area.mnt, names[: depth + 1])
            ears.add(f"/proc/self/fd/{inner}", str(depth + 1))
            os.close(inner)
            fds.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
        for depth in range(DEPTH - 1, -1, -1):
            os.close(fds.pop())
            os.rmdir(names[depth], dir_fd=fds[-1])
        os.close(fds.pop())
        ears.hear((Mask.DELETE_SELF, str(depth), b"") for depth in range(1, DEPTH + 1))
        ears.hear((Mask.DELETE | DIR, str(depth), name) for depth, name in enumerate(names))
        assert os.listdir(area.mnt) == []
