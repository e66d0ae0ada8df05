"""Files on a mount that have no name yet, or no more, or are made and held in odd ways."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux.files import (
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    RENAME_WHITEOUT,
    STATX_BTIME,
    linkat,
    renameat2,
    statx,
)
from tests.mounting.mounted import Ear
from tests.posix.actor import Actor
from tests.posix.calls import Where
from tests.posix.conftest import Pairs
from tests.posix.drawn import ANN, USERS
from tests.stage import FarwatchStage

pytestmark = pytest.mark.root


def test_a_removed_file_that_is_open(tops: tuple[Path, Path]) -> None:
    outcomes = []
    for top in tops:
        path = top / "f"
        path.write_bytes(b"content")
        with path.open("r+b", buffering=0) as file:
            path.unlink()
            fd = file.fileno()
            os.fchmod(fd, 0o640)
            os.fchown(fd, ANN.uid, ANN.groups[0])
            os.setxattr(fd, "user.x", b"y")
            file.write(b"CON")
            os.ftruncate(fd, 5)
            with open(f"/proc/self/fd/{fd}", "rb") as other:
                read = other.read()
            os.utime(fd, ns=(1, 2))
            status = os.fstat(fd)
            with pytest.raises(FileNotFoundError):
                linkat(
                    AT_FDCWD,
                    b"/proc/self/fd/%d" % fd,
                    AT_FDCWD,
                    os.fsencode(top / "g"),
                    AT_SYMLINK_FOLLOW,
                )
            outcomes.append(
                (
                    read,
                    oct(status.st_mode),
                    status.st_nlink,
                    status.st_uid,
                    status.st_size,
                    status.st_atime_ns,
                    os.getxattr(fd, "user.x"),
                )
            )
    assert outcomes[0] == outcomes[1] == (
        b"CONte", "0o100640", 0, ANN.uid, 5, 1, b"y",
    )  # fmt: skip


def test_a_file_without_a_name(tops: tuple[Path, Path]) -> None:
    for top in tops:
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o640)
        try:
            os.write(fd, b"first")
            assert os.fstat(fd).st_nlink == 0
            assert os.listdir(top) == []
            link = b"/proc/self/fd/%d" % fd
            linkat(AT_FDCWD, link, AT_FDCWD, os.fsencode(top / "f"), AT_SYMLINK_FOLLOW)
            linkat(AT_FDCWD, link, AT_FDCWD, os.fsencode(top / "g"), AT_SYMLINK_FOLLOW)
            assert os.fstat(fd).st_nlink == 2
            os.pwrite(fd, b"later", 5)
        finally:
            os.close(fd)
        assert (top / "f").read_bytes() == (top / "g").read_bytes() == b"firstlater"
        assert stat.S_IMODE((top / "f").stat().st_mode) == 0o640
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o640)
        with pytest.raises(FileNotFoundError):
            linkat(
                AT_FDCWD,
                b"/proc/self/fd/%d" % fd,
                AT_FDCWD,
                os.fsencode(top / "h"),
                AT_SYMLINK_FOLLOW,
            )
        os.close(fd)


def test_birth_time(tops: tuple[Path, Path]) -> None:
    top, _ = tops
    (top / "d").mkdir()
    (top / "f").touch()
    (top / "s").symlink_to("f")
    for path in (top / "d", top / "f", top / "s"):
        found = statx(AT_FDCWD, os.fsencode(path), 0x100)
        assert found.mask & STATX_BTIME
        again = statx(AT_FDCWD, os.fsencode(path), 0x100)
        assert again == found
        status = os.lstat(path)
        assert (found.ino, found.mode, found.nlink, found.size, found.mtime, found.ctime) == (
            status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns,
            status.st_ctime_ns,
        )  # fmt: skip
        assert 0 <= found.mtime - found.btime < 10**10
    born = statx(AT_FDCWD, os.fsencode(top / "f")).btime
    os.utime(top / "f", (1, 1))
    assert statx(AT_FDCWD, os.fsencode(top / "f")).btime == born


def test_whiteouts_are_the_callers(tops: tuple[Path, Path], actors: list[Actor]) -> None:
    for top in tops:
        top.chmod(0o777)
    ann = actors[USERS.index(ANN)]
    ann.begin(*tops)
    assert ann.call("mknod", Where(b"f"), stat.S_IFREG | 0o644, 0)[0] == ("returned", None)
    ours, theirs = ann.call("rename", Where(b"f"), Where(b"g"), RENAME_WHITEOUT)
    assert ours == theirs == ("returned", None)
    ann.end()
    seen = [
        (oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev) for s in (os.lstat(t / "f") for t in tops)
    ]
    assert seen[0] == seen[1]
    assert stat.S_ISCHR((tops[0] / "f").lstat().st_mode)
    assert seen[0][1] == ANN.uid
    with pytest.raises(FileExistsError):
        renameat2(AT_FDCWD, os.fsencode(tops[0] / "g"), AT_FDCWD, os.fsencode(tops[0] / "f"), 1)


def test_appending_can_be_switched(tops: tuple[Path, Path]) -> None:
    """Of a file that the kernel does not write itself: it has set-id bits."""
    for top in tops:
        path = top / "f"
        path.write_bytes(b"0123456789")
        path.chmod(0o4755)
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            os.write(fd, b"end")
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_APPEND)
            os.pwrite(fd, b"ab", 0)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            os.pwrite(fd, b"END", 0)
            # What is written into a mapping goes where it is, whatever the descriptor.
            with mmap.mmap(fd, 4) as mapping:
                mapping[2:4] = b"cd"
                mapping.flush()
        finally:
            os.close(fd)
        assert path.read_bytes() == b"abcd456789endEND", top


def test_what_is_replaced_all_the_time_can_always_be_opened(tops: tuple[Path, Path]) -> None:
    top, _ = tops
    current = top / "current"
    current.symlink_to("content0")
    for number in range(2):
        (top / f"content{number}").write_bytes(b"x")
    done = threading.Event()
    replaced = threading.Thread(target=_replace, args=(top, done))
    replaced.start()
    try:
        for _ in range(400):
            assert current.read_bytes() == b"x"
            assert os.readlink(current).startswith("content")
    finally:
        done.set()
        replaced.join()


def _replace(top: Path, done: threading.Event) -> None:
    number = 0
    while not done.is_set():
        number = 1 - number
        (top / "new").symlink_to(f"content{number}")
        (top / "new").rename(top / "current")
        (top / "other").write_bytes(b"x")
        (top / "other").rename(top / f"content{number}")


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_is_removed_ends_on_the_disk_too(pairs: Pairs, is_replaced: bool) -> None:
    """Whoever watches the file beside the mount is told, once the client lets go of it."""
    pair = pairs.pair()
    pair.mnt.mkdir()
    for name in ("f", "other"):
        (pair.mnt / name).write_bytes(b"x")
    ends = Mask.DELETE_SELF
    with Ear(pair.src / "f", ends) as ear, (pair.mnt / "f").open("rb") as file:
        if is_replaced:
            (pair.mnt / "other").rename(pair.mnt / "f")
        else:
            (pair.mnt / "f").unlink()
        assert file.read() == b"x"
        assert not ear.heard
        file.close()
        ear.hear((ends, ""))


def test_the_directory_that_is_removed_ends_on_the_disk_too(pairs: Pairs) -> None:
    pair = pairs.pair()
    (pair.mnt / "d").mkdir(parents=True)
    with Ear(pair.src / "d", Mask.DELETE_SELF | Mask.ISDIR) as ear:
        (pair.mnt / "d").rmdir()
        ear.hear((Mask.DELETE_SELF, ""))


def test_more_open_files_than_the_server_was_started_with() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with FarwatchStage() as stage, contextlib.ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
            for number in range(400):
                stack.enter_context((stage.mnt / f"f{number}").open("w"))
            assert len(list(stage.acting.glob("f*"))) == 400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
