"""ATTRIB of a link count is the inode's own event, and told once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene


def two_links(src: Path) -> None:
    (src / "x").write_text("old")
    os.link(src / "x", src / "y")


@rule("link_counts_unexplained")
def test_a_removal_tells_it_once(rule: Rule) -> None:
    """The replay of the removal makes it; what the source says of it is dropped."""
    with rule.scene(furnish=two_links) as scene:
        watcher = scene.watcher(root=".", file="x")
        (scene.src / "y").unlink()
        told = watcher.told()
        if rule.off and told.count("file ATTRIB") == 1:
            # It has been waiting for what may explain it.
            watcher.wait_for_line("file ATTRIB")
            told += watcher.heard()
        rule.expect(
            told,
            held=["file ATTRIB", "root DELETE y"],
            harm=["file ATTRIB", "root DELETE y", "file ATTRIB"],
        )


@rule("inode_events_by_name")
def test_a_change_through_a_link_outside_of_the_export(rule: Rule) -> None:
    """Only the file's own watches hear of it."""

    def furnish(src: Path) -> None:
        two_links(src)
        os.link(src / "x", src.with_name("out") / "z")

    with rule.scene(furnish=furnish) as scene:
        watcher = scene.watcher(root=".", file="x")
        (scene.outside / "z").chmod(0o600)
        told = watcher.told()
        rule.expect(told, held=["file ATTRIB"], harm=["root ATTRIB x", "file ATTRIB"])


@pytest.mark.root
def test_a_directorys_link_count_is_not_told() -> None:
    """A directory made in it is no change of its attributes; nor is its removal."""
    with Scene(()) as scene:
        (scene.src / "d").mkdir()
        watcher = scene.watcher()
        watcher.told()
        watcher.watch("root", ".")
        watcher.watch("d", "d")
        (scene.src / "d" / "e").mkdir()
        (scene.src / "d" / "e").rmdir()
        assert watcher.told() == ["d CREATE e", "d DELETE e"]
