"""Accesses, done by the kernel in a directory and by a client of a server of another.

Each access is a tuple of words; both sides answer "ok" with what they saw, or an errno.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

from farwatch.linux.files import renameat2
from farwatch.linux.inotify import Inotify
from tests.serving.wire import MARK, Client
from tests.session.kernel import (
    GETXATTR,
    LISTXATTR,
    READLINK,
    REMOVEXATTR,
    ROOT,
    SETXATTR,
    Refused,
    setattr_body,
)

MODE, UID, GID, SIZE, ATIME, MTIME, FH, ATIME_NOW, MTIME_NOW = (1 << bit for bit in range(9))
SETATTR, STATFS = 4, 17
PAST = 1_000_000_000
NO_ID = 0xFFFF_FFFF


class Who(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]


def become(who: Who) -> None:
    """For a process that is only for this."""
    os.umask(0)
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)


def outcome(side: Native | Served, access: tuple[object, ...]) -> str:
    word, *arguments = access
    try:
        return f"ok {getattr(side, f'do_{word}')(*arguments) or ''}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


class Native:
    """System calls of this process below a directory."""

    def __init__(self, top: str) -> None:
        self.top = top

    def _at(self, path: str) -> str:
        return os.path.join(self.top, path)

    def do_open(self, path: str, flags: int) -> None:
        os.close(os.open(self._at(path), flags | os.O_NOFOLLOW))

    def do_truncate(self, path: str) -> None:
        os.truncate(self._at(path), 1)

    def do_ftruncate(self, path: str, flags: int) -> None:
        fd = os.open(self._at(path), flags)
        try:
            os.ftruncate(fd, 1)
        finally:
            os.close(fd)

    def do_chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def do_chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def do_utime(self, path: str, which: str) -> None:
        if which == "now":
            os.utime(self._at(path))
        else:
            os.utime(self._at(path), (PAST, PAST))

    def do_getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name)

    def do_setxattr(self, path: str, name: str) -> None:
        os.setxattr(self._at(path), name, b"value")

    def do_removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name)

    def do_listxattr(self, path: str) -> list[str]:
        return sorted(os.listxattr(self._at(path)))

    def do_link(self, old: str, new: str) -> None:
        os.link(self._at(old), self._at(new), follow_symlinks=False)

    def do_symlink(self, path: str) -> None:
        os.symlink("target", self._at(path))

    def do_readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def do_mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def do_mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self._at(path), mode, device)

    def do_create(self, path: str, mode: int) -> None:
        os.close(os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def do_unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def do_rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def do_rename(self, old: str, new: str, flags: int = 0) -> None:
        renameat2(-100, self._at(old).encode(), -100, self._at(new).encode(), flags)

    def do_lookup(self, path: str) -> None:
        os.lstat(self._at(path))

    def do_list(self, path: str) -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def do_watch(self, path: str, mask: int) -> None:
        with Inotify() as group:
            group.add(self._at(path), mask | 0x0200_0000)


class Served:
    """The same by a client, below a directory of what is served."""

    def __init__(self, client: Client, top: str) -> None:
        self.client = client
        self.top = top

    def _node(self, path: str) -> int:
        node = ROOT
        for name in filter(None, f"{self.top}/{path}".split("/")):
            node = self.client.lookup(name, node).node
        return node

    def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        return self._node(directory), name

    def _setattr(self, path: str, valid: int, **fields: int) -> None:
        self.client.ask(SETATTR, self._node(path), setattr_body(valid, **fields))

    def do_open(self, path: str, flags: int) -> None:
        node = self._node(path)
        self.client.release(node, self.client.open(node, flags).fh)

    def do_truncate(self, path: str) -> None:
        self._setattr(path, SIZE, size=1)

    def do_ftruncate(self, path: str, flags: int) -> None:
        node = self._node(path)
        fh = self.client.open(node, flags).fh
        try:
            self.client.ask(SETATTR, node, setattr_body(SIZE | FH, fh, size=1))
        finally:
            self.client.release(node, fh)

    def do_chmod(self, path: str, mode: int) -> None:
        self._setattr(path, MODE, mode=mode)

    def do_chown(self, path: str, uid: int, gid: int) -> None:
        valid = (UID if uid != -1 else 0) | (GID if gid != -1 else 0)
        self._setattr(path, valid, uid=uid & NO_ID, gid=gid & NO_ID)

    def do_utime(self, path: str, which: str) -> None:
        now = ATIME_NOW | MTIME_NOW if which == "now" else 0
        self._setattr(path, ATIME | MTIME | now, atime=PAST, mtime=PAST)

    def do_getxattr(self, path: str, name: str) -> bytes:
        body = struct.pack("<II", 4096, 0) + name.encode() + b"\0"
        return self.client.ask(GETXATTR, self._node(path), body)

    def do_setxattr(self, path: str, name: str) -> None:
        body = struct.pack("<II", 5, 0) + name.encode() + b"\0value"
        self.client.ask(SETXATTR, self._node(path), body)

    def do_removexattr(self, path: str, name: str) -> None:
        self.client.ask(REMOVEXATTR, self._node(path), name.encode() + b"\0")

    def do_listxattr(self, path: str) -> list[str]:
        found = self.client.ask(LISTXATTR, self._node(path), struct.pack("<II", 4096, 0))
        return sorted(name.decode() for name in found.split(b"\0")[:-1])

    def do_link(self, old: str, new: str) -> None:
        node = self._node(old)
        directory, name = self._parent(new)
        self.client.link(node, name, directory)

    def do_symlink(self, path: str) -> None:
        directory, name = self._parent(path)
        self.client.symlink(name, b"target", directory)

    def do_readlink(self, path: str) -> str:
        return self.client.ask(READLINK, self._node(path)).decode()

    def do_mkdir(self, path: str, mode: int) -> None:
        directory, name = self._parent(path)
        self.client.mkdir(name, mode, directory)

    def do_mknod(self, path: str, mode: int, device: int) -> None:
        directory, name = self._parent(path)
        self.client.mknod(name, mode, directory, rdev=device)

    def do_create(self, path: str, mode: int) -> None:
        directory, name = self._parent(path)
        entry, opened = self.client.create(name, os.O_RDWR | os.O_EXCL, mode, directory)
        self.client.release(entry.node, opened.fh)

    def do_unlink(self, path: str) -> None:
        directory, name = self._parent(path)
        self.client.unlink(name, directory)

    def do_rmdir(self, path: str) -> None:
        directory, name = self._parent(path)
        self.client.rmdir(name, directory)

    def do_rename(self, old: str, new: str, flags: int = 0) -> None:
        (directory, name), (new_directory, new_name) = self._parent(old), self._parent(new)
        self.client.rename(name, new_name, directory, new_directory, flags)

    def do_lookup(self, path: str) -> None:
        self.client.getattr(self._node(path))

    def do_list(self, path: str) -> list[str]:
        found = {name.decode() for name in self.client.list(self._node(path), plus=False)}
        return sorted(found - {".", ".."})

    def do_watch(self, path: str, mask: int) -> None:
        directory, name = self._parent(path)
        entry = self.client.lookup(name, directory)
        for wanted in (mask, 0):
            body = struct.pack("<QII", entry.generation, wanted, 0)
            self.client.ask(MARK, entry.node, body)


__all__ = ["Native", "Refused", "Served", "Who", "become", "outcome"]
