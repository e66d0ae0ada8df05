"""chattr(1) and lsattr(1) on MNT and SRC: inode flags, and what they do."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.export import flags
from tests.mounting.mounted import Area, wait_until

pytestmark = pytest.mark.root

NODUMP, APPEND, IMMUTABLE = 0x40, 0x20, 0x10
KINDS = ("file", "directory")


def get(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return int(struct.unpack_from("=I", fcntl.ioctl(fd, flags.GETFLAGS, bytes(8)))[0])
    finally:
        os.close(fd)


def put(path: Path, value: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, flags.SETFLAGS, struct.pack("=Q", value))
    finally:
        os.close(fd)


@pytest.fixture(params=KINDS)
def name(area: Area, request: pytest.FixtureRequest) -> Iterator[str]:
    made = str(request.param)
    path = area.src / made
    path.mkdir() if made == "directory" else path.write_text("content")
    yield made
    put(path, get(path) & ~(NODUMP | APPEND | IMMUTABLE))
    path.rmdir() if made == "directory" else path.unlink()


def test_told_and_set_on_both_sides(area: Area, name: str) -> None:
    mnt, src = area.mnt / name, area.src / name
    assert get(mnt) == get(src)
    put(mnt, get(mnt) | NODUMP)
    assert get(src) & NODUMP
    put(src, get(src) & ~NODUMP)
    assert not get(mnt) & NODUMP
    assert get(mnt) == get(src)


def test_the_change_time_is_new(area: Area, name: str) -> None:
    """No event says so; the client is not left with the old one."""
    mnt, src = area.mnt / name, area.src / name
    before = mnt.stat().st_ctime_ns
    put(mnt, get(mnt) | NODUMP)
    assert src.stat().st_ctime_ns > before
    wait_until(lambda: mnt.stat().st_ctime_ns == src.stat().st_ctime_ns, "the new time")


def test_extended(area: Area, name: str) -> None:
    def ask(path: Path) -> bytes:
        fd = os.open(path, os.O_RDONLY)
        try:
            return fcntl.ioctl(fd, flags.FSGETXATTR, bytes(28))
        finally:
            os.close(fd)

    mnt, src = area.mnt / name, area.src / name
    assert ask(mnt)[:20] == ask(src)[:20]
    put(src, get(src) | NODUMP)
    assert ask(mnt)[:20] == ask(src)[:20]
    fd = os.open(mnt, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, flags.FSSETXATTR, struct.pack("=5I8x", 0, 0, 0, 0, 0))
        assert not get(src) & NODUMP
        native = os.open(src, os.O_RDONLY)
        try:
            for each in (fd, native):
                assert len(fcntl.ioctl(each, flags.GETVERSION, bytes(8))) == 8
            assert fcntl.ioctl(fd, flags.GETVERSION, bytes(8)) == fcntl.ioctl(
                native, flags.GETVERSION, bytes(8)
            )
        finally:
            os.close(native)
    finally:
        os.close(fd)


def test_what_cannot_be_changed_is_not(area: Area) -> None:
    mnt, src = area.mnt / "fixed", area.src / "fixed"
    src.write_text("content")
    subprocess.run(["chattr", "+i", mnt], check=True)
    try:
        for change in (mnt.unlink, lambda: mnt.write_text("other"), lambda: mnt.chmod(0o600)):
            with pytest.raises(PermissionError):
                change()
        listed = subprocess.run(["lsattr", mnt], check=True, capture_output=True, text=True).stdout
        assert "i" in listed.split()[0]
    finally:
        subprocess.run(["chattr", "-i", mnt], check=True)
    subprocess.run(["chattr", "+a", mnt], check=True)
    try:
        with pytest.raises(PermissionError):
            mnt.write_text("other")
        with mnt.open("a") as file:
            file.write(" and more")
    finally:
        subprocess.run(["chattr", "-a", src], check=True)
    assert src.read_text() == "content and more"
    mnt.unlink()


_STRANGER = """
import errno, fcntl, os, struct, sys
os.setgid(65534); os.setuid(65534)
for path, flag in zip(sys.argv[2::2], sys.argv[3::2]):
    fd = os.open(path, os.O_RDONLY)
    value = struct.unpack_from("=I", fcntl.ioctl(fd, 0x80086601, bytes(8)))[0]
    try:
        fcntl.ioctl(fd, 0x40086602, struct.pack("=Q", value | int(flag)))
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_who_may(area: Area) -> None:
    """Its owner, but not what is root's to set; nobody else."""
    (area.src / "own").touch()
    os.chown(area.src / "own", 65534, 65534)
    (area.src / "other").touch(0o644)
    for side in (area.mnt, area.src):
        wanted = [side / "own", NODUMP, side / "own", IMMUTABLE, side / "other", NODUMP]
        done = subprocess.run(
            [sys.executable, "-Ic", _STRANGER, "", *map(str, wanted)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == ["done", "EPERM", "EPERM"], side
    for made in ("own", "other"):
        (area.mnt / made).unlink()


def test_other_ioctls_are_refused(area: Area) -> None:
    path = area.mnt / "plain"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    try:
        for command in (0x5401, 0xC0185879, 0x4008_6604):
            with pytest.raises(OSError, match=r"Inappropriate ioctl|not supported"):
                fcntl.ioctl(fd, command, bytes(64))
    finally:
        os.close(fd)
        path.unlink()
