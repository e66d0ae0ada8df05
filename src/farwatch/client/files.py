"""Open files.

    OPENED ── read, write, … ──► OPENED ── close ──► CLOSED: every call is a Misuse

A file keeps its inode and the name by which it was opened.  One read or write of any size
is one event, as one read(2) is, whatever number of requests it takes.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode, Open
from farwatch.client import answers
from farwatch.client.answers import Attributes as Stat
from farwatch.client.asking import fail
from farwatch.client.attributes import NOW, Change, loses_privileges
from farwatch.client.errors import Misuse
from farwatch.client.inodes import Dentry
from farwatch.events import Mask

if TYPE_CHECKING:
    from farwatch.client.kernel import Kernel


class Opened:
    """What files and directories have in common.  Owns the server's handle."""

    def __init__(self, kernel: Kernel, dentry: Dentry, flags: int, opened: answers.Opened) -> None:
        """Holds the dentry by itself; raises nothing."""
        self._kernel = kernel
        self._dentry = kernel.inodes.hold_name(dentry)
        self._flags = flags
        self._handle = opened.handle
        self._open_flags = opened.flags
        self._is_closed = False
        dentry.opens += 1
        dentry.inode.opens += 1

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    async def close(self) -> None:
        """close(2).  Twice is once."""
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._is_closed:
            raise Misuse("the file is closed")

    def _raise(self, mask: int) -> None:
        self._kernel.dentry_fact(mask, self._dentry, by_file=True)

    async def _release(self, opcode: int, mask: int) -> None:
        """``__fput``: CLOSE, then RELEASE; DELETE_SELF if that was the last of the name."""
        kernel, inode = self._kernel, self._dentry.inode
        self._is_closed = True
        with kernel.leaving(inode):
            await self._release_here(opcode, mask)
        await kernel.catch_up()

    async def _release_here(self, opcode: int, mask: int) -> None:
        kernel, inode = self._kernel, self._dentry.inode
        try:
            self._raise(mask)
            if inode.opens == 1 and inode.nlink and kernel.mode is None and not inode.is_dir:
                await self._count_links()
            body = fuse.RELEASE_IN.pack(self._handle, self._flags, 0, 0)
            try:
                await kernel.ask(opcode, inode.node, body)
            except ConnectionError:
                raise
            except OSError:
                pass  # close(2) does not say what became of RELEASE either
        finally:
            inode.opens -= 1
            self._dentry.opens -= 1
            if not inode.nlink:
                kernel.if_gone(self._dentry)
            kernel.inodes.release_name(self._dentry)
            kernel.inodes.flush()

    async def _count_links(self) -> None:
        """Somebody else may have removed it meanwhile; it matters if it is watched."""
        if self._kernel.core.is_marked(self._dentry.inode.id):
            try:
                await self._kernel.getattr(self._dentry.inode, self._handle)
            except ConnectionError:
                raise
            except OSError:
                pass


class File(Opened):
    """A regular file.  ``open`` of the kernel layer makes them.

    All methods raise OSError with the server's errno, and Misuse once it is closed.
    """

    _position = 0

    @property
    def _is_writer(self) -> bool:
        return self._flags & os.O_ACCMODE != os.O_RDONLY

    # Reading -----------------------------------------------------------------------

    async def read(self, size: int = -1) -> bytes:
        """The next bytes: at most ``size``, or (-1) all that there are."""
        data = await self._read(size, self._position)
        self._position += len(data)
        return data

    async def pread(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        if size < 0 or offset < 0:
            raise fail(errno.EINVAL)
        return await self._read(size, offset)

    async def _read(self, size: int, offset: int) -> bytes:
        self._check_open()
        if self._flags & os.O_ACCMODE == os.O_WRONLY:
            raise fail(errno.EBADF)
        parts = []
        total, left = 0, size
        while left:
            asked = self._kernel.largest if left < 0 else min(left, self._kernel.largest)
            body = fuse.READ_IN.pack(self._handle, offset + total, asked, 0, 0, 0, 0)
            part = await self._kernel.ask(Opcode.READ, self._dentry.inode.node, body)
            parts.append(part)
            total += len(part)
            left -= len(part) if left > 0 else 0
            if len(part) < asked:
                break
        if total:
            self._raise(Mask.ACCESS)
            await self._kernel.catch_up()
        return b"".join(parts)

    # Writing -----------------------------------------------------------------------

    async def write(self, data: bytes) -> int:
        """Writes at the position, or the end with O_APPEND; how many bytes were written."""
        written = await self._write(data, self._position)
        if self._flags & os.O_APPEND:
            self._position = (await self.stat()).size
        else:
            self._position += written
        return written

    async def pwrite(self, data: bytes, offset: int) -> int:
        """Writes at ``offset``; how many bytes were written."""
        if offset < 0:
            raise fail(errno.EINVAL)
        return await self._write(data, offset)

    async def _write(self, data: bytes, offset: int) -> int:
        self._check_open()
        if not self._is_writer:
            raise fail(errno.EBADF)
        inode = self._dentry.inode
        flags = 0
        if not self._kernel.is_root:
            flags = fuse.WRITE_KILL_SUIDGID
            if data and loses_privileges(inode.mode):
                self._kernel.dentry_fact(Mask.ATTRIB, self._dentry)
                inode.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        total = 0
        try:
            while total < len(data):
                part = data[total : total + self._kernel.largest]
                body = fuse.WRITE_IN.pack(
                    self._handle, offset + total, len(part), flags, 0, self._flags, 0
                )
                answer = await self._kernel.ask(Opcode.WRITE, inode.node, body + part)
                written = answers.written(answer, len(part))
                total += written
                if written < len(part):
                    break
        except ConnectionError:
            raise
        except OSError:
            if not total:
                raise
        if total:
            self._raise(Mask.MODIFY)
            await self._kernel.catch_up()
        return total

    def seek(self, offset: int) -> None:
        """Where the next read or write begins, from the start of the file."""
        if offset < 0:
            raise fail(errno.EINVAL)
        self._position = offset

    # Attributes ----------------------------------------------------------------------

    async def stat(self) -> Stat:
        """fstat(2)."""
        self._check_open()
        return await self._kernel.getattr(self._dentry.inode, self._handle)

    async def truncate(self, size: int) -> None:
        """ftruncate(2)."""
        if size < 0 or not self._is_writer:
            raise fail(errno.EINVAL)
        await self._change(Change(size=size))

    async def chmod(self, mode: int) -> None:
        """fchmod(2)."""
        await self._change(Change(mode=mode & 0o7777))

    async def chown(self, uid: int | None = None, gid: int | None = None) -> None:
        """fchown(2)."""
        await self._change(Change(uid=uid, gid=gid))

    async def utime(self, atime_ns: int | None = NOW, mtime_ns: int | None = NOW) -> None:
        """futimens(3)."""
        await self._change(Change(atime_ns=atime_ns, mtime_ns=mtime_ns))

    async def _change(self, change: Change) -> None:
        self._check_open()
        await self._kernel.change(self._dentry, change, self._handle)
        await self._kernel.catch_up()

    async def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        self._check_open()
        if not self._is_writer:
            raise fail(errno.EBADF)
        body = fuse.FALLOCATE_IN.pack(self._handle, offset, length, mode, 0)
        await self._kernel.ask(Opcode.FALLOCATE, self._dentry.inode.node, body)
        self._raise(Mask.MODIFY)
        await self._kernel.catch_up()

    # The end -----------------------------------------------------------------------

    async def sync(self, *, data_only: bool = False) -> None:
        """fsync(2), or fdatasync(2)."""
        self._check_open()
        flags = fuse.FSYNC_FDATASYNC if data_only else 0
        await self._kernel.ask(
            Opcode.FSYNC, self._dentry.inode.node, fuse.FSYNC_IN.pack(self._handle, flags, 0)
        )

    async def close(self) -> None:
        """close(2).  Twice is once."""
        if self._is_closed:
            return
        self._is_closed = True
        failure = None
        if not self._open_flags & Open.NOFLUSH:
            body = fuse.FLUSH_IN.pack(self._handle, 0, 0, 0)
            try:
                await self._kernel.ask(Opcode.FLUSH, self._dentry.inode.node, body)
            except OSError as error:
                failure = error if error.errno != errno.ENOSYS else None
        mask = Mask.CLOSE_WRITE if self._is_writer else Mask.CLOSE_NOWRITE
        await self._release(Opcode.RELEASE, mask)
        if failure is not None:
            raise failure
