"""Changes of a small tree, made in SRC or through MNT, and how one hears that each is over.

    write append touch-up   of a file that may be there or not
    map                     a change that only the close tells of
    link unlink rename exchange mkdir rmdir symlink chmod utime xattr

Names are few, so that they are used again and again: by files, directories and links.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from farwatch.linux import files

DIRECTORIES = ("", "d", "e")
"""Of which names are made; "" is the tree's top."""
NAMES = ("a", "b", "c")
PATHS = tuple(os.path.join(directory, name) for directory in DIRECTORIES for name in NAMES)

CREATE, DELETE, MOVED_TO, CLOSE_WRITE, ATTRIB = 0x100, 0x200, 0x80, 0x8, 0x4
"""inotify(7)"""


class Heard(NamedTuple):
    """The event after which a change is over: its kind, and the path that it names."""

    kind: int
    path: str


class Change(NamedTuple):
    """One change; ``is_local`` if it is made through MNT."""

    what: str
    path: str
    other: str
    size: int
    is_local: bool

    def __repr__(self) -> str:
        where = "local " if self.is_local else ""
        other = f" {self.other}" if self.what in _TWO else ""
        return f"<{where}{self.what} {self.path}{other} {self.size}>"

    def make(self, top: Path) -> Heard | None:
        """Make it below ``top``; None if that cannot be done there, and nothing was."""
        try:
            return _MAKERS[self.what](top, self)
        except OSError:
            return None


_TWO = frozenset(("link", "rename", "exchange"))


@contextmanager
def _opened(top: Path, change: Change, flags: int) -> Iterator[int]:
    """What is at the path itself, open: what a link points to is no name of the tree's."""
    fd = os.open(top / change.path, flags | os.O_NOFOLLOW, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(top: Path, change: Change) -> Heard:
    with _opened(top, change, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        os.write(fd, b"w" * change.size)
    return Heard(CLOSE_WRITE, change.path)


def _overwrite(top: Path, change: Change) -> Heard:
    """As many bytes as before, but others."""
    with _opened(top, change, os.O_WRONLY) as fd:
        os.write(fd, os.urandom(max(os.fstat(fd).st_size, 1)))
    return Heard(CLOSE_WRITE, change.path)


def _append(top: Path, change: Change) -> Heard:
    with _opened(top, change, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"more")
    return Heard(CLOSE_WRITE, change.path)


def _map(top: Path, change: Change) -> Heard:
    with _opened(top, change, os.O_RDWR) as fd:
        if os.fstat(fd).st_size:
            with mmap.mmap(fd, 0) as area:
                area[:1] = os.urandom(1)
    return Heard(CLOSE_WRITE, change.path)


def _unlink(top: Path, change: Change) -> Heard:
    os.unlink(top / change.path)
    return Heard(DELETE, change.path)


def _rmdir(top: Path, change: Change) -> Heard:
    os.rmdir(top / change.path)
    return Heard(DELETE, change.path)


def _mkdir(top: Path, change: Change) -> Heard:
    os.mkdir(top / change.path)
    return Heard(CREATE, change.path)


def _symlink(top: Path, change: Change) -> Heard:
    os.symlink(f"to-{change.size}", top / change.path)
    return Heard(CREATE, change.path)


def _link(top: Path, change: Change) -> Heard:
    _must_not_be_a_link(top / change.path)
    os.link(top / change.path, top / change.other, follow_symlinks=False)
    return Heard(CREATE, change.other)


def _rename(top: Path, change: Change) -> Heard | None:
    old, new = top / change.path, top / change.other
    if os.path.lexists(new) and os.path.samestat(os.lstat(old), os.lstat(new)):
        return None  # rename(2) of two links of one file does nothing
    os.rename(old, new)
    return Heard(MOVED_TO, change.other)


def _exchange(top: Path, change: Change) -> Heard | None:
    if os.path.samestat(os.lstat(top / change.path), os.lstat(top / change.other)):
        return None
    old, new = bytes(top / change.path), bytes(top / change.other)
    files.renameat2(files.AT_FDCWD, old, files.AT_FDCWD, new, _RENAME_EXCHANGE)
    return Heard(MOVED_TO, change.path)


_RENAME_EXCHANGE = 2
"""linux/fs.h"""


def _chmod(top: Path, change: Change) -> Heard:
    _must_not_be_a_link(top / change.path)
    os.chmod(top / change.path, 0o700 | change.size & 0o77)
    return Heard(ATTRIB, change.path)


def _utime(top: Path, change: Change) -> Heard:
    os.utime(top / change.path, (change.size, 1000 * change.size), follow_symlinks=False)
    return Heard(ATTRIB, change.path)


def _xattr(top: Path, change: Change) -> Heard:
    _must_not_be_a_link(top / change.path)
    os.setxattr(top / change.path, "user.test", b"%d" % change.size)
    return Heard(ATTRIB, change.path)


def _must_not_be_a_link(path: Path) -> None:
    if path.is_symlink():
        raise OSError(0, "what it points to is no name of the tree's")


_MAKERS: dict[str, Callable[[Path, Change], Heard | None]] = {
    "write": _write,
    "overwrite": _overwrite,
    "append": _append,
    "map": _map,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "link": _link,
    "rename": _rename,
    "exchange": _exchange,
    "chmod": _chmod,
    "utime": _utime,
    "xattr": _xattr,
}

CHANGES = st.builds(
    Change,
    st.sampled_from(tuple(_MAKERS)),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
    st.integers(1, 5000),
    st.integers(0, 4).map(lambda number: number == 0),
)
"""One in five is the client's own."""
