"""Directories that the client has seen in their new places before it is told."""

from __future__ import annotations

import os
from pathlib import Path

from farwatch.linux.files import AT_FDCWD, RENAME_EXCHANGE, renameat2
from tests.rules.rule import Rule, rule


def across(src: Path) -> None:
    for name in ("a", "b", "a/s"):
        (src / name).mkdir()


@rule("no_look_at_old_names")
def test_a_directory_is_seen_in_its_new_place(rule: Rule) -> None:
    with rule.scene(furnish=across) as scene:
        watcher = scene.watcher(a="a", b="b", moved="a/s")
        with scene.agent_held():
            (scene.src / "a/s").rename(scene.src / "b/s")
            assert os.listdir(scene.mnt / "b") == ["s"]
            assert os.listdir(scene.mnt / "b/s") == []
        told = watcher.told()
        if not rule.off:
            assert told == ["a MOVED_FROM s", "b MOVED_TO s", "moved MOVE_SELF"]
            assert len(set(watcher.cookies)) == 1
        rule.expect("a MOVED_FROM s" in told, held=True, harm=False)


def nested(src: Path) -> None:
    (src / "p/c").mkdir(parents=True)


@rule("no_look_at_old_names")
def test_parent_and_child_are_swapped(rule: Rule) -> None:
    with rule.scene(furnish=nested) as scene:
        watcher = scene.watcher(root=".", parent="p", child="p/c")
        with scene.agent_held():
            (scene.src / "p/c").rename(scene.src / "c")
            (scene.src / "p").rename(scene.src / "c/p")
            assert os.listdir(scene.mnt / "c/p") == []
        told = watcher.told()
        assert os.listdir(scene.mnt / "c") == ["p"]
        if not rule.off:
            assert told == [
                "parent MOVED_FROM c",
                "root MOVED_TO c",
                "child MOVE_SELF",
                "root MOVED_FROM p",
                "child MOVED_TO p",
                "parent MOVE_SELF",
            ]
            assert len(set(watcher.cookies)) == 2
        rule.expect("parent MOVED_FROM c" in told, held=True, harm=False)


def pair(src: Path) -> None:
    for name in ("x", "y"):
        (src / name).mkdir()


@rule("exchange_as_two_renames")
def test_the_two_events_of_an_exchange_are_one_replay(rule: Rule) -> None:
    """One by one, the first would replace the other directory, whose watch ends."""
    with rule.scene(furnish=pair) as scene:
        watcher = scene.watcher(first="x", second="y")
        x, y = (os.fsencode(scene.src / name) for name in "xy")
        renameat2(AT_FDCWD, x, AT_FDCWD, y, RENAME_EXCHANGE)
        told = watcher.told()
        rule.expect(
            told,
            held=["first MOVE_SELF", "second MOVE_SELF"],
            harm=["second ATTRIB", "first MOVE_SELF", "second DELETE_SELF", "second IGNORED"],
        )
