"""The same calls on a directory by the system, and on an export by the client.

Both sides raise OSError; the names are the system calls'.  ``Native`` is what is right.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from farwatch.client.files import File
from farwatch.linux.files import linkat, renameat2
from tests.client.inprocess import InProcess

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400


class Handle(Protocol):
    """An open file."""

    def read(self, size: int) -> bytes: ...
    def pread(self, size: int, offset: int) -> bytes: ...
    def write(self, data: bytes) -> int: ...
    def pwrite(self, data: bytes, offset: int) -> int: ...
    def truncate(self, size: int) -> object: ...
    def chmod(self, mode: int) -> object: ...
    def utime(self, atime_ns: int, mtime_ns: int) -> object: ...
    def allocate(self, size: int) -> object: ...
    def size(self) -> int: ...
    def close(self) -> object: ...


class Calls(Protocol):
    """What both sides can do."""

    def mkdir(self, path: str, mode: int = 0o755) -> object: ...
    def mknod(self, path: str, mode: int = 0o100644) -> object: ...
    def symlink(self, target: str, path: str) -> object: ...
    def link(self, old: str, new: str, *, follow: bool = False) -> object: ...
    def unlink(self, path: str) -> object: ...
    def rmdir(self, path: str) -> object: ...
    def rename(self, old: str, new: str, flags: int = 0) -> object: ...
    def chmod(self, path: str, mode: int) -> object: ...
    def chown(
        self, path: str, uid: int | None, gid: int | None, *, follow: bool = True
    ) -> object: ...
    def utime(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> object: ...
    def truncate(self, path: str, size: int) -> object: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> object: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def removexattr(self, path: str, name: str) -> object: ...
    def listdir(self, path: str) -> list[str]: ...
    def readlink(self, path: str) -> str: ...
    def stat(self, path: str, *, follow: bool = True) -> tuple[int, int, int]: ...
    def open(self, path: str, flags: int, mode: int = 0o644) -> Handle: ...


def put(calls: Calls, path: str, data: bytes = b"x") -> object:
    """Makes a file with this in it."""
    file = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        return file.write(data)
    finally:
        file.close()


class NativeHandle:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, size: int) -> bytes:
        return os.read(self.fd, size)

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def write(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def pwrite(self, data: bytes, offset: int) -> int:
        return os.pwrite(self.fd, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def chmod(self, mode: int) -> None:
        os.fchmod(self.fd, mode)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.fd, ns=(atime_ns, mtime_ns))

    def allocate(self, size: int) -> None:
        os.posix_fallocate(self.fd, 0, size)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)


class Native:
    """The system calls, below a directory that counts as the root of all paths."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _at(self, path: str) -> str:
        return str(self.root) + "/" + path.lstrip("/") if path else ""

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        os.mkdir(self._at(path), mode)

    def mknod(self, path: str, mode: int = 0o100644) -> None:
        os.mknod(self._at(path), mode)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def link(self, old: str, new: str, *, follow: bool = False) -> None:
        # os.link never follows, whatever it is told.
        flags = AT_SYMLINK_FOLLOW if follow else 0
        linkat(AT_FDCWD, self._at(old).encode(), AT_FDCWD, self._at(new).encode(), flags)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        renameat2(AT_FDCWD, self._at(old).encode(), AT_FDCWD, self._at(new).encode(), flags)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: str, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        numbers = (-1 if uid is None else uid, -1 if gid is None else gid)
        os.chown(self._at(path), *numbers, follow_symlinks=follow)

    def utime(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        # os.utime has no UTIME_OMIT; touch(1) has.
        if atime_ns is not None and mtime_ns is not None:
            os.utime(self._at(path), ns=(atime_ns, mtime_ns))
        else:
            utimensat(self._at(path), atime_ns, mtime_ns)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), size)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        os.setxattr(self._at(path), name, value, flags)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def stat(self, path: str, *, follow: bool = True) -> tuple[int, int, int]:
        found = os.stat(self._at(path), follow_symlinks=follow)
        return found.st_mode, found.st_nlink if found.st_mode & 0o100000 else 0, found.st_uid

    def open(self, path: str, flags: int, mode: int = 0o644) -> NativeHandle:
        return NativeHandle(os.open(self._at(path), flags | os.O_NONBLOCK, mode))


def utimensat(path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
    """utimensat(2) with UTIME_OMIT for None."""
    omit = (1 << 30) - 2
    times = (ctypes.c_long * 4)(
        *(
            part
            for moment in (atime_ns, mtime_ns)
            for part in ((0, omit) if moment is None else divmod(moment, 1_000_000_000))
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.utimensat(AT_FDCWD, path.encode(), times, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class ClientHandle:
    def __init__(self, there: InProcess, file: File) -> None:
        self._run: Callable[..., Any] = there.run
        self._file = file

    def read(self, size: int) -> bytes:
        found: bytes = self._run(self._file.read(size))
        return found

    def pread(self, size: int, offset: int) -> bytes:
        found: bytes = self._run(self._file.pread(size, offset))
        return found

    def write(self, data: bytes) -> int:
        written: int = self._run(self._file.write(data))
        return written

    def pwrite(self, data: bytes, offset: int) -> int:
        written: int = self._run(self._file.pwrite(data, offset))
        return written

    def truncate(self, size: int) -> None:
        self._run(self._file.truncate(size))

    def chmod(self, mode: int) -> None:
        self._run(self._file.chmod(mode))

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        self._run(self._file.utime(atime_ns, mtime_ns))

    def allocate(self, size: int) -> None:
        self._run(self._file.allocate(0, 0, size))

    def size(self) -> int:
        found: int = self._run(self._file.stat()).size
        return found

    def close(self) -> None:
        self._run(self._file.close())


class Client:
    """The same through the client's kernel layer."""

    def __init__(self, there: InProcess) -> None:
        self._there = there
        self._run: Callable[..., Any] = there.run
        self._kernel = there.kernel

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._run(self._kernel.mkdir(path, mode))

    def mknod(self, path: str, mode: int = 0o100644) -> None:
        self._run(self._kernel.mknod(path, mode))

    def symlink(self, target: str, path: str) -> None:
        self._run(self._kernel.symlink(target, path))

    def link(self, old: str, new: str, *, follow: bool = False) -> None:
        self._run(self._kernel.link(old, new, follow=follow))

    def unlink(self, path: str) -> None:
        self._run(self._kernel.unlink(path))

    def rmdir(self, path: str) -> None:
        self._run(self._kernel.rmdir(path))

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        self._run(self._kernel.rename(old, new, flags))

    def chmod(self, path: str, mode: int) -> None:
        self._run(self._kernel.chmod(path, mode))

    def chown(self, path: str, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        self._run(self._kernel.chown(path, uid, gid, follow=follow))

    def utime(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        self._run(self._kernel.utime(path, atime_ns, mtime_ns))

    def truncate(self, path: str, size: int) -> None:
        self._run(self._kernel.truncate(path, size))

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        self._run(self._kernel.setxattr(path, name, value, flags))

    def getxattr(self, path: str, name: str) -> bytes:
        found: bytes = self._run(self._kernel.getxattr(path, name))
        return found

    def removexattr(self, path: str, name: str) -> None:
        self._run(self._kernel.removexattr(path, name))

    def listdir(self, path: str) -> list[str]:
        return sorted(name.decode() for name in self._run(self._kernel.listdir(path)))

    def readlink(self, path: str) -> str:
        found: bytes = self._run(self._kernel.readlink(path))
        return found.decode()

    def stat(self, path: str, *, follow: bool = True) -> tuple[int, int, int]:
        found = self._run(self._kernel.stat(path, follow=follow)).status()
        return found.st_mode, found.st_nlink if found.st_mode & 0o100000 else 0, found.st_uid

    def open(self, path: str, flags: int, mode: int = 0o644) -> ClientHandle:
        return ClientHandle(self._there, self._run(self._kernel.open(path, flags, mode)))
