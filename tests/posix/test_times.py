"""Which times each call changes, on a mount and in a plain directory; and times that are set."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farwatch.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW, NOW, OMIT, utimensat
from tests.posix.conftest import Pairs

pytestmark = pytest.mark.root

LONG_AGO = 1_000_000_000_123_456_789


def _write_mapped(top: Path) -> None:
    with (top / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:3] = b"new"
        mapping.flush()


def _append(top: Path) -> None:
    with (top / "f").open("ab") as file:
        file.write(b"more")


def _link_and_unlink(top: Path) -> None:
    (top / "g").hardlink_to(top / "f")
    (top / "g").unlink()


def _open(top: Path, flags: int) -> None:
    os.close(os.open(top / "f", flags))


CALLS: dict[str, Callable[[Path], object]] = {
    "read": lambda top: (top / "f").read_bytes(),
    "write": lambda top: (top / "f").write_bytes(b"new"),
    "append": _append,
    "write mapped": _write_mapped,
    "open": lambda top: _open(top, os.O_RDWR),
    "open to truncate": lambda top: _open(top, os.O_WRONLY | os.O_TRUNC),
    "truncate": lambda top: os.truncate(top / "f", 1),
    "truncate to the same size": lambda top: os.truncate(top / "f", 7),
    "chmod": lambda top: (top / "f").chmod(0o600),
    "chown": lambda top: os.chown(top / "f", 1, 2),
    "setxattr": lambda top: os.setxattr(top / "f", "user.x", b""),
    "link": lambda top: (top / "g").hardlink_to(top / "f"),
    "rename": lambda top: (top / "f").rename(top / "f2").rename(top / "f"),
    "unlink a link": _link_and_unlink,
    "create": lambda top: (top / "new").touch(),
    "mkdir": lambda top: (top / "new").mkdir(),
    "list": os.listdir,
    "readlink": lambda top: os.readlink(top / "s"),
    "look": lambda top: os.lstat(top / "f"),
}


def _changed(top: Path, call: Callable[[Path], object]) -> dict[str, list[bool]]:
    top.mkdir()
    (top / "f").write_bytes(b"content")
    (top / "s").symlink_to("f")
    paths = {"file": top / "f", "link": top / "s", "directory": top}
    for path in paths.values():
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    before = {name: _times(path) for name, path in paths.items()}
    call(top)
    after = {name: _times(path) for name, path in paths.items()}
    return {
        name: [one != other for one, other in zip(before[name], after[name], strict=True)]
        for name in paths
    }


def _times(path: Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_changes(pairs: Pairs, name: str) -> None:
    pair = pairs.pair()
    # Long ago is before anything was read, so that reading is noted (relatime).
    assert _changed(pair.mnt, CALLS[name]) == _changed(pair.plain, CALLS[name])


@pytest.mark.parametrize("atime", [NOW, OMIT, 0, -1, 999_999_999, LONG_AGO, 1 << 62])
@pytest.mark.parametrize("mtime", [NOW, OMIT, -1_500_000_001, LONG_AGO])
def test_times_that_are_set(pairs: Pairs, atime: int, mtime: int) -> None:
    pair = pairs.pair()
    found = []
    for top in (pair.mnt, pair.plain):
        top.mkdir()
        (top / "f").touch()
        (top / "s").symlink_to("f")
        for path in (top, top / "f", top / "s"):
            os.utime(path, ns=(5, 6), follow_symlinks=False)
            utimensat(AT_FDCWD, os.fsencode(path), atime, mtime, AT_SYMLINK_NOFOLLOW)
            found.append((top is pair.mnt, path.name, _seen(_times(path)[:2])))
    ours = [seen for on_mount, _, seen in found if on_mount]
    assert ours == [seen for on_mount, _, seen in found if not on_mount]


def _seen(times: tuple[int, ...]) -> list[int | str]:
    return ["now" if 1_600_000_000_000_000_000 < time < 1 << 61 else time for time in times]
