"""What an inode is: attributes, extended attributes, where a symbolic link points."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode, Valid
from farwatch.client import answers
from farwatch.client.answers import Attributes as Stat
from farwatch.client.asking import Path, again, fail, path_bytes
from farwatch.client.facts import Facts
from farwatch.client.inodes import Dentry, Inode
from farwatch.client.walking import Walk
from farwatch.client.watches import Watches
from farwatch.events import Mask

_BILLION = 1_000_000_000
_U64 = 0xFFFF_FFFF_FFFF_FFFF
XATTR_SIZE_MAX = 65536
XATTR_NAME_MAX = 255
"""limits.h."""


class Change(NamedTuple):
    """What a SETATTR changes; None: nothing.  Times in nanoseconds, or NOW."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @property
    def fact(self) -> int:
        """What it is to watchers: ``fsnotify_change`` (linux/fsnotify.h)."""
        mask = 0
        if self.mode is not None or self.uid is not None or self.gid is not None:
            mask |= Mask.ATTRIB
        if self.size is not None:
            mask |= Mask.MODIFY
        if self.atime_ns is not None and self.mtime_ns is not None:
            mask |= Mask.ATTRIB
        elif self.atime_ns is not None:
            mask |= Mask.ACCESS
        elif self.mtime_ns is not None:
            mask |= Mask.MODIFY
        return mask


NOW = -(1 << 63)
"""As a time: the server's clock says."""


def loses_privileges(mode: int) -> bool:
    """Whether a write by others than root takes set-user-id bits away (file_remove_privs)."""
    return stat.S_ISREG(mode) and bool(
        mode & stat.S_ISUID or (mode & stat.S_ISGID and mode & stat.S_IXGRP)
    )


class Attributes(Facts, Watches):
    """Operations on what is at a path.  All raise OSError."""

    @again
    async def stat(self, path: Path, *, follow: bool = True) -> Stat:
        """stat(2)."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            if walk.attributes is not None:
                return walk.attributes
            return await self.getattr(dentry.inode)

    async def lstat(self, path: Path) -> Stat:
        """lstat(2)."""
        return await self.stat(path, follow=False)

    async def getattr(self, inode: Inode, handle: int | None = None) -> Stat:
        """fstat(2), by an open file's handle or the inode alone."""
        flags = 0 if handle is None else fuse.GETATTR_FH
        data = await self.ask(
            Opcode.GETATTR, inode.node, fuse.GETATTR_IN.pack(flags, 0, handle or 0)
        )
        found = answers.attr_out(data)
        inode.learn(found)
        return found

    @again
    async def chmod(self, path: Path, mode: int, *, follow: bool = True) -> None:
        """chmod(2).  EOPNOTSUPP for a symbolic link itself."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            if dentry.inode.is_link:
                raise fail(errno.EOPNOTSUPP)
            await self.change(dentry, Change(mode=mode & 0o7777))
        await self.catch_up()

    @again
    async def chown(
        self, path: Path, uid: int | None = None, gid: int | None = None, *, follow: bool = True
    ) -> None:
        """chown(2); None leaves one as it is."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            await self.change(dentry, Change(uid=uid, gid=gid))
        await self.catch_up()

    @again
    async def utime(
        self,
        path: Path,
        atime_ns: int | None = NOW,
        mtime_ns: int | None = NOW,
        *,
        follow: bool = True,
    ) -> None:
        """utimensat(2): NOW, a time in nanoseconds, or None, which leaves one as it is."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            await self.change(dentry, Change(atime_ns=atime_ns, mtime_ns=mtime_ns))
        await self.catch_up()

    @again
    async def truncate(self, path: Path, size: int) -> None:
        """truncate(2)."""
        if size < 0:
            raise fail(errno.EINVAL)
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path))
            if dentry.inode.is_dir:
                raise fail(errno.EISDIR)
            if not stat.S_ISREG(dentry.inode.mode):
                raise fail(errno.EINVAL)
            await self.change(dentry, Change(size=size))
        await self.catch_up()

    async def change(self, dentry: Dentry, change: Change, handle: int | None = None) -> None:
        """SETATTR, and what it raises; nothing if nothing is to change (``notify_change``)."""
        fact = change.fact
        if not fact:
            return
        inode = dentry.inode
        if change.size is not None and not self.is_root and loses_privileges(inode.mode):
            fact |= Mask.ATTRIB
        data = await self.ask(Opcode.SETATTR, inode.node, self._setattr(change, handle))
        inode.learn(answers.attr_out(data))
        self.dentry_fact(fact, dentry)

    def _setattr(self, change: Change, handle: int | None) -> bytes:
        valid = 0
        for given, bit in (
            (change.mode, Valid.MODE),
            (change.uid, Valid.UID),
            (change.gid, Valid.GID),
            (change.size, Valid.SIZE),
            (change.atime_ns, Valid.ATIME),
            (change.mtime_ns, Valid.MTIME),
            (handle, Valid.FH),
        ):
            if given is not None:
                valid |= bit
        if change.atime_ns == NOW:
            valid |= Valid.ATIME_NOW
        if change.mtime_ns == NOW:
            valid |= Valid.MTIME_NOW
        if change.size is not None and not self.is_root:
            valid |= Valid.KILL_SUIDGID
        atime, atime_ns = _split(change.atime_ns)
        mtime, mtime_ns = _split(change.mtime_ns)
        return fuse.SETATTR_IN.pack(
            valid,
            0,
            handle or 0,
            change.size or 0,
            0,
            atime,
            mtime,
            0,
            atime_ns,
            mtime_ns,
            0,
            change.mode or 0,
            0,
            change.uid or 0,
            change.gid or 0,
            0,
        )

    @again
    async def readlink(self, path: Path) -> bytes:
        """readlink(2).  EINVAL for what is no symbolic link."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=False)
            if not dentry.inode.is_link:
                raise fail(errno.EINVAL)
            return answers.link_target(await self.ask(Opcode.READLINK, dentry.inode.node, b""))

    async def statvfs(self) -> os.statvfs_result:
        """statvfs(3) of the export."""
        return answers.statfs(await self.ask(Opcode.STATFS, fuse.ROOT_ID, b""))

    # Extended attributes -----------------------------------------------------------

    @again
    async def getxattr(self, path: Path, name: str | bytes, *, follow: bool = True) -> bytes:
        """getxattr(2)."""
        raw = _xattr_name(name)
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            body = fuse.GETXATTR_IN.pack(XATTR_SIZE_MAX, 0) + raw + b"\0"
            return await self.ask(Opcode.GETXATTR, dentry.inode.node, body)

    @again
    async def listxattr(self, path: Path, *, follow: bool = True) -> list[bytes]:
        """listxattr(2)."""
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            body = fuse.GETXATTR_IN.pack(XATTR_SIZE_MAX, 0)
            return answers.xattr_names(await self.ask(Opcode.LISTXATTR, dentry.inode.node, body))

    @again
    async def setxattr(
        self,
        path: Path,
        name: str | bytes,
        value: bytes,
        flags: int = 0,
        *,
        follow: bool = True,
    ) -> None:
        """setxattr(2), with XATTR_CREATE or XATTR_REPLACE in ``flags``."""
        raw = _xattr_name(name)
        if len(value) > XATTR_SIZE_MAX:
            raise fail(errno.E2BIG)
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            body = fuse.SETXATTR_IN_COMPAT.pack(len(value), flags) + raw + b"\0" + value
            await self.ask(Opcode.SETXATTR, dentry.inode.node, body)
            self.dentry_fact(Mask.ATTRIB, dentry)
        await self.catch_up()

    @again
    async def removexattr(self, path: Path, name: str | bytes, *, follow: bool = True) -> None:
        """removexattr(2)."""
        raw = _xattr_name(name)
        with Walk(self) as walk:
            dentry = await walk.to(path_bytes(path), follow=follow)
            await self.ask(Opcode.REMOVEXATTR, dentry.inode.node, raw + b"\0")
            self.dentry_fact(Mask.ATTRIB, dentry)
        await self.catch_up()


def _xattr_name(name: str | bytes) -> bytes:
    raw = path_bytes(name)
    if not 0 < len(raw) <= XATTR_NAME_MAX:
        raise fail(errno.ERANGE)
    return raw


def _split(moment: int | None) -> tuple[int, int]:
    if moment is None or moment == NOW:
        return 0, 0
    seconds, nanoseconds = divmod(moment, _BILLION)
    return seconds & _U64, nanoseconds
