"""Making, removing and renaming names, with the errnos of fs/namei.c.

What the client's kernel would find out by itself (a path that ends with "..", a slash behind
a file's name) is found out here; all else the server's kernel says.
"""

from __future__ import annotations

import errno
import os
import stat

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.asking import Path, again, fail, path_bytes
from farwatch.client.facts import Facts
from farwatch.client.inodes import Inode
from farwatch.client.walking import Kind, Last, Walk
from farwatch.client.watches import Watches

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
"""linux/fs.h."""
_RENAME_FLAGS = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT


class Naming(Facts, Watches):
    """Operations on names.  All raise OSError."""

    # Making ------------------------------------------------------------------------

    @again
    async def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """mkdir(2)."""
        with Walk(self) as walk:
            last = await walk.parent(path_bytes(path))
            if last.kind is not Kind.NAME:
                raise fail(errno.EEXIST, last.name)
            body = fuse.MKDIR_IN.pack(mode & 0o7777 & ~self.umask, self.umask)
            await self._make(Opcode.MKDIR, last, body + last.name + b"\0")
        await self.catch_up()

    @again
    async def mknod(self, path: Path, mode: int = 0o644 | stat.S_IFREG, device: int = 0) -> None:
        """mknod(2): a regular file, fifo, socket or device.  EINVAL for other types."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
            raise fail(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL)
        with Walk(self) as walk:
            last = await self._new_name(walk, path)
            permissions = stat.S_IMODE(mode) & ~self.umask
            number = _encode_device(device)
            body = fuse.MKNOD_IN.pack(kind | permissions, number, self.umask, 0)
            await self._make(Opcode.MKNOD, last, body + last.name + b"\0")
        await self.catch_up()

    @again
    async def symlink(self, target: str | bytes, path: Path) -> None:
        """symlink(2): ``path`` will point to ``target``."""
        content = path_bytes(target)
        if not content:
            raise fail(errno.ENOENT)
        with Walk(self) as walk:
            last = await self._new_name(walk, path)
            await self._make(Opcode.SYMLINK, last, last.name + b"\0" + content + b"\0")
        await self.catch_up()

    @again
    async def link(self, old: Path, new: Path, *, follow: bool = False) -> None:
        """link(2): ``new`` will be a further name of what is at ``old``."""
        with Walk(self) as walk, Walk(self) as other:
            inode = (await walk.to(path_bytes(old), follow=follow)).inode
            last = await self._new_name(other, new)
            if inode.is_dir:
                raise fail(errno.EPERM)
            body = fuse.LINK_IN.pack(inode.node) + last.name + b"\0"
            made = self._told(await self.ask(Opcode.LINK, last.parent.node, body))
            try:
                inode.is_gone = False
                self.linked(last.parent, last.name, made)
            finally:
                self.inodes.release(made)
        await self.catch_up()

    async def _new_name(self, walk: Walk, path: Path) -> Last:
        """Where something other than a directory is to be made (``filename_create``)."""
        last = await walk.parent(path_bytes(path))
        if last.kind is not Kind.NAME:
            raise fail(errno.EEXIST, last.name)
        if last.has_slash:
            found = await walk.child_if_any(last.parent, last.name)
            raise fail(errno.ENOENT if found is None else errno.EEXIST, last.name)
        return last

    async def _make(self, opcode: int, last: Last, body: bytes) -> None:
        if len(last.name) > answers.NAME_MAX:
            raise fail(errno.ENAMETOOLONG, last.name)
        made = self._told(await self.ask(opcode, last.parent.node, body))
        try:
            self.made(last.parent, last.name, made)
        finally:
            self.inodes.release(made)

    def _told(self, data: bytes) -> Inode:
        return self.inodes.told(answers.made(data))

    # Removing ------------------------------------------------------------------------

    @again
    async def unlink(self, path: Path) -> None:
        """unlink(2)."""
        with Walk(self) as walk:
            last = await walk.parent(path_bytes(path))
            if last.kind is not Kind.NAME:
                raise fail(errno.EISDIR, last.name)
            dentry = await walk.child(last.parent, last.name)
            if last.has_slash:
                raise fail(errno.EISDIR if dentry.inode.is_dir else errno.ENOTDIR, last.name)
            with self.leaving(dentry.inode):
                await self.ask(Opcode.UNLINK, last.parent.node, last.name + b"\0")
                self.unlinked(dentry)
        await self.catch_up()

    @again
    async def rmdir(self, path: Path) -> None:
        """rmdir(2)."""
        with Walk(self) as walk:
            last = await walk.parent(path_bytes(path))
            match last.kind:
                case Kind.DOTDOT:
                    raise fail(errno.ENOTEMPTY, last.name)
                case Kind.DOT:
                    raise fail(errno.EINVAL, last.name)
                case Kind.ROOT:
                    raise fail(errno.EBUSY, last.name)
            dentry = await walk.child(last.parent, last.name)
            with self.leaving(dentry.inode):
                await self.ask(Opcode.RMDIR, last.parent.node, last.name + b"\0")
                self.removed_directory(dentry)
        await self.catch_up()

    # Renaming --------------------------------------------------------------------------

    @again
    async def rename(self, old: Path, new: Path, flags: int = 0) -> None:
        """renameat2(2), with its RENAME_… in ``flags``."""
        if flags & ~_RENAME_FLAGS or (flags & RENAME_EXCHANGE and flags != RENAME_EXCHANGE):
            raise fail(errno.EINVAL)
        with Walk(self) as walk, Walk(self) as other:
            here = await walk.parent(path_bytes(old))
            there = await other.parent(path_bytes(new))
            if here.kind is not Kind.NAME:
                raise fail(errno.EBUSY, here.name)
            if there.kind is not Kind.NAME:
                raise fail(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY, there.name)
            await self._rename(walk, here, other, there, flags)
        await self.catch_up()

    async def _rename(self, walk: Walk, here: Last, other: Walk, there: Last, flags: int) -> None:
        source = await walk.child(here.parent, here.name)
        target = await other.child_if_any(there.parent, there.name)
        if target is not None and flags & RENAME_NOREPLACE:
            raise fail(errno.EEXIST, there.name)
        if target is None and flags & RENAME_EXCHANGE:
            raise fail(errno.ENOENT, there.name)
        if here.has_slash and not source.inode.is_dir:
            raise fail(errno.ENOTDIR, here.name)
        arriving = target if flags & RENAME_EXCHANGE else source
        if there.has_slash and arriving is not None and not arriving.inode.is_dir:
            raise fail(errno.ENOTDIR, there.name)
        opcode, body = Opcode.RENAME, fuse.RENAME_IN.pack(there.parent.node)
        if flags:
            opcode, body = Opcode.RENAME2, fuse.RENAME2_IN.pack(there.parent.node, flags, 0)
        body += here.name + b"\0" + there.name + b"\0"
        with self.leaving(target.inode if target is not None else None):
            await self.ask(opcode, here.parent.node, body)
            if target is not None and target.inode is source.inode:
                return
            if flags & RENAME_EXCHANGE and target is not None:
                self.exchanged(source, target)
            else:
                self.renamed(source, there.parent, there.name, target)


def _encode_device(device: int) -> int:
    """``new_encode_dev`` (linux/kdev_t.h)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12) & 0xFFFF_FFFF
