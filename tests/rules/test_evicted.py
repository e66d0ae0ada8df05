"""A watch keeps an inode, but not its name: memory pressure takes names away."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from farwatch.linux.fdinfo import parse_inotify
from farwatch.linux.handles import open_by_handle
from tests.rules.rule import AGENTS, Rule, rule
from tests.rules.scene import ALL, Scene, Watcher


def deep(src: Path) -> None:
    (src / "a/b/c").mkdir(parents=True)


def evict_names() -> None:
    """Dentries and inodes that nobody uses, of every file system (proc_sys_vm(5))."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


def opened_by_handle(scene: Scene, watcher: Watcher) -> int:
    """0 or an errno: what fdinfo tells of a watch is enough to open what is watched."""
    text = Path(f"/proc/self/fdinfo/{watcher.inotify.fileno()}").read_bytes()
    marks = {mark.wd: mark for mark in parse_inotify(text)}
    root = os.open(scene.mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(open_by_handle(root, marks[max(marks)].handle, os.O_PATH))
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(root)
    return 0


@rule("no_export_support")
def test_a_watched_directory_whose_name_was_evicted(rule: Rule) -> None:
    with rule.scene(furnish=deep) as scene:
        watcher = scene.watcher(c="a/b/c")
        evict_names()
        rule.expect(opened_by_handle(scene, watcher), held=0, harm=errno.ESTALE)
        if not rule.off:
            evict_names()
            (scene.src / "a/b/c/new").mkdir()
            assert watcher.told() == ["c CREATE new"]


def three(src: Path) -> None:
    for name in "abc":
        (src / "top" / name / "below").mkdir(parents=True)
        (src / "top" / name / "file").touch()


@pytest.mark.root
@AGENTS
def test_what_is_removed_with_directories_whose_names_were_evicted(agent: tuple[str, ...]) -> None:
    """Each is found where nobody sees it, for it has no place any more, here or on the disk.

    Its own removal, which follows, is waiting at that very place.
    """
    with Rule().scene(*agent, furnish=three) as scene:
        watcher = scene.watcher(**{name: f"top/{name}" for name in "abc"})
        evict_names()
        with scene.agent_held():
            shutil.rmtree(scene.src / "top")
        told = watcher.told()
    for name in "abc":
        assert sorted(line for line in told if line[0] == name) == [
            f"{name} DELETE below",
            f"{name} DELETE file",
            f"{name} DELETE_SELF",
            f"{name} IGNORED",
        ]


@pytest.mark.root
@AGENTS
def test_no_directory_is_listed_to_find_what_has_lost_its_name(agent: tuple[str, ...]) -> None:
    """To open a directory by its handle the kernel would look for its name in the one above.

    That is an open and a read that everybody hears who watches there.
    """
    with Rule().scene(*agent, furnish=deep) as scene:
        watcher = scene.watcher(c="a/b/c")
        watcher.watch("b", "a/b", ALL)
        watcher.watch("a", "a", ALL)
        watcher.told()
        evict_names()
        (scene.src / "a/b/c/new").mkdir()
        assert watcher.told() == ["c CREATE new"]
