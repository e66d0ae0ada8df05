"""What no event says, or nobody delivers: how long a reader may be answered what was so before."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cache.truth import differences, stale, warm, within
from tests.rules.scene import Scene
from tests.stage import FarwatchStage

pytestmark = pytest.mark.root

LATE_SECONDS = 8.0
"""Replays count as late after a second, that is looked for each second, and what is told then
is believed for one more; and the machine may be busy."""
MAPPED_SECONDS = 8.0
"""A second, from the moment that it is known that somebody writes."""

_MAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
# Python's own mmap keeps a descriptor.  PROT_READ | PROT_WRITE, MAP_SHARED; MS_SYNC.
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
fd = os.open(sys.argv[1], os.O_RDWR)
address = libc.mmap(None, 4096, 3, 1, fd, 0)
os.close(fd)
for line in sys.stdin:
    ctypes.memset(address, os.urandom(1)[0], 1)
    # Only the first write to a page that is clean changes the times.
    libc.msync(address, 4096, 4)
    print(flush=True)
"""


def furnish(src: Path) -> None:
    (src / "d").mkdir()
    for name in "abc":
        (src / "d" / name).write_text(name)
    (src / "other").write_text("")


PATHS = ("d", "d/a", "d/b", "d/c", "d/new")


def change(src: Path) -> None:
    (src / "d/a").write_text("longer than before")
    (src / "d/b").unlink()
    (src / "d/new").write_text("new")
    (src / "d/c").chmod(0o600)


def test_an_agent_that_is_held_up() -> None:
    """Without an event, yet not for ever: and the events come when the agent goes on."""
    with Scene((), furnish) as scene:
        watcher = scene.watcher(d="d")
        warm(scene.mnt, PATHS)
        with scene.agent_held():
            change(scene.src)
            within(LATE_SECONDS, lambda: stale(scene.src, scene.mnt, PATHS))
            assert differences(scene.src, scene.mnt, PATHS) == []
            assert watcher.heard() == []
        told = watcher.told()
        for line in ("d MODIFY a", "d DELETE b", "d CREATE new", "d ATTRIB c"):
            assert line in told
        assert differences(scene.src, scene.mnt, PATHS) == []


def test_what_is_looked_up_while_the_agent_is_held_up_is_not_believed_for_long() -> None:
    with Scene((), furnish) as scene, scene.agent_held():
        (scene.src / "d/a").write_text("first")
        within(LATE_SECONDS, lambda: stale(scene.src, scene.mnt, PATHS))
        warm(scene.mnt, PATHS)
        change(scene.src)
        within(LATE_SECONDS, lambda: stale(scene.src, scene.mnt, PATHS))


def test_what_a_program_has_mounted_stays_mounted() -> None:
    """Names are expired, never invalidated: that would unmount what is below them."""
    with Scene((), furnish) as scene:
        point = scene.mnt / "d"
        subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
        try:
            (point / "own").write_text("in the tmpfs")
            warm(scene.mnt, ("other",))
            with scene.agent_held():
                (scene.src / "d").chmod(0o700)
                (scene.src / "other").write_text("told after it")
                within(LATE_SECONDS, lambda: stale(scene.src, scene.mnt, ("other",)))
                assert (scene.mnt / "d/own").read_text() == "in the tmpfs"
        finally:
            subprocess.run(["umount", str(point)], check=True)


@contextmanager
def mapped(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a file mapped, and writes to it when it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-c", _MAPPER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rewrite(process: subprocess.Popen[str], path: Path) -> None:
    """Has the process write until the file's time is another: the clock's steps are coarse."""
    assert process.stdin
    assert process.stdout
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "\n"


@pytest.fixture(scope="module")
def stage() -> Iterator[FarwatchStage]:
    with FarwatchStage(("--cache", "coherent")) as made:
        yield made


def test_a_file_that_others_have_mapped(stage: FarwatchStage) -> None:
    """It changes without an event, and is yet seen to change, again and again."""
    name = stage.fresh()
    path = f"{name}/mapped"
    (stage.acting / path).write_bytes(bytes(4096))
    warm(stage.mnt, (path,))
    with mapped(stage.acting / path) as process:
        for _ in range(3):
            rewrite(process, stage.acting / path)
            within(MAPPED_SECONDS, lambda: stale(stage.acting, stage.mnt, (path,)))
            warm(stage.mnt, (path,))


@pytest.mark.long
def test_a_file_that_was_mapped_before_it_was_mounted() -> None:
    with Scene(()) as scene:
        # Mounted a second time, when it is open for writing already.
        path = scene.src / "mapped"
        path.write_bytes(bytes(4096))
        with mapped(path) as process:
            rewrite(process, path)
            subprocess.run(["umount", str(scene.mnt)], check=True)
            scene.stage.start_again()
            warm(scene.mnt, ("mapped",))
            for _ in range(2):
                rewrite(process, path)
                within(MAPPED_SECONDS, lambda: stale(scene.src, scene.mnt, ("mapped",)))


def test_a_file_that_the_client_has_mapped(stage: FarwatchStage) -> None:
    """Its kernel does not look at what a mapping has changed behind it (passthrough)."""
    name = stage.fresh()
    path = f"{name}/own"
    (stage.mnt / path).write_bytes(bytes(4096))
    warm(stage.mnt, (path,))
    with mapped(stage.mnt / path) as process:
        for _ in range(2):
            rewrite(process, stage.acting / path)
            within(MAPPED_SECONDS, lambda: stale(stage.acting, stage.mnt, (path,)))
    within(MAPPED_SECONDS, lambda: stale(stage.acting, stage.mnt, (path,)))


def test_a_listing_of_access_changes_the_mode(stage: FarwatchStage) -> None:
    """An access control list set in the client is also a mode, which its kernel has cached."""
    name = stage.fresh()
    path = f"{name}/listed"
    (stage.mnt / path).write_text("x")
    warm(stage.mnt, (path,))
    # user::rwx group::r-- mask::rwx other::--- and one more user: acl(5), acl_ea(5).
    entries = [(1, 7, -1), (2, 6, 1), (4, 4, -1), (16, 7, -1), (32, 0, -1)]
    value = b"\2\0\0\0" + b"".join(
        struct.pack("<HHi", tag, bits, who) for tag, bits, who in entries
    )
    os.setxattr(stage.mnt / path, "system.posix_acl_access", value)
    within(MAPPED_SECONDS, lambda: stale(stage.acting, stage.mnt, (path,)))
