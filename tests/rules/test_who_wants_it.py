"""What is watched is more than a scan of /proc can find."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.linux import fanotify as fan
from farwatch.linux.inotify import Inotify
from tests.rules.groups import DescriptorGroup, NameGroup
from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene, Watcher, wait_until
from tests.rules.test_evicted import evict_names

HIDDEN = Path(__file__).with_name("hidden_watcher.py")


def directories(src: Path) -> None:
    (src / "a/b/c").mkdir(parents=True)
    (src / "d").mkdir()


def told_elsewhere(scene: Scene, sentinel: Watcher) -> None:
    """A change in ``d``, and whatever is to be told of it has been told."""
    (scene.src / "d" / "new").mkdir()
    sentinel.told()


# Watches that fdinfo does not show -----------------------------------------------


@rule("only_what_a_scan_found")
def test_a_descriptor_on_its_way_through_a_socket(rule: Rule) -> None:
    with rule.scene(furnish=directories) as scene:
        here, there = socket.socketpair()
        with here, there:
            with Inotify() as inotify:
                inotify.add(scene.mnt / "d", fan.FAN_CREATE)
                socket.send_fds(here, [b"x"], [inotify.fileno()])
            told_elsewhere(scene, scene.watcher())
            _, fds, _, _ = socket.recv_fds(there, 1, 1)
            try:
                heard = b"new" in os.read(fds[0], 4096)
            except BlockingIOError:
                heard = False
            finally:
                os.close(fds[0])
        rule.expect(heard, held=True, harm=False)


@rule("only_what_a_scan_found")
def test_dnotify(rule: Rule) -> None:
    number = signal.SIGRTMIN + 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        with rule.scene(furnish=directories) as scene:
            fd = os.open(scene.mnt / "d", os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.fcntl(fd, 10, number)  # F_SETSIG
                fcntl.fcntl(fd, fcntl.F_NOTIFY, fcntl.DN_CREATE)
                told_elsewhere(scene, scene.watcher())
                heard = signal.sigtimedwait([number], 0) is not None
            finally:
                os.close(fd)
            rule.expect(heard, held=True, harm=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def hidden_watcher(scene: Scene, how: str) -> Iterator[subprocess.Popen[str]]:
    """``hidden_watcher.py`` on ``d``, when it watches."""
    with subprocess.Popen(
        [sys.executable, str(HIDDEN), how, str(scene.mnt / "d")],
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.root
@pytest.mark.parametrize("how", ["own-table", "main-thread-gone"])
def test_threads_that_hide_their_descriptors(how: str) -> None:
    """Of these a scan finds the reading kinds as well: it looks at every thread."""
    with Scene((), directories) as scene, hidden_watcher(scene, how) as process:
        scene.stage.wait_for_reading(0x20)
        assert process.stdout is not None
        (scene.src / "d" / "new").mkdir()
        assert process.stdout.readline() == "new\n"


# Marks that keep no inode --------------------------------------------------------


@rule("every_mark_pins")
def test_a_mark_on_the_mount_hears_of_what_nobody_has_looked_up(rule: Rule) -> None:
    with rule.scene(furnish=directories) as scene, DescriptorGroup() as group:
        group.mark(scene.mnt, fan.FAN_CLOSE_WRITE, fan.FAN_MARK_MOUNT)
        watcher = scene.watcher()
        scene.wait_until_marks_are_known()
        group.heard()
        (scene.src / "a/b/c/new").write_text("deep")
        watcher.told()
        rule.expect(group.heard(), held=fan.FAN_CLOSE_WRITE, harm=0)


@rule("every_mark_pins")
def test_a_mark_on_the_superblock_hears_of_names_that_nobody_has_looked_up(rule: Rule) -> None:
    with rule.scene(furnish=directories) as scene, NameGroup() as group:
        group.mark(scene.mnt, fan.FAN_CREATE | fan.FAN_ONDIR, fan.FAN_MARK_FILESYSTEM)
        watcher = scene.watcher()
        scene.wait_until_marks_are_known()
        group.heard()
        (scene.src / "a/b/c/new").mkdir()
        watcher.told_without_names()
        rule.expect(group.names(), held=["new"], harm=[])


@rule("every_mark_pins")
def test_an_evictable_mark_makes_the_whole_tree_live(rule: Rule) -> None:
    """Such a mark goes with its inode; until then nothing may be left out on its account."""
    with rule.scene(furnish=directories) as scene, DescriptorGroup() as group:
        group.mark(scene.mnt / "d", fan.FAN_CLOSE_WRITE, fan.FAN_MARK_EVICTABLE)
        whole = DescriptorGroup()
        watcher = scene.watcher()
        scene.wait_until_marks_are_known()
        evict_names()
        whole.mark(scene.mnt, fan.FAN_CLOSE_WRITE, fan.FAN_MARK_MOUNT)
        with whole:
            (scene.src / "a/b/c/new").write_text("deep")
            watcher.told()
            rule.expect(whole.heard(), held=fan.FAN_CLOSE_WRITE, harm=0)


# The live set --------------------------------------------------------------------


def nodes_known(scene: Scene, counts: Path) -> int:
    """How many nodes the server takes for known to the client."""
    before = counts.read_text()
    os.kill(scene.server(), signal.SIGUSR1)
    wait_until(lambda: counts.read_text() != before, "the server has counted")
    return int(counts.read_text().split()[-1])


@rule("never_prunes")
def test_the_client_is_made_to_forget_what_only_replays_have_looked_up(rule: Rule) -> None:
    with Scene(()) as outer:
        counts = outer.outside / "counts"
        with rule.scene(f"counts_nodes:{counts}", furnish=directories) as scene:
            watcher = scene.watcher(d="d")
            for number in range(1000):
                (scene.src / "d" / str(number)).mkdir()
            told = watcher.told()
            assert len(told) == 1000
            few = 50
            if rule.off:
                assert nodes_known(scene, counts) > 1000
                return
            wait_until(lambda: nodes_known(scene, counts) < few, "the nodes are forgotten")
            (scene.src / "d" / "7").rmdir()
            assert watcher.told() == ["d DELETE 7"]
