"""What is watched is more than a scan of /proc can find."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.linux import fanotify as fan
from farwatch.linux.inotify import Inotify
from tests.conformance.watcher import SENTINEL_WATCH
from tests.rules.groups import DescriptorGroup
from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene, Watcher, wait_until

F_SETOWN_EX, F_OWNER_TID = 15, 0
"""fcntl(2), asm-generic/fcntl.h."""
HIDDEN = Path(__file__).with_name("hidden_watcher.py")


def directories(src: Path) -> None:
    (src / "a/b/c").mkdir(parents=True)
    (src / "d").mkdir()


def told_elsewhere(scene: Scene, sentinel: Watcher) -> None:
    """A change in ``d``, and whatever is to be told of it has been told."""
    (scene.src / "d" / "new").mkdir()
    # A scan has to find the sentinel's watch, where nothing else counts.
    sentinel.told_if_not_lost()


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
                # To this thread, which blocks it: another one would be ended by it.
                owner = struct.pack("ii", F_OWNER_TID, threading.get_native_id())
                fcntl.fcntl(fd, F_SETOWN_EX, owner)
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
@pytest.mark.parametrize("how", [fan.FAN_MARK_MOUNT, fan.FAN_MARK_FILESYSTEM], ids=["mount", "sb"])
def test_a_mark_hears_of_what_nobody_has_looked_up(rule: Rule, how: int) -> None:
    with rule.scene(furnish=directories) as scene, DescriptorGroup() as group:
        group.mark(scene.mnt, fan.FAN_CLOSE_WRITE, how)
        watcher = scene.watcher()
        scene.wait_until_marks_are_known()
        (scene.src / "a/b/c/new").write_text("deep")
        watcher.told()
        names = [name for name in group.names(fan.FAN_CLOSE_WRITE) if SENTINEL_WATCH not in name]
        rule.expect(names, held=["a/b/c/new"], harm=[])


# The live set --------------------------------------------------------------------


FEW = 100
"""It is not worth while to prune less."""


def nodes_known(scene: Scene, counts: Path) -> int:
    """How many nodes the server takes for known to the client."""
    before = counts.read_text()
    os.kill(scene.server(), signal.SIGUSR1)
    wait_until(lambda: counts.read_text() != before, "the server has counted")
    return int(counts.read_text().split()[-1])


@rule("never_prunes")
def test_the_client_is_made_to_forget_what_only_replays_have_looked_up(
    rule: Rule, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    with rule.scene(f"counts_nodes:{counts}", furnish=directories) as scene:
        watcher = scene.watcher(d="d")
        for number in range(1000):
            (scene.src / "d" / str(number)).mkdir()
        assert len(watcher.told()) == 1000
        if not rule.off:
            wait_until(lambda: nodes_known(scene, counts) < FEW, "the nodes are forgotten")
        rule.expect(nodes_known(scene, counts) < FEW, held=True, harm=False)
        (scene.src / "d" / "7").rmdir()
        assert watcher.told() == ["d DELETE 7"]
