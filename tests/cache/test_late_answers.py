"""A program is answered, a directory is changed, and only then the program reads the answer.

The client's kernel takes in what was so before the change, and is not to believe it: that this
happens takes no more than a thread that has to wait for its CPU.  Here one does, behind a
program that does not let go of it.

    server stopped -> the reader asks, and waits -> the hog takes the reader's CPU -> the server
    goes on -> the change, which is answered after the reader -> the hog ends
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.linux import files
from tests.cache.truth import stale, warm
from tests.rules.scene import Scene, is_stopped, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one is to be kept busy"),
]

PATHS = ("d", "e", "d/inside", "e/inside", "d/file", "e/moved")
_RENAME_EXCHANGE = 2
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_NOATIME_FL = 0x80086601, 0x40086602, 0x80
"""linux/fs.h"""

_READER = """
import os, sys
print(flush=True)
sys.stdin.readline()
os.stat(sys.argv[1])
"""
_HOG = """
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print(flush=True)
while True: pass
"""


def furnish(src: Path) -> None:
    for name in ("d", "e"):
        (src / name / "inside").mkdir(parents=True)
    (src / "d/file").write_text("x")


def exchange(top: Path) -> None:
    one, other = bytes(top / "d/inside"), bytes(top / "e/inside")
    files.renameat2(files.AT_FDCWD, one, files.AT_FDCWD, other, _RENAME_EXCHANGE)


def set_flags(top: Path) -> None:
    fd = os.open(top / "d", os.O_RDONLY)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        (now,) = struct.unpack_from("I", flags)
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("Q", now | _FS_NOATIME_FL))
    finally:
        os.close(fd)


def set_attribute(top: Path) -> None:
    os.setxattr(top / "d", "user.a", b"1")


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "mkdir": ("d", lambda top: (top / "d/new").mkdir()),
    "create": ("d", lambda top: (top / "d/new").write_text("")),
    "symlink": ("d", lambda top: (top / "d/new").symlink_to("x")),
    "link": ("e", lambda top: os.link(top / "d/file", top / "e/new")),
    "unlink": ("d", lambda top: (top / "d/file").unlink()),
    "rmdir": ("d", lambda top: (top / "d/inside").rmdir()),
    "rename-from": ("d", lambda top: (top / "d/inside").rename(top / "e/moved")),
    "rename-to": ("e", lambda top: (top / "d/inside").rename(top / "e/moved")),
    "rename-of": ("d/inside", lambda top: (top / "d/inside").rename(top / "e/moved")),
    "exchange": ("d", exchange),
    "exchange-of-one": ("d/inside", exchange),
    "exchange-of-the-other": ("e/inside", exchange),
    "setxattr": ("d", set_attribute),
    "flags": ("d", set_flags),
}
"""Name: what the reader asks about, and the change."""


def on_cpus(cpus: Iterable[int], *pids: int) -> None:
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), set(cpus))


@contextmanager
def program(cpu: int, text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program on this CPU that has begun."""
    with subprocess.Popen(
        ["taskset", "-c", str(cpu), sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "\n"
            yield process
        finally:
            process.kill()


@contextmanager
def late(scene: Scene, path: Path) -> Iterator[None]:
    """Somebody asks about ``path``, is answered, and reads that after the block."""
    spared, *others = sorted(os.sched_getaffinity(0))
    server = scene.server()
    os.listdir(path)  # The access time is another now, of which the client's kernel asks.
    with program(spared, _READER, str(path)) as reader:
        on_cpus(others, os.getpid(), *scene.stage.processes())
        try:
            os.kill(server, signal.SIGSTOP)
            wait_until(lambda: is_stopped(server), "the server has stopped")
            assert reader.stdin
            reader.stdin.write("\n")
            reader.stdin.flush()
            stack = Path(f"/proc/{reader.pid}/stack")
            wait_until(lambda: "fuse_do_getattr" in stack.read_text(), "the reader has asked")
            with program(spared, _HOG):
                os.kill(server, signal.SIGCONT)
                os.statvfs(scene.mnt)  # Is answered after the reader.
                yield
            assert reader.wait() == 0
        finally:
            os.kill(server, signal.SIGCONT)
            os.sched_setaffinity(0, {spared, *others})


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_late_is_not_believed(change: str) -> None:
    asked, make = CHANGES[change]
    with Scene((), furnish) as scene:
        warm(scene.mnt, PATHS)
        with late(scene, scene.mnt / asked):
            make(scene.mnt)
        assert stale(scene.src, scene.mnt, PATHS) == []


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "flags"])
def test_nor_when_the_change_is_replayed(change: str) -> None:
    asked, make = CHANGES[change]
    with Scene((), furnish) as scene:
        watcher = scene.watcher(d="d", e="e")
        warm(scene.mnt, PATHS)
        with late(scene, scene.mnt / asked):
            make(scene.src)
            assert watcher.told()
        assert stale(scene.src, scene.mnt, PATHS) == []
