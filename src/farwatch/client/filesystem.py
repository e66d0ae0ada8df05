"""The files of a server, for a program: no mount and no privileges are needed."""

from __future__ import annotations

import os
import stat as stat_
from types import TracebackType
from typing import Self

from farwatch.client import files
from farwatch.client.answers import Attributes, Dirent
from farwatch.client.asking import Path
from farwatch.client.attributes import NOW
from farwatch.client.client import Client
from farwatch.client.inotify import LIMIT, Inotify


class OpenFile:
    """An open regular file; a context that closes it.

    Every method raises OSError with the server's errno, ConnectionError once the connection
    on which it was opened is lost, and Misuse once it is closed.
    """

    def __init__(self, client: Client, file: files.File) -> None:
        self._client = client
        self._file = file

    async def read(self, size: int = -1) -> bytes:
        """The next bytes: at most ``size``, or (-1) all that there are."""
        return await self._client.run(self._file.read(size))

    async def pread(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        return await self._client.run(self._file.pread(size, offset))

    async def write(self, data: bytes) -> int:
        """Writes at the position, or the end with O_APPEND; how many bytes were written."""
        return await self._client.run(self._file.write(data))

    async def pwrite(self, data: bytes, offset: int) -> int:
        """Writes at ``offset``; how many bytes were written."""
        return await self._client.run(self._file.pwrite(data, offset))

    def seek(self, offset: int) -> None:
        """Where the next read or write begins, in bytes from the start."""
        self._file.seek(offset)

    async def stat(self) -> os.stat_result:
        """fstat(2)."""
        return (await self._client.run(self._file.stat())).status()

    async def truncate(self, size: int) -> None:
        """ftruncate(2)."""
        await self._client.run(self._file.truncate(size))

    async def allocate(self, offset: int, length: int, mode: int = 0) -> None:
        """fallocate(2)."""
        await self._client.run(self._file.allocate(mode, offset, length))

    async def chmod(self, mode: int) -> None:
        """fchmod(2)."""
        await self._client.run(self._file.chmod(mode))

    async def utime(self, atime_ns: int | None = NOW, mtime_ns: int | None = NOW) -> None:
        """futimens(3)."""
        await self._client.run(self._file.utime(atime_ns, mtime_ns))

    async def sync(self, *, data_only: bool = False) -> None:
        """fsync(2), or fdatasync(2)."""
        await self._client.run(self._file.sync(data_only=data_only))

    async def close(self) -> None:
        """close(2).  Twice is once."""
        if not self._file.closed:
            await self._client.run(self._file.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class FileSystem(Client):
    """A server's export; a context that connects and disconnects (see ``Client``).

    Paths are absolute within the export, and nothing is cached: every operation asks.  They
    raise OSError with the errno of the system call that is named.
    """

    def inotify(self, *, limit: int = LIMIT) -> Inotify:
        """A new inotify instance, whose queue takes ``limit`` events."""
        return Inotify(self, self._places if self._reconnects else None, limit=limit)

    # Files and directories -----------------------------------------------------------

    async def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> OpenFile:
        """open(2) of a regular file, with ``os.O_…`` flags."""
        return OpenFile(self, await self.run(self.kernel.open(path, flags, mode)))

    async def read_bytes(self, path: Path) -> bytes:
        """All of a file."""
        async with await self.open(path) as file:
            return await file.read()

    async def write_bytes(self, path: Path, data: bytes) -> None:
        """Makes a file, or empties it, and writes this."""
        async with await self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            while data:
                data = data[await file.write(data) :]

    async def listdir(self, path: Path = "/") -> list[bytes]:
        """The names in a directory."""
        return await self.run(self.kernel.listdir(path))

    async def scandir(self, path: Path = "/") -> list[Dirent]:
        """The names in a directory, and of each what a look-up tells, where it was told."""
        return await self.run(self.kernel.scandir(path, plus=True))

    # Names ---------------------------------------------------------------------------

    async def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """mkdir(2)."""
        await self.run(self.kernel.mkdir(path, mode))

    async def mknod(self, path: Path, mode: int = 0o644 | stat_.S_IFREG, device: int = 0) -> None:
        """mknod(2)."""
        await self.run(self.kernel.mknod(path, mode, device))

    async def symlink(self, target: str | bytes, path: Path) -> None:
        """symlink(2): ``path`` will point to ``target``."""
        await self.run(self.kernel.symlink(target, path))

    async def link(self, old: Path, new: Path) -> None:
        """link(2)."""
        await self.run(self.kernel.link(old, new))

    async def unlink(self, path: Path) -> None:
        """unlink(2)."""
        await self.run(self.kernel.unlink(path))

    async def rmdir(self, path: Path) -> None:
        """rmdir(2)."""
        await self.run(self.kernel.rmdir(path))

    async def rename(self, old: Path, new: Path, flags: int = 0) -> None:
        """renameat2(2), with RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2)."""
        await self.run(self.kernel.rename(old, new, flags))

    async def readlink(self, path: Path) -> bytes:
        """readlink(2)."""
        return await self.run(self.kernel.readlink(path))

    # Attributes ------------------------------------------------------------------------

    async def stat(self, path: Path, *, follow: bool = True) -> os.stat_result:
        """stat(2), or lstat(2)."""
        found: Attributes = await self.run(self.kernel.stat(path, follow=follow))
        return found.status()

    async def lstat(self, path: Path) -> os.stat_result:
        """lstat(2)."""
        return await self.stat(path, follow=False)

    async def statvfs(self) -> os.statvfs_result:
        """statvfs(3) of the export."""
        return await self.run(self.kernel.statvfs())

    async def chmod(self, path: Path, mode: int) -> None:
        """chmod(2)."""
        await self.run(self.kernel.chmod(path, mode))

    async def chown(
        self, path: Path, uid: int | None = None, gid: int | None = None, *, follow: bool = True
    ) -> None:
        """chown(2), or lchown(2); None leaves one as it is."""
        await self.run(self.kernel.chown(path, uid, gid, follow=follow))

    async def utime(
        self,
        path: Path,
        atime_ns: int | None = NOW,
        mtime_ns: int | None = NOW,
        *,
        follow: bool = True,
    ) -> None:
        """utimensat(2): NOW, nanoseconds since 1970, or None, which leaves one as it is."""
        await self.run(self.kernel.utime(path, atime_ns, mtime_ns, follow=follow))

    async def truncate(self, path: Path, size: int) -> None:
        """truncate(2)."""
        await self.run(self.kernel.truncate(path, size))

    async def getxattr(self, path: Path, name: str | bytes, *, follow: bool = True) -> bytes:
        """getxattr(2)."""
        return await self.run(self.kernel.getxattr(path, name, follow=follow))

    async def listxattr(self, path: Path, *, follow: bool = True) -> list[bytes]:
        """listxattr(2)."""
        return await self.run(self.kernel.listxattr(path, follow=follow))

    async def setxattr(
        self, path: Path, name: str | bytes, value: bytes, flags: int = 0, *, follow: bool = True
    ) -> None:
        """setxattr(2)."""
        await self.run(self.kernel.setxattr(path, name, value, flags, follow=follow))

    async def removexattr(self, path: Path, name: str | bytes, *, follow: bool = True) -> None:
        """removexattr(2)."""
        await self.run(self.kernel.removexattr(path, name, follow=follow))
