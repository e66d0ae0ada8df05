"""A private root."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.linux import fanotify as fan
from farwatch.linux import mounts
from farwatch.linux.files import AT_FDCWD
from farwatch.linux.namespace import enter_private_root
from tests.linux import areas

pytestmark = pytest.mark.root


@pytest.fixture
def tree() -> Iterator[Path]:
    with areas.tmpfs() as path:
        (path / "file").write_text("text")
        yield path


def cloned(path: Path) -> int:
    return mounts.open_tree(AT_FDCWD, bytes(path), mounts.OPEN_TREE_CLONE)


def table() -> list[tuple[bytes, bytes, tuple[bytes, ...]]]:
    text = Path("/proc/self/mountinfo").read_bytes()
    return [(m.mount_point, m.fstype, m.optional) for m in mounts.parse_mountinfo(text)]


def test_nothing_else_remains(tree: Path) -> None:
    def run() -> tuple[object, ...]:
        clone = cloned(tree)
        enter_private_root({"/export": clone, "/deep/er": clone_of(clone)})
        os.close(clone)
        root = sorted(os.listdir("/"))
        return table(), root, os.getcwd(), Path("/export/file").read_text()

    def clone_of(fd: int) -> int:
        return mounts.open_tree(fd, b"", mounts.OPEN_TREE_CLONE)

    before = table()
    mountinfo, root, cwd, text = areas.in_child(run)
    assert sorted(mountinfo) == [
        (b"/", b"tmpfs", ()),
        (b"/deep/er", b"tmpfs", ()),
        (b"/export", b"tmpfs", ()),
        (b"/proc", b"proc", ()),
    ]
    assert (root, cwd, text) == (["deep", "export", "proc"], "/", "text")
    assert table() == before


def test_the_trees_work_and_the_root_is_read_only(tree: Path) -> None:
    def run() -> str:
        enter_private_root({"/export": cloned(tree)})
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EROFS):
            os.mkdir("/new")
        os.mkdir("/export/new")
        return os.readlink("/proc/self")

    pid = areas.in_child(run)
    assert int(pid) > 0
    assert (tree / "new").is_dir()


def test_the_host_may_unmount_meanwhile(tree: Path) -> None:
    with areas.directory() as base:
        (base / "other").mkdir()
        mounts.mount(b"farwatch-test", bytes(base / "other"), b"tmpfs")
        entered, tell = os.pipe()
        wait, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(release)
            enter_private_root({"/export": cloned(tree)})
            os.write(tell, b"x")
            os.read(wait, 1)
            os._exit(0)
        os.close(tell)
        os.close(wait)
        with areas.reaped(pid):
            assert os.read(entered, 1) == b"x"
            # Without MNT_DETACH: EBUSY if anybody held it.
            mounts.umount(bytes(base / "other"))
            mounts.umount(bytes(tree))
            mounts.mount(b"farwatch-test", bytes(tree), b"tmpfs")
            os.close(release)
        os.close(entered)


def test_propagation_leads_neither_in_nor_out(tree: Path) -> None:
    """From a shared mount, which on many machines the root is."""
    mounts.mount(None, bytes(tree), None, mounts.MS_SHARED)
    (tree / "inside").mkdir()
    (tree / "outside").mkdir()
    entered, tell = os.pipe()
    wait, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        enter_private_root({"/export": cloned(tree)})
        mounts.mount(b"farwatch-test", b"/export/inside", b"tmpfs")
        os.write(tell, b"x")
        os.read(wait, 1)
        points = [point for point, _, _ in table()]
        os._exit(b"/export/outside" in points)
    os.close(tell)
    os.close(wait)
    assert os.read(entered, 1) == b"x"
    os.close(entered)
    points = [point for point, _, _ in table()]
    mounts.mount(b"farwatch-test", bytes(tree / "outside"), b"tmpfs")
    os.close(release)
    _, status = os.waitpid(pid, 0)
    mounts.umount(bytes(tree / "outside"))
    assert os.waitstatus_to_exitcode(status) == 0
    assert bytes(tree / "inside") not in points


def test_an_ignore_mark_can_be_put_on_the_bind(tree: Path) -> None:
    """The bind is attached, as passthrough and mount marks need."""

    def run() -> int:
        with areas.opened(tree) as fd, fan.Group(fan.FAN_NONBLOCK | fan.FAN_CLOEXEC) as group:
            group.mark(fan.FAN_MARK_ADD | fan.FAN_MARK_FILESYSTEM, fan.FAN_MODIFY, fd)
            enter_private_root({"/export": cloned(tree)})
            with areas.opened("/export") as export:
                flags = fan.FAN_MARK_ADD | fan.FAN_MARK_MOUNT
                flags |= fan.FAN_MARK_IGNORE | fan.FAN_MARK_IGNORED_SURV_MODIFY
                group.mark(flags, fan.FAN_MODIFY, export)
            with open("/export/file", "r+b", buffering=0) as file:
                file.write(b"x")
            with pytest.raises(BlockingIOError):
                group.read(bytearray(4096))
            return 1

    assert areas.in_child(run) == 1


def test_python_keeps_working(tree: Path) -> None:
    """In a fresh interpreter, with threads, a traceback and a normal end."""
    program = f"""
import os, sys, threading, time, traceback
from farwatch.linux import mounts
from farwatch.linux.namespace import enter_private_root
clone = mounts.open_tree({AT_FDCWD}, {os.fsencode(tree)!r}, mounts.OPEN_TREE_CLONE)
enter_private_root({{"/export": clone}})
assert open("/export/file").read() == "text"
lock = threading.Lock()
lock.acquire()
def work():
    try:
        raise ValueError("expected")
    except ValueError:
        assert "expected" in traceback.format_exc()
    lock.release()
threading.Thread(target=work).start()
assert lock.acquire(timeout=10)
# A daemon thread that wakes while the interpreter ends calls pthread_exit.
def linger():
    lock.release()
    while True:
        time.sleep(0)
threading.Thread(target=linger, daemon=True).start()
lock.acquire()
print("till the end")
"""
    source = Path(__file__).resolve().parents[2] / "src"
    result = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "till the end\n", "")


def test_other_threads_of_the_process_stay(tree: Path) -> None:
    """The namespace is the calling thread's: hence a process with one thread."""

    def run() -> bool:
        def enter() -> None:
            enter_private_root({"/export": cloned(tree)})
            seen.append(os.path.exists("/export"))

        seen: list[bool] = []
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return seen == [True] and not os.path.exists("/export")

    assert areas.in_child(run)


def test_a_root_that_cannot_be_left_is_an_error() -> None:
    """In a chroot the host's mounts are out of sight, and would stay pinned."""
    with areas.directory() as base:
        (base / "proc").mkdir()

        def run() -> int | None:
            mounts.unshare(mounts.CLONE_NEWNS)
            mounts.mount(None, b"/", None, mounts.MS_REC | mounts.MS_PRIVATE)
            mounts.mount(b"proc", bytes(base / "proc"), b"proc")
            os.chroot(base)
            os.chdir("/")
            try:
                enter_private_root({})
            except OSError as error:
                return error.errno
            return None

        assert areas.in_child(run) == errno.EINVAL
