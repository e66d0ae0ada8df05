"""The same operations by plain system calls in a directory: what Export has to equal.

A node is a path here, resolved name by name and never through a symbolic link.
Making a node as a user really is done as that user.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from farwatch.export.tree import OMIT, Caller, SetAttr
from farwatch.linux.files import AT_SYMLINK_NOFOLLOW, renameat2, utimensat

Path = tuple[bytes, ...]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def being(caller: Caller) -> Iterator[None]:
    """Be the caller, and not a member of any other group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(caller.gid)
    os.seteuid(caller.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class Native:
    """A tree at ``base``, worked on by the calls that programs use."""

    def __init__(self, base: bytes) -> None:
        self._base = base

    @contextmanager
    def _at(self, directory: Path) -> Iterator[int]:
        fd = os.open(self._base, _DIRECTORY)
        try:
            for name in directory:
                below = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _stat(self, fd: int, name: bytes) -> os.stat_result:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def getattr(self, node: Path) -> os.stat_result:
        with self._at(node[:-1]) as fd:
            return self._stat(fd, node[-1] if node else b".")

    def mknod(
        self, directory: Path, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> os.stat_result:
        with self._at(directory) as fd:
            with being(caller):
                os.mknod(name, mode, rdev, dir_fd=fd)
            return self._stat(fd, name)

    def mkdir(self, directory: Path, name: bytes, mode: int, caller: Caller) -> os.stat_result:
        with self._at(directory) as fd:
            with being(caller):
                os.mkdir(name, mode, dir_fd=fd)
            return self._stat(fd, name)

    def symlink(
        self, directory: Path, name: bytes, target: bytes, caller: Caller
    ) -> os.stat_result:
        with self._at(directory) as fd:
            with being(caller):
                os.symlink(target, name, dir_fd=fd)
            return self._stat(fd, name)

    def create(
        self, directory: Path, name: bytes, mode: int, flags: int, content: bytes, caller: Caller
    ) -> os.stat_result:
        with self._at(directory) as fd:
            with being(caller):
                opened = os.open(
                    name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=fd
                )
            try:
                os.pwrite(opened, content, 0)
                return os.fstat(opened)
            finally:
                os.close(opened)

    def link(self, node: Path, directory: Path, name: bytes) -> os.stat_result:
        with self._at(node[:-1]) as old:
            self._stat(old, node[-1])  # ENOENT comes before what is wrong with the directory
            with self._at(directory) as new:
                os.link(node[-1], name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
                return self._stat(new, name)

    def unlink(self, directory: Path, name: bytes) -> None:
        with self._at(directory) as fd:
            os.unlink(name, dir_fd=fd)

    def rmdir(self, directory: Path, name: bytes) -> None:
        with self._at(directory) as fd:
            os.rmdir(name, dir_fd=fd)

    def rename(
        self, old_directory: Path, old: bytes, new_directory: Path, new: bytes, flags: int
    ) -> None:
        with self._at(old_directory) as old_fd, self._at(new_directory) as new_fd:
            renameat2(old_fd, old, new_fd, new, flags)

    def readlink(self, node: Path) -> bytes:
        with self._at(node[:-1]) as fd:
            return os.readlink(node[-1], dir_fd=fd)

    def setattr(self, node: Path, changes: SetAttr) -> os.stat_result:
        with self._at(node[:-1]) as fd:
            name = node[-1]
            # Without this a symbolic link would be followed by truncate and chmod.
            path = b"/proc/self/fd/%d/" % fd + name
            if changes.uid is not None or changes.gid is not None:
                uid = -1 if changes.uid is None else changes.uid
                gid = -1 if changes.gid is None else changes.gid
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
            if changes.mode is not None:
                os.chmod(path, changes.mode)
            if changes.size is not None:
                os.truncate(path, changes.size)
            if (changes.atime_ns, changes.mtime_ns) != (OMIT, OMIT):
                utimensat(fd, name, changes.atime_ns, changes.mtime_ns, AT_SYMLINK_NOFOLLOW)
            return self._stat(fd, name)

    def setxattr(self, node: Path, name: bytes, value: bytes, flags: int) -> None:
        with self._at(node[:-1]) as fd:
            path = b"/proc/self/fd/%d/" % fd + node[-1]
            os.setxattr(path, name, value, flags, follow_symlinks=False)

    def removexattr(self, node: Path, name: bytes) -> None:
        with self._at(node[:-1]) as fd:
            path = b"/proc/self/fd/%d/" % fd + node[-1]
            os.removexattr(path, name, follow_symlinks=False)
