"""A file system in memory that tells a core what the kernel's VFS tells fsnotify().

Names are dentries, as in the kernel, since it is they that are unlinked, renamed and held
open: an inode is gone (DELETE_SELF) when a dentry of it goes while it has no link, and a
dentry that is held stays, without a place, until nobody holds it.

    fsnotify_create, _mkdir     CREATE
    fsnotify_link               ATTRIB of the node, CREATE
    vfs_unlink                  ATTRIB of the node, [DELETE_SELF], DELETE
    vfs_rmdir                   [DELETE_SELF], DELETE
    fsnotify_move               MOVED_FROM, MOVED_TO, [ATTRIB of what was replaced], MOVE_SELF;
                                then [DELETE_SELF] of that
    fsnotify_open, _access, _modify, _close   through an open file
    fsnotify_change             through a dentry: IN_EXCL_UNLINK does not keep it out
"""

from __future__ import annotations

import errno
import itertools
import os
from typing import Protocol

from farwatch.abi.fsnotify import Event
from farwatch.client.fsnotify import NodeId
from farwatch.events import Mask


class Hearer(Protocol):
    """What the hooks tell: a core, or what leads to one."""

    def fsnotify(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        """See ``Fsnotify``."""

    def next_cookie(self) -> int:
        """See ``Fsnotify``."""


class Inode:
    """A file or directory."""

    def __init__(self, number: int, *, is_dir: bool) -> None:
        self.id = NodeId(number, number + 1000)
        self.is_dir = is_dir
        self.links = 1
        self.size = 0

    @property
    def isdir(self) -> int:
        """The bit that its events have."""
        return Mask.ISDIR if self.is_dir else 0


class Dentry:
    """A name: hashed until it is removed, alive until nobody holds it then."""

    def __init__(self, parent: Dentry | None, name: bytes, inode: Inode) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.hashed = True
        self.holders = 0
        """Open files, and unhashed dentries below."""


class OpenFile:
    """An open file description."""

    def __init__(self, dentry: Dentry, *, writes: bool, reads: bool) -> None:
        self.dentry = dentry
        self.writes = writes
        self.reads = reads


class Vfs:
    """The tree below a root, and its hooks.  Raises OSError where the kernel would."""

    def __init__(self, core: Hearer) -> None:
        self._core = core
        self._numbers = itertools.count(1)
        self._root = Dentry(None, b"", self._inode(is_dir=True))
        self._names: dict[tuple[Inode, bytes], Dentry] = {}

    def node(self, path: bytes) -> Inode:
        """What a path leads to."""
        return self._dentry(path).inode

    # Operations

    def open(self, path: bytes, flags: int) -> OpenFile:
        """open(2) with O_CREAT, O_EXCL and an access mode."""
        parent, name = self._place(path)
        found = self._names.get((parent.inode, name)) if name else self._root
        if found is None:
            if not flags & os.O_CREAT:
                raise OSError(errno.ENOENT, "")
            found = self._add(parent, name, self._inode(is_dir=False))
            self._dirent(Mask.CREATE, found)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, "")
        access = flags & os.O_ACCMODE
        if found.inode.is_dir and (access != os.O_RDONLY or flags & os.O_CREAT):
            raise OSError(errno.EISDIR, "")
        opened = OpenFile(found, writes=access != os.O_RDONLY, reads=access != os.O_WRONLY)
        found.holders += 1
        self._through(Mask.OPEN, opened)
        return opened

    def read(self, opened: OpenFile) -> None:
        """pread(2) of the first byte."""
        if opened.dentry.inode.is_dir:
            raise OSError(errno.EISDIR, "")
        if not opened.reads:
            raise OSError(errno.EBADF, "")
        if opened.dentry.inode.size:
            self._through(Mask.ACCESS, opened)

    def write(self, opened: OpenFile) -> None:
        """pwrite(2) of the first byte."""
        if not opened.writes:
            raise OSError(errno.EBADF, "")
        opened.dentry.inode.size = max(1, opened.dentry.inode.size)
        self._through(Mask.MODIFY, opened)

    def ftruncate(self, opened: OpenFile, size: int) -> None:
        """ftruncate(2)."""
        if not opened.writes:
            raise OSError(errno.EINVAL, "")
        opened.dentry.inode.size = size
        self._change(Mask.MODIFY, opened.dentry)

    def fchmod(self, opened: OpenFile) -> None:
        """fchmod(2), and fchown, futimens, fsetxattr."""
        self._change(Mask.ATTRIB, opened.dentry)

    def close(self, opened: OpenFile) -> None:
        """The last close(2)."""
        self._through(Mask.CLOSE_WRITE if opened.writes else Mask.CLOSE_NOWRITE, opened)
        self._put(opened.dentry)

    def chmod(self, path: bytes) -> None:
        """chmod(2), and chown, utimes, setxattr."""
        self._change(Mask.ATTRIB, self._dentry(path))

    def truncate(self, path: bytes, size: int) -> None:
        """truncate(2)."""
        dentry = self._dentry(path)
        if dentry.inode.is_dir:
            raise OSError(errno.EISDIR, "")
        dentry.inode.size = size
        self._change(Mask.MODIFY, dentry)

    def mkdir(self, path: bytes) -> None:
        """mkdir(2)."""
        parent, name = self._free(path)
        self._dirent(Mask.CREATE, self._add(parent, name, self._inode(is_dir=True)))

    def link(self, path: bytes, new: bytes) -> None:
        """link(2)."""
        inode = self._dentry(path).inode
        parent, name = self._free(new)
        if inode.is_dir:
            raise OSError(errno.EPERM, "")
        inode.links += 1
        self._link_count(inode)
        self._dirent(Mask.CREATE, self._add(parent, name, inode))

    def unlink(self, path: bytes) -> None:
        """unlink(2)."""
        dentry = self._dentry(path)
        if dentry.inode.is_dir:
            raise OSError(errno.EISDIR, "")
        dentry.inode.links -= 1
        self._link_count(dentry.inode)
        self._delete(dentry)
        self._dirent(Mask.DELETE, dentry)

    def rmdir(self, path: bytes) -> None:
        """rmdir(2)."""
        dentry = self._dentry(path)
        if not dentry.inode.is_dir:
            raise OSError(errno.ENOTDIR, "")
        if dentry is self._root:
            raise OSError(errno.EBUSY, "")
        self._check_empty(dentry.inode)
        dentry.inode.links = 0
        self._delete(dentry)
        self._dirent(Mask.DELETE, dentry)

    def rename(self, path: bytes, new: bytes, *, exchange: bool) -> None:
        """renameat2(2)."""
        dentry = self._dentry(path)
        parent, name = self._place(new)
        target = self._names.get((parent.inode, name))
        if dentry is self._root or not name:
            raise OSError(errno.EBUSY, "")
        if exchange and target is None:
            raise OSError(errno.ENOENT, "")
        self._check_not_above(dentry, parent)
        if target is not None and (exchange or target.inode is dentry.inode):
            assert dentry.parent is not None
            self._check_not_above(target, dentry.parent)
        if target is not None and target.inode is dentry.inode:
            return
        if target is None:
            old_parent, old_name = dentry.parent, dentry.name
            assert old_parent is not None
            self._move(dentry, parent, name)
            self._renamed(old_parent, old_name, dentry)
        elif exchange:
            self._exchange(dentry, target)
        else:
            self._replace(dentry, target)

    # Renames

    def _exchange(self, one: Dentry, other: Dentry) -> None:
        place, other_place = (one.parent, one.name), (other.parent, other.name)
        assert place[0] is not None
        assert other_place[0] is not None
        one.parent, one.name = other_place
        other.parent, other.name = place
        self._names[other_place[0].inode, one.name] = one
        self._names[place[0].inode, other.name] = other
        self._renamed(place[0], other.name, one)
        self._renamed(other_place[0], one.name, other)

    def _replace(self, dentry: Dentry, target: Dentry) -> None:
        if target.inode.is_dir != dentry.inode.is_dir:
            raise OSError(errno.EISDIR if target.inode.is_dir else errno.ENOTDIR, "")
        if target.inode.is_dir:
            self._check_empty(target.inode)
        old_parent, old_name, parent = dentry.parent, dentry.name, target.parent
        assert old_parent is not None
        assert parent is not None
        target.inode.links = 0 if target.inode.is_dir else target.inode.links - 1
        target.hashed = False
        parent.holders += 1
        target.holders += 1
        self._move(dentry, parent, target.name)
        cookie = self._core.next_cookie()
        kinds = ((Mask.MOVED_FROM, old_parent, old_name), (Mask.MOVED_TO, parent, target.name))
        for kind, directory, name in kinds:
            self._raise(
                Event(
                    kind | dentry.inode.isdir,
                    node=dentry.inode.id.node,
                    generation=dentry.inode.id.generation,
                    parent=directory.inode.id.node,
                    parent_generation=directory.inode.id.generation,
                    name=name,
                    cookie=cookie,
                )
            )
        self._link_count(target.inode)
        self._node(Mask.MOVE_SELF, dentry.inode)
        self._put(target)

    def _renamed(self, old_parent: Dentry, old_name: bytes, dentry: Dentry) -> None:
        assert dentry.parent is not None
        self._raise(
            Event(
                Mask.RENAME | dentry.inode.isdir,
                node=dentry.inode.id.node,
                generation=dentry.inode.id.generation,
                parent=old_parent.inode.id.node,
                parent_generation=old_parent.inode.id.generation,
                name=old_name,
                new_parent=dentry.parent.inode.id.node,
                new_parent_generation=dentry.parent.inode.id.generation,
                new_name=dentry.name,
            )
        )

    def _move(self, dentry: Dentry, parent: Dentry, name: bytes) -> None:
        assert dentry.parent is not None
        del self._names[dentry.parent.inode, dentry.name]
        dentry.parent, dentry.name = parent, name
        self._names[parent.inode, name] = dentry

    # Dentries

    def _inode(self, *, is_dir: bool) -> Inode:
        return Inode(next(self._numbers), is_dir=is_dir)

    def _add(self, parent: Dentry, name: bytes, inode: Inode) -> Dentry:
        dentry = self._names[parent.inode, name] = Dentry(parent, name, inode)
        return dentry

    def _place(self, path: bytes) -> tuple[Dentry, bytes]:
        *above, name = path.split(b"/")
        dentry = self._root
        for each in above:
            found = self._names.get((dentry.inode, each))
            if found is None:
                raise OSError(errno.ENOENT, "")
            if not found.inode.is_dir:
                raise OSError(errno.ENOTDIR, "")
            dentry = found
        return dentry, name

    def _free(self, path: bytes) -> tuple[Dentry, bytes]:
        parent, name = self._place(path)
        if not name or (parent.inode, name) in self._names:
            raise OSError(errno.EEXIST, "")
        return parent, name

    def _dentry(self, path: bytes) -> Dentry:
        parent, name = self._place(path)
        if not name:
            return self._root
        found = self._names.get((parent.inode, name))
        if found is None:
            raise OSError(errno.ENOENT, "")
        return found

    def _check_empty(self, inode: Inode) -> None:
        if any(parent is inode for parent, _ in self._names):
            raise OSError(errno.ENOTEMPTY, "")

    def _check_not_above(self, dentry: Dentry, below: Dentry) -> None:
        each: Dentry | None = below
        while each is not None:
            if each is dentry:
                raise OSError(errno.EINVAL, "")
            each = each.parent

    def _delete(self, dentry: Dentry) -> None:
        """d_delete()."""
        assert dentry.parent is not None
        del self._names[dentry.parent.inode, dentry.name]
        dentry.hashed = False
        dentry.parent.holders += 1
        dentry.holders += 1
        self._put(dentry)

    def _put(self, dentry: Dentry) -> None:
        """dput()."""
        dentry.holders -= 1
        if dentry.hashed or dentry.holders:
            return
        if not dentry.inode.links:
            self._node(Mask.DELETE_SELF, dentry.inode)
        assert dentry.parent is not None
        self._put(dentry.parent)

    # Hooks

    def _raise(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        self._core.fsnotify(fact, through_unlinked=through_unlinked)

    def _node(self, kind: int, inode: Inode) -> None:
        self._raise(
            Event(kind | inode.isdir, node=inode.id.node, generation=inode.id.generation),
            through_unlinked=False,
        )

    def _link_count(self, inode: Inode) -> None:
        self._node(Mask.ATTRIB, inode)

    def _named(self, kind: int, dentry: Dentry) -> Event:
        inode = dentry.inode
        event = Event(kind | inode.isdir, node=inode.id.node, generation=inode.id.generation)
        if dentry.parent is None:
            return event
        parent = dentry.parent.inode.id
        return event._replace(
            parent=parent.node, parent_generation=parent.generation, name=dentry.name
        )

    def _dirent(self, kind: int, dentry: Dentry) -> None:
        self._raise(self._named(kind, dentry))

    def _through(self, kind: int, opened: OpenFile) -> None:
        dentry = opened.dentry
        self._raise(self._named(kind, dentry), through_unlinked=not dentry.hashed)

    def _change(self, kind: int, dentry: Dentry) -> None:
        self._raise(self._named(kind, dentry), through_unlinked=False)
