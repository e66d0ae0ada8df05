"""The agent has a mount of its own, without the client's mounts and without its flags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farwatch.linux import fanotify as fan
from farwatch.linux.mounts import MNT_DETACH, MS_BIND, MS_RDONLY, MS_REMOUNT, mount, umount
from tests.rules.groups import DescriptorGroup
from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene, wait_until
from tests.stage import is_mounted


def directory(src: Path) -> None:
    (src / "d").mkdir()
    (src / "d" / "x").write_text("remote")


@contextmanager
def own_mount_of_the_client(path: Path) -> Iterator[None]:
    """A tmpfs at ``path`` with a file that has the name of a remote one."""
    target = os.fsencode(path)
    mount(b"own", target, b"tmpfs", 0)
    try:
        (path / "x").write_text("the client's own")
        os.utime(path / "x", (1, 1))
        os.utime(path, (1, 1))
        yield
    finally:
        for name in ("d", "e"):
            if is_mounted(path.with_name(name)):
                umount(os.fsencode(path.with_name(name)), MNT_DETACH)


@contextmanager
def scene_of(rule: Rule) -> Iterator[Scene]:
    """Where the agent holds the client's mount, it has to be taken away from it."""
    with rule.scene(furnish=directory) as scene:
        try:
            yield scene
        finally:
            if is_mounted(scene.mnt):
                umount(os.fsencode(scene.mnt), MNT_DETACH)


@rule("works_in_the_clients_mount")
def test_a_file_that_the_client_has_mounted_on_a_remote_one(rule: Rule) -> None:
    with scene_of(rule) as scene:
        watcher = scene.watcher(below="d")
        own = scene.outside / "own"
        own.write_text("the client's own")
        os.utime(own, (1, 1))
        mount(os.fsencode(own), os.fsencode(scene.mnt / "d" / "x"), None, MS_BIND)
        try:
            (scene.src / "d" / "x").write_text("changed")
            told = watcher.told()
        finally:
            umount(os.fsencode(scene.mnt / "d" / "x"), MNT_DETACH)
        assert own.read_text() == "the client's own"
        rule.expect(
            (own.stat().st_mtime == 1, told),
            held=(True, ["below MODIFY x", "below CLOSE_WRITE x"]),
            harm=(False, []),
        )


@rule("opens_across_mounts")
def test_nor_where_somebody_listens_for_paths(rule: Rule) -> None:
    """Such a listener is served by opens and writes in the mount that the client sees."""
    with rule.scene(furnish=directory) as scene, DescriptorGroup() as group:
        own = scene.outside / "own"
        own.write_text("the client's own")
        group.mark(scene.mnt, fan.FAN_MODIFY | fan.FAN_CLOSE_WRITE, fan.FAN_MARK_MOUNT)
        watcher = scene.watcher(below="d")
        scene.wait_until_marks_are_known()
        mount(os.fsencode(own), os.fsencode(scene.mnt / "d" / "x"), None, MS_BIND)
        try:
            (scene.src / "d" / "x").write_text("changed")
            told = watcher.told()
        finally:
            umount(os.fsencode(scene.mnt / "d" / "x"), MNT_DETACH)
        rule.expect(own.read_text(), held="the client's own", harm="\0he client's own")
        if not rule.off:
            assert told == ["below MODIFY x", "below CLOSE_WRITE x"]


@rule("works_in_the_clients_mount")
def test_a_mount_of_the_clients_below_is_left_alone(rule: Rule) -> None:
    """Names in a directory that is mounted on are the remote side's, not those on top."""
    with scene_of(rule) as scene:
        watcher = scene.watcher(root=".", below="d")
        with own_mount_of_the_client(scene.mnt / "d"):
            (scene.src / "d" / "x").unlink()
            (scene.src / "d").rename(scene.src / "e")
            told = watcher.told()
            # A mount moves with the directory that it is on; by the old name the client
            # would find that there is none, and its kernel takes away what is mounted.
            now = scene.mnt / ("d" if rule.off else "e")
            is_kept = (now / "x").exists()
            if is_kept:
                assert (now / "x").read_text() == "the client's own"
                assert os.stat(now / "x").st_mtime == os.stat(now).st_mtime == 1
        before = ["below DELETE x"]
        moved = ["root MOVED_FROM d", "root MOVED_TO e", "below MOVE_SELF"]
        rule.expect((told, is_kept), held=(before + moved, True), harm=(before, False))


@rule("works_in_the_clients_mount")
def test_a_mount_that_is_read_only_for_its_users(rule: Rule) -> None:
    with scene_of(rule) as scene:
        watcher = scene.watcher(below="d")
        mount(None, os.fsencode(scene.mnt), None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        (scene.src / "d" / "new").mkdir()
        (scene.src / "d" / "x").unlink()
        if rule.off:
            wait_until(lambda: "EROFS" in scene.stage.log(), "the replay is refused")
        else:
            watcher.wait_for_line("below DELETE x")
        told = watcher.heard()
        rule.expect(told, held=["below CREATE new", "below DELETE x"], harm=[])


@rule("works_in_the_clients_mount")
def test_a_plain_umount_succeeds_at_once(rule: Rule) -> None:
    with scene_of(rule) as scene:
        watcher = scene.watcher(below="d")
        (scene.src / "d" / "x").unlink()
        watcher.told()
        busy = False
        try:
            umount(os.fsencode(scene.mnt))
        except OSError:
            busy = True
        else:
            wait_until(lambda: not scene.stage.processes(), "all have ended")
            assert watcher.heard() == ["below UNMOUNT", "below IGNORED"]
        rule.expect(busy, held=False, harm=True)
