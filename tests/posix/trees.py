"""Two trees that are to be alike: furnished, and compared."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.posix.calls import errno_name, seen
from tests.posix.drawn import ANN, BOB, TEAM


def furnish(top: Path) -> None:
    """Something of every kind, so that few calls meet nothing."""
    top.mkdir()
    top.chmod(0o777)
    _directory(top / "a", 0, TEAM, 0o2777)
    _directory(top / "b", 0, 0, 0o1777)
    _directory(top / "a" / "b", ANN.uid, TEAM, 0o2775)
    _directory(top / "b" / "b", BOB.uid, TEAM, 0o750)
    _file(top / "a" / "a", ANN.uid, TEAM, 0o664, b"ann's")
    _file(top / "b" / "a", BOB.uid, BOB.groups[0], 0o666, b"bob's" * 2000)
    _file(top / "c", 0, 0, 0o4755, b"root's")
    _file(top / "a" / "c", ANN.uid, TEAM, 0o6775, b"for all")
    (top / "b" / "c").hardlink_to(top / "a" / "c")
    (top / "d").symlink_to("a/a")
    (top / "a" / "d").symlink_to("b")
    os.mkfifo(top / "b" / "d", 0o666)


def _directory(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)


def _file(path: Path, uid: int, gid: int, mode: int, content: bytes) -> None:
    path.write_bytes(content)
    os.chown(path, uid, gid)
    path.chmod(mode)


def differences(tops: Sequence[Path]) -> Iterator[str]:
    """Where trees are not alike: names, all that stat tells, hard links, xattrs, contents."""
    first: list[dict[int, bytes]] = [{} for _ in tops]
    yield from _compare([os.fsencode(top) for top in tops], b"", first)


def _compare(tops: list[bytes], name: bytes, first: list[dict[int, bytes]]) -> Iterator[str]:
    paths = [os.path.join(top, name) if name else top for top in tops]
    # Before anything is read, which is seen by the time of access.
    statuses = [os.lstat(path) for path in paths]
    nodes = [
        (*seen(status), known.setdefault(status.st_ino, name))
        for status, known in zip(statuses, first, strict=True)
    ]
    yield from _unlike(name, "node", nodes)
    yield from _unlike(name, "xattrs", [_xattrs(path) for path in paths])
    kinds = {stat.S_IFMT(status.st_mode) for status in statuses}
    if kinds == {stat.S_IFLNK}:
        yield from _unlike(name, "target", [os.readlink(path) for path in paths])
    elif kinds == {stat.S_IFREG}:
        yield from _unlike(name, "content", [_content(path) for path in paths])
    elif kinds == {stat.S_IFDIR}:
        listings = [_listing(path) for path in paths]
        yield from _unlike(name, "entries", listings)
        if all(each == listings[0] for each in listings):
            for each, _ in listings[0]:
                yield from _compare(tops, os.path.join(name, each), first)


def _unlike(name: bytes, what: str, found: Sequence[Any]) -> Iterator[str]:
    if any(each != found[0] for each in found):
        yield "\n  ".join([f"{what} of {name!r}:", *map(repr, found)])


def _xattrs(path: bytes) -> list[tuple[str, bytes | str]]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [(name, _xattr(path, name)) for name in names]


def _xattr(path: bytes, name: str) -> bytes | str:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        return errno_name(error)


def _content(path: bytes) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
        return file.read()


def _listing(path: bytes) -> list[tuple[bytes, bool]]:
    """Names, and whether the number that stands beside each is its inode's."""
    with os.scandir(path) as entries:
        return sorted(
            (entry.name, entry.inode() == os.lstat(entry.path).st_ino) for entry in entries
        )
