"""Opening files and directories: ``do_open`` and ``lookup_open`` of fs/namei.c."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, cast

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.answers import NAME_MAX, Dirent
from farwatch.client.asking import Path, again, fail, path_bytes
from farwatch.client.attributes import Attributes, Change
from farwatch.client.files import File
from farwatch.client.inodes import Dentry
from farwatch.client.listing import Directory
from farwatch.client.walking import Kind, Last, Walk
from farwatch.events import Mask

if TYPE_CHECKING:
    from farwatch.client.kernel import Kernel

_REFUSED = os.O_PATH | (os.O_TMPFILE & ~os.O_DIRECTORY)
_PASSED = os.O_ACCMODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC | os.O_NOATIME


class Opening(Attributes):
    """Operations that open.  All raise OSError."""

    @property
    def largest(self) -> int:
        """Bytes of the largest READ and WRITE."""
        return min(self.server.max_write, 1 << 20)

    @again
    async def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> File:
        """open(2) of a regular file, with ``os.O_…`` flags.

        EISDIR for a directory (``opendir``), ENXIO for what is neither, EINVAL or EOPNOTSUPP
        for flags that make no sense or are not to be had (O_PATH, O_TMPFILE).
        """
        if flags & os.O_ACCMODE == os.O_ACCMODE or flags & os.O_PATH:
            raise fail(errno.EINVAL)
        if flags & _REFUSED:
            raise fail(errno.EOPNOTSUPP)
        if flags & os.O_CREAT and flags & os.O_DIRECTORY:
            raise fail(errno.EINVAL)
        with Walk(self) as walk:
            if flags & os.O_CREAT:
                found = await self._find_or_create(walk, path_bytes(path), flags, mode)
                if isinstance(found, File):
                    return found
            else:
                found = await walk.to(path_bytes(path), follow=not flags & os.O_NOFOLLOW)
            file = await self._open(found, flags)
        await self.catch_up()
        return file

    async def _find_or_create(
        self, walk: Walk, path: bytes, flags: int, mode: int
    ) -> Dentry | File:
        last = await walk.parent(path)
        while True:
            if last.kind is not Kind.NAME or last.has_slash:
                raise fail(errno.EISDIR, path)
            dentry = await walk.child_if_any(last.parent, last.name)
            if dentry is None:
                return await self._create(last, flags, mode)
            if flags & os.O_EXCL:
                raise fail(errno.EEXIST, path)
            if not dentry.inode.is_link:
                return dentry
            if flags & os.O_NOFOLLOW:
                raise fail(errno.ELOOP, path)
            last = await walk.through(dentry)

    async def _create(self, last: Last, flags: int, mode: int) -> File:
        """CREATE: the name was free when it was looked up."""
        if len(last.name) > NAME_MAX:
            raise fail(errno.ENAMETOOLONG, last.name)
        body = fuse.CREATE_IN.pack(
            flags & (_PASSED | os.O_CREAT | os.O_EXCL),
            stat.S_IFREG | stat.S_IMODE(mode) & ~self.umask,
            self.umask,
            0,
        )
        data = await self.ask(Opcode.CREATE, last.parent.node, body + last.name + b"\0")
        entry, opened = answers.created(data)
        dentry = self.inodes.named(last.parent, last.name, self.inodes.told(entry))
        try:
            file = File(self._kernel, dentry, flags, opened)
        finally:
            self.inodes.release_name(dentry)
        self.made(last.parent, last.name, dentry.inode)
        self.dentry_fact(Mask.OPEN, dentry, by_file=True)
        await self.catch_up()
        return file

    async def _open(self, dentry: Dentry, flags: int) -> File:
        inode = dentry.inode
        if inode.is_link:
            raise fail(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP)
        if inode.is_dir:
            raise fail(errno.EISDIR)
        if flags & os.O_DIRECTORY:
            raise fail(errno.ENOTDIR)
        if not stat.S_ISREG(inode.mode):
            raise fail(errno.ENXIO)
        body = fuse.OPEN_IN.pack(flags & _PASSED, 0)
        opened = answers.opened(await self.ask(Opcode.OPEN, inode.node, body))
        file = File(self._kernel, dentry, flags, opened)
        self.dentry_fact(Mask.OPEN, dentry, by_file=True)
        if flags & os.O_TRUNC:
            try:
                await self.change(dentry, Change(size=0), opened.handle)
            except OSError:
                await file.close()
                raise
        return file

    @again
    async def opendir(self, path: Path) -> Directory:
        """open(2) of a directory."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), directory=True)
            body = fuse.OPEN_IN.pack(os.O_RDONLY | os.O_DIRECTORY, 0)
            opened = answers.opened(await self.ask(Opcode.OPENDIR, dentry.inode.node, body))
            directory = Directory(self._kernel, dentry, os.O_RDONLY, opened)
            self.dentry_fact(Mask.OPEN, dentry, by_file=True)
        await self.catch_up()
        return directory

    async def scandir(self, path: Path, *, plus: bool = False) -> list[Dirent]:
        """Opens a directory, lists it to its end and closes it."""
        directory = await self.opendir(path)
        try:
            return await directory.entries(plus=plus)
        finally:
            await directory.close()

    async def listdir(self, path: Path) -> list[bytes]:
        """The names in a directory, without "." and ".."."""
        return [entry.name for entry in await self.scandir(path)]

    @property
    def _kernel(self) -> Kernel:
        return cast("Kernel", self)
