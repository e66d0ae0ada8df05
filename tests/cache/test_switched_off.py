"""What keeps a coherent cache right, switched off: then the cache is wrong.

Each test holds as the program is, and shows the harm without that part of it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests.cache.test_bounds import mapped, rewrite
from tests.cache.truth import stale, warm, within
from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene

BOUND_SECONDS = 8.0


def furnish(src: Path) -> None:
    (src / "x").write_bytes(bytes(4096))


def two_links(src: Path) -> None:
    furnish(src)
    os.link(src / "x", src / "y")


def is_told_in_time(scene: Scene) -> bool:
    try:
        within(BOUND_SECONDS, lambda: stale(scene.src, scene.mnt, ("x",)))
    except AssertionError:
        return False
    return True


@rule("closes_change_nothing")
def test_what_only_a_close_tells(rule: Rule) -> None:
    """What a mapping wrote has no event of its own."""
    with rule.scene("nobody_writes", furnish=furnish) as scene:
        watcher = scene.watcher(root=".")
        fd = os.open(scene.src / "x", os.O_RDWR)
        with mmap.mmap(fd, 0) as area:
            warm(scene.mnt, ("x",))
            area[:1] = b"x"
        os.close(fd)
        watcher.wait_for_line("root CLOSE_WRITE x")
        rule.expect(bool(stale(scene.src, scene.mnt, ("x",))), held=False, harm=True)


@rule("absent_names_are_not_asked_for")
def test_events_by_a_name_that_the_client_did_not_find(rule: Rule) -> None:
    """The agent's kernel is the client's: it believes, too, that there is no such name."""
    with rule.scene(furnish=two_links) as scene:
        watcher = scene.watcher(root=".")
        with (scene.src / "x").open("r+b", buffering=0) as file:
            (scene.src / "x").unlink()
            # Told, and over: while it is on its way nothing is believed of the name.
            assert "root DELETE x" in watcher.told()
            assert not (scene.mnt / "x").exists()
            file.write(b"more")
        told = watcher.told()
        rule.expect("root MODIFY x" in told, held=True, harm=False)
        assert not (scene.mnt / "x").exists()


@pytest.mark.long
@rule("nothing_is_doubted")
def test_what_waits_for_an_agent(rule: Rule) -> None:
    with rule.scene("nobody_writes", furnish=furnish) as scene, scene.agent_held():
        # Now, and not sooner: what was asked for before the agent was there is not believed.
        warm(scene.mnt, ("x",))
        (scene.src / "x").write_text("another")
        rule.expect(is_told_in_time(scene), held=True, harm=False)


@pytest.mark.long
@rule("nobody_writes")
def test_who_has_a_file_mapped(rule: Rule) -> None:
    with rule.scene(furnish=furnish) as scene:
        with mapped(scene.src / "x") as process:
            rewrite(process, scene.src / "x")
            is_told_in_time(scene)
            rewrite(process, scene.src / "x")
            rule.expect(is_told_in_time(scene), held=True, harm=False)
