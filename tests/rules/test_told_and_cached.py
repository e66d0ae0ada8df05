"""What the client has cached, and what it is told: names and link counts change together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene, Watcher


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


def two_links(src: Path) -> None:
    one_file(src)
    os.link(src / "x", src / "y")


# Names are expired before they are replayed --------------------------------------


@rule("pending_is_believed")
def test_a_name_that_the_client_sees_replaced_before_it_is_told(rule: Rule) -> None:
    """The removal is the old file's: the new one's watch must not end."""
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher(root=".", old="x")
        with scene.agent_held():
            (scene.src / "x").unlink()
            (scene.src / "x").mkdir()
            (scene.src / "x").rmdir()
            (scene.src / "x").write_text("new")
            assert (scene.mnt / "x").read_text() == "new"
            watcher.watch("new", "x")
        told = watcher.told()
        assert (scene.mnt / "x").read_text() == "new"
        rule.expect(
            [line for line in told if line.endswith(("DELETE_SELF", "IGNORED"))],
            held=["old DELETE_SELF", "old IGNORED"],
            harm=["new DELETE_SELF", "new IGNORED"],
        )


@rule("targets_as_they_are_now")
def test_a_rename_over_a_name_that_the_client_sees_already(rule: Rule) -> None:
    """The target's look-up must give what is replaced: else both names are one inode."""

    def furnish(src: Path) -> None:
        one_file(src)
        (src / "y").write_text("replaces")

    with rule.scene(furnish=furnish) as scene:
        watcher = scene.watcher(root=".", old="x", mover="y")
        with scene.agent_held():
            (scene.src / "y").rename(scene.src / "x")
            assert (scene.mnt / "x").read_text() == "replaces"
        told = watcher.told()
        assert (scene.mnt / "x").read_text() == "replaces"
        rule.expect(
            [line for line in told if "ATTRIB" not in line],
            held=[
                "root MOVED_FROM y",
                "root MOVED_TO x",
                "mover MOVE_SELF",
                "old DELETE_SELF",
                "old IGNORED",
            ],
            harm=[],
        )


# Link counts are those that were told --------------------------------------------


def ends(watcher: Watcher) -> list[str]:
    return [line for line in watcher.told() if "DELETE" in line or "IGNORED" in line]


@rule("removals_from_the_disks_count")
def test_one_of_two_links_is_removed(rule: Rule) -> None:
    with rule.scene(furnish=two_links) as scene:
        watcher = scene.watcher(root=".", file="x")
        (scene.src / "y").unlink()
        told = ends(watcher)
        assert (scene.mnt / "x").read_text() == "old"
        rule.expect(
            told,
            held=["root DELETE y"],
            harm=["file DELETE_SELF", "file IGNORED", "root DELETE y"],
        )


@rule("link_counts_of_the_disk")
def test_the_client_asks_for_the_count_before_it_is_told(rule: Rule) -> None:
    """A count of 0 ends the watch before the name is gone."""
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher(root=".", file="x")
        # The remote side, too, has it open, so that it is there to be asked for.
        with (scene.src / "x").open("rb"), (scene.mnt / "x").open("rb") as file:
            with scene.agent_held():
                (scene.src / "x").unlink()
                os.utime(file.fileno(), (1, 1))
                links = os.fstat(file.fileno()).st_nlink
            told = ends(watcher)
        rule.expect((links, told), held=(1, ["root DELETE x"]), harm=(0, ["root DELETE x"]))
        watcher.wait_for_line("file IGNORED")


# The last word on a name is the client's own -------------------------------------


def makes_again(scene: Scene) -> list[str]:
    watcher = scene.watcher(root=".", old="x")
    with scene.agent_held():
        (scene.src / "x").unlink()
        (scene.mnt / "x").write_text("the client's own")
    told = watcher.told()
    assert (scene.src / "x").read_text() == "the client's own"
    assert (scene.mnt / "x").read_text() == "the client's own"
    return told


@rule("no_cancelling")
def test_the_client_makes_anew_what_was_removed_remotely(rule: Rule) -> None:
    with rule.scene(furnish=one_file) as scene:
        told = makes_again(scene)
        names = [line for line in told if "CREATE" in line or "DELETE " in line]
        rule.expect(names, held=["root CREATE x"], harm=["root CREATE x", "root DELETE x"])


@pytest.mark.root
def test_the_old_inodes_death_is_told_all_the_same() -> None:
    with Scene((), one_file) as scene:
        told = makes_again(scene)
        assert [line for line in told if line.startswith("old")][-2:] == [
            "old DELETE_SELF",
            "old IGNORED",
        ]
