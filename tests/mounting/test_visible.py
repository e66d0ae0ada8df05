"""Which mounts a walk below a directory comes upon, by mountinfo."""

from __future__ import annotations

from farwatch.linux.mounts import MountInfo
from farwatch.mounting.submounts import visible

BASE = 1


def mount(mount_id: int, parent: int, point: str) -> MountInfo:
    return MountInfo(mount_id, parent, 0, b"/", point.encode(), b"rw", (), b"ext4", b"", b"rw")


def seen(*mounts: MountInfo, source: str = "/src") -> dict[str, int]:
    everything = [mount(BASE, 0, "/"), *mounts]
    found = visible(source.encode(), BASE, everything)
    return {path.decode(): each.mount_id for path, each in found.items()}


def test_only_what_is_below() -> None:
    assert seen(
        mount(2, 1, "/src/a"), mount(3, 1, "/src"), mount(4, 1, "/srcs/b"), mount(5, 2, "/src/a/b")
    ) == {"a": 2, "a/b": 5}
    assert seen(mount(2, 1, "/a"), source="/") == {"a": 2}


def test_the_topmost_of_a_stack() -> None:
    assert seen(mount(2, 1, "/src/a"), mount(3, 2, "/src/a"), mount(4, 3, "/src/a")) == {"a": 4}


def test_what_lies_under_another_mount_is_not_seen() -> None:
    inner, over = mount(2, 1, "/src/a/b/c"), mount(3, 1, "/src/a")
    assert seen(inner) == {"a/b/c": 2}
    assert seen(inner, over) == {"a": 3}
    assert seen(inner, over, mount(4, 3, "/src/a/b/c")) == {"a": 3, "a/b/c": 4}


def test_what_is_mounted_over_the_lower_one_of_a_stack() -> None:
    assert seen(mount(2, 1, "/src/a"), mount(3, 2, "/src/a/b"), mount(4, 2, "/src/a")) == {"a": 4}


def test_a_mount_over_the_directory_itself_hides_what_comes_later() -> None:
    assert seen(mount(2, 1, "/src/a"), mount(3, 1, "/src"), mount(4, 3, "/src/b")) == {"a": 2}
