"""OPEN, CLOSE and what needs an open file, beside the client's own opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from farwatch.linux import fanotify as fan
from farwatch.linux.inotify import IN_EXCL_UNLINK
from tests.rules.groups import DescriptorGroup, Listener
from tests.rules.rule import Rule, rule
from tests.rules.scene import ALL, CHANGES, Scene


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


# Opens in passthrough ------------------------------------------------------------


@rule("replay_opens_without_backing")
def test_a_file_that_the_client_has_open_in_passthrough(rule: Rule) -> None:
    """The kernel answers EIO to an open of any other kind."""
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher(file="x")
        with (scene.mnt / "x").open("rb") as file:
            (scene.src / "x").write_text("new")
            told = watcher.told()
            assert file.read() == b"new"
        rule.expect(told, held=["file MODIFY", "file CLOSE_WRITE"], harm=["file MODIFY"])


@rule("access_mode_unknown")
def test_a_remote_open_is_replayed_in_its_own_mode(rule: Rule) -> None:
    """Else its end is not that of the file that was kept open for it."""
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher()
        watcher.watch("file", "x", ALL)
        scene.stage.wait_for_reading(0x20)
        with (scene.src / "x").open("ab"):
            opened = watcher.told()
        closed = watcher.told()
        rule.expect(
            (opened, closed),
            held=(["file OPEN"], ["file CLOSE_WRITE"]),
            harm=(["file OPEN"], ["file OPEN", "file CLOSE_WRITE"]),
        )


@pytest.mark.root
def test_a_permission_listener_holds_up_nothing_but_opens() -> None:
    """The opens wait for its answer; the other events do not wait for the opens."""
    with Scene((), one_file) as scene, Listener(scene.mnt) as listener:
        watcher = scene.watcher(root=".")
        scene.wait_until_marks_are_known()
        (scene.src / "x").write_text("new")
        (scene.src / "made").mkdir()
        watcher.wait_for_line("root CREATE made")
        listener.allow_all()
        watcher.wait_for_line("root CLOSE_WRITE x")


# Events of paths and events of inodes --------------------------------------------


@rule("touches_whoever_listens")
def test_a_group_that_wants_descriptors_hears_of_a_write(rule: Rule) -> None:
    """What only sets times is an inode's event: such a group does not hear of it."""
    with rule.scene(furnish=one_file) as scene, DescriptorGroup() as group:
        group.mark(scene.mnt / "x", fan.FAN_MODIFY | fan.FAN_CLOSE_WRITE)
        watcher = scene.watcher(file="x")
        scene.wait_until_marks_are_known()
        with (scene.src / "x").open("r+b", buffering=0) as file:
            file.write(b"new")
        told = watcher.told()
        assert told == ["file MODIFY", "file CLOSE_WRITE"]
        assert (scene.src / "x").read_text() == "new"
        assert (scene.mnt / "x").read_text() == "new"
        rule.expect(
            group.heard(),
            held=fan.FAN_MODIFY | fan.FAN_CLOSE_WRITE,
            harm=fan.FAN_CLOSE_WRITE,
        )


@rule("touches_whoever_listens")
def test_a_watch_that_leaves_out_what_was_removed(rule: Rule) -> None:
    """IN_EXCL_UNLINK is about paths, too."""
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher()
        watcher.watch("root", ".", CHANGES | IN_EXCL_UNLINK)
        with (scene.src / "x").open("ab", buffering=0) as file:
            (scene.src / "x").unlink()
            assert watcher.told() == ["root DELETE x"]
            file.write(b"more")
            told = watcher.told()
        rule.expect(told, held=[], harm=["root MODIFY x"])
