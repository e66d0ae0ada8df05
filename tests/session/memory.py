"""A disk in memory, with everything that a session asks of an export.

It needs no privileges, and is honest: nodes with generations in their keys, names, link
counts that fall to 0, inodes that live on while they are open, and the errnos that a
Linux file system gives.  Files' contents are memfds, so that descriptors are real ones.

``journal`` names every call that has changed or opened something: a test of what must
not touch the disk compares it, and ``snapshot``, before and after.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from farwatch.events import Key, Place
from farwatch.export.content import Content
from farwatch.export.guise import Guise
from farwatch.export.setid import Groups, no_groups
from farwatch.export.tree import NOW, OMIT, Caller, DirEntry, SetAttr

NAME_MAX = 255
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
_STATUS = 10
_DEVICE = 0x2A
BIRTH_NS = 1_111_111_111_000_000_000
"""Of inode 0, which there is none of; each next one was born one later."""
_CONTENT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC


class Listing(Protocol):
    """An open directory."""

    def read(self, offset: int, size_hint: int) -> list[DirEntry]: ...
    def close(self) -> None: ...


class Tree(Protocol):
    """What a session asks of the export.  The real one fits as well (test_memory)."""

    root_key: Key
    guise: Guise

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]: ...
    def names(self, directory: Key) -> list[bytes]: ...
    def node_at(self, directory: Key, name: bytes) -> Key | None: ...
    def is_mount_point(self, directory: Key, name: bytes) -> bool: ...
    def keep(self, node: Key) -> None: ...
    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None: ...
    def inside(self, node: Key) -> bool: ...
    def place_of(self, node: Key) -> Place | None: ...
    def link(self, node: Key, directory: Key, name: bytes) -> tuple[Key, os.stat_result]: ...
    def unlink(self, directory: Key, name: bytes) -> None: ...
    def rmdir(self, directory: Key, name: bytes) -> None: ...
    def rename(
        self,
        old_directory: Key,
        old_name: bytes,
        new_directory: Key,
        new_name: bytes,
        flags: int,
        maker: Caller | None = None,
    ) -> None: ...
    def mknod(
        self, directory: Key, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> tuple[Key, os.stat_result]: ...
    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]: ...
    def symlink(
        self, directory: Key, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Key, os.stat_result]: ...
    def create(
        self, directory: Key, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]: ...
    def tmpfile(
        self, directory: Key, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]: ...
    def open(
        self, node: Key, flags: int, *, place: Place | None = None, kill_suidgid: bool = False
    ) -> int: ...
    def getattr(self, node: Key) -> os.stat_result: ...
    def getattr_open(self, fd: int) -> os.stat_result: ...
    def birth_time(self, node: Key) -> int | None: ...
    def setattr(
        self,
        node: Key,
        fd: int | None,
        changes: SetAttr,
        caller: Caller,
        *,
        place: Place | None = None,
        groups: Groups = no_groups,
    ) -> os.stat_result: ...
    def statfs(self, node: Key) -> os.statvfs_result: ...
    def readlink(self, node: Key) -> bytes: ...
    def getxattr(self, node: Key, name: bytes) -> bytes: ...
    def listxattr(self, node: Key) -> list[bytes]: ...
    def setxattr(
        self,
        node: Key,
        name: bytes,
        value: bytes,
        flags: int,
        caller: Caller,
        *,
        place: Place | None = None,
        kill_sgid: bool = False,
    ) -> None: ...
    def removexattr(self, node: Key, name: bytes, *, place: Place | None = None) -> None: ...
    def opendir(self, node: Key) -> Listing: ...


class Inode:
    """A node of the disk."""

    def __init__(self, ino: int, mode: int, uid: int, gid: int, rdev: int = 0) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.nlink = 0
        self.times = [1_000 * ino, 1_001 * ino, 1_002 * ino]
        self.xattrs: dict[bytes, bytes] = {}
        self.children: dict[bytes, Inode] = {}
        self.parent: Inode | None = None
        self.target = b""
        self.memory = -1
        if stat.S_ISREG(mode):
            self.memory = os.memfd_create("farwatch-test", os.MFD_CLOEXEC)

    @property
    def key(self) -> Key:
        # fsid, then a file handle of 8 bytes of type 1: number and generation.
        return b"memorydk" + struct.pack("<IiII", 8, 1, self.ino, 7)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def tick(self) -> None:
        """A name in it was made or removed: mtime and ctime say so."""
        self.times[1] += 1
        self.times[2] += 1

    def content(self) -> bytes:
        return os.pread(self.memory, 1 << 20, 0) if self.memory >= 0 else self.target


class Snapshot(NamedTuple):
    """All that there is of a node."""

    ino: int
    mode: int
    owner: tuple[int, int]
    rdev: int
    nlink: int
    times: tuple[int, ...]
    xattrs: tuple[tuple[bytes, bytes], ...]
    content: bytes
    names: tuple[tuple[bytes, int], ...]


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _check(name: bytes) -> None:
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise _fail(errno.EINVAL)
    if len(name) > NAME_MAX:
        raise _fail(errno.ENAMETOOLONG)


class MemoryDirectory:
    """A directory open for listing."""

    def __init__(self, disk: MemoryDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self.closed = False

    def read(self, offset: int, size_hint: int) -> list[DirEntry]:
        if offset >= 1 << 63:
            raise _fail(errno.EINVAL)
        inode = self._inode
        here = [(b".", inode), (b"..", inode.parent or inode), *sorted(inode.children.items())]
        entries: list[DirEntry] = []
        for index, (name, child) in enumerate(here[offset:], offset):
            size_hint -= 20 + (len(name) + 7 & ~7)
            if size_hint < 0 and entries:
                break
            entries.append(DirEntry(name, child.ino, stat.S_IFMT(child.mode) >> 12, index + 1))
        return entries

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._disk.open_directories -= 1


class MemoryDisk(Content):
    """The disk; ``do_…`` is what somebody else does to it, behind the session's back."""

    keeps_removed = False

    def __init__(self) -> None:
        self._next_ino = 2
        self._inodes: dict[Key, Inode] = {}
        self._memories: dict[int, Inode] = {}
        self.journal: list[str] = []
        self.places: list[Place | None] = []
        """The places by which nodes were opened or changed, as the session gave them."""
        self.open_directories = 0
        self.root = self._make(stat.S_IFDIR | 0o755, 0, 0)
        self.root.nlink = 2
        self.root_key = self.root.key
        self.guise = Guise(0)

    # A context: the memfds are to be closed.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for inode in self._inodes.values():
            if inode.memory >= 0:
                os.close(inode.memory)
                inode.memory = -1

    # What tests ask ----------------------------------------------------------------

    def at(self, path: str) -> Inode:
        """The node at a path from the root."""
        inode = self.root
        for name in path.split("/"):
            if name:
                inode = inode.children[name.encode()]
        return inode

    def place(self, path: str) -> Place:
        """Where a path's last name is."""
        parent, _, name = path.rpartition("/")
        return Place(self.at(parent).key, name.encode())

    def snapshot(self) -> dict[Key, Snapshot]:
        return {
            key: Snapshot(
                inode.ino,
                inode.mode,
                (inode.uid, inode.gid),
                inode.rdev,
                inode.nlink,
                tuple(inode.times),
                tuple(sorted(inode.xattrs.items())),
                inode.content(),
                tuple(sorted((name, child.ino) for name, child in inode.children.items())),
            )
            for key, inode in self._inodes.items()
            if inode.memory >= 0 or not stat.S_ISREG(inode.mode)
        }

    def walk(self) -> Iterator[tuple[str, Inode]]:
        """All paths, depth first."""

        def down(prefix: str, inode: Inode) -> Iterator[tuple[str, Inode]]:
            for name, child in sorted(inode.children.items()):
                path = prefix + name.decode("utf-8", "surrogateescape")
                yield path, child
                yield from down(path + "/", child)

        return down("", self.root)

    # What somebody else does -------------------------------------------------------

    def do_file(self, path: str, content: bytes = b"", mode: int = 0o644) -> Inode:
        inode = self._make(stat.S_IFREG | mode, 0, 0)
        os.pwrite(inode.memory, content, 0)
        return self._enter(path, inode)

    def do_mkdir(self, path: str) -> Inode:
        return self._enter(path, self._make(stat.S_IFDIR | 0o755, 0, 0))

    def do_symlink(self, path: str, target: bytes) -> Inode:
        inode = self._enter(path, self._make(stat.S_IFLNK | 0o777, 0, 0))
        inode.target = target
        return inode

    def do_node(self, path: str, mode: int, rdev: int = 0) -> Inode:
        return self._enter(path, self._make(mode, 0, 0, rdev))

    def do_link(self, old: str, new: str) -> Inode:
        return self._enter(new, self.at(old))

    def do_remove(self, path: str) -> Inode:
        place = self.place(path)
        inode = self.at(path)
        self._remove(self._inodes[place.directory], place.name)
        return inode

    def do_rename(self, old: str, new: str, flags: int = 0) -> None:
        self._rename(self.place(old), self.place(new), flags)

    def do_close(self, inode: Inode) -> None:
        """The last opener of a removed file closes it: the inode is gone."""
        assert inode.nlink == 0
        self._drop(inode)

    def do_write(self, path: str, content: bytes) -> None:
        inode = self.at(path)
        os.ftruncate(inode.memory, 0)
        os.pwrite(inode.memory, content, 0)
        inode.times[1] += 1

    def _enter(self, path: str, inode: Inode) -> Inode:
        place = self.place(path)
        self._add(self._inodes[place.directory], place.name, inode)
        return inode

    # The disk itself ---------------------------------------------------------------

    def _make(self, mode: int, uid: int, gid: int, rdev: int = 0) -> Inode:
        inode = Inode(self._next_ino, mode, uid, gid, rdev)
        self._next_ino += 1
        self._inodes[inode.key] = inode
        if inode.memory >= 0:
            self._memories[os.fstat(inode.memory).st_ino] = inode
        return inode

    def _add(self, directory: Inode, name: bytes, inode: Inode) -> None:
        _check(name)
        if not directory.is_dir:
            raise _fail(errno.ENOTDIR)
        if name in directory.children:
            raise _fail(errno.EEXIST)
        directory.children[name] = inode
        directory.tick()
        if inode.is_dir:
            inode.nlink = 2
            inode.parent = directory
            directory.nlink += 1
        else:
            inode.nlink += 1

    def _remove(self, directory: Inode, name: bytes) -> None:
        inode = directory.children.pop(name)
        directory.tick()
        if inode.is_dir:
            directory.nlink -= 1
            inode.nlink = 0
            self._drop(inode)
        else:
            inode.nlink -= 1

    def _drop(self, inode: Inode) -> None:
        del self._inodes[inode.key]
        if inode.memory >= 0:
            os.close(inode.memory)
            inode.memory = -1

    def _inode(self, key: Key) -> Inode:
        try:
            return self._inodes[key]
        except KeyError:
            raise _fail(errno.ESTALE) from None

    def _directory(self, key: Key) -> Inode:
        inode = self._inode(key)
        if not inode.is_dir:
            raise _fail(errno.ENOTDIR)
        return inode

    def _status(self, inode: Inode) -> os.stat_result:
        size = os.fstat(inode.memory).st_size if inode.memory >= 0 else len(inode.target)
        seconds = [moment // 1_000_000_000 for moment in inode.times]
        return os.stat_result(
            (
                inode.mode,
                inode.ino,
                _DEVICE,
                inode.nlink,
                inode.uid,
                inode.gid,
                size,
                *seconds,
            ),
            {
                "st_atime_ns": inode.times[0],
                "st_mtime_ns": inode.times[1],
                "st_ctime_ns": inode.times[2],
                "st_rdev": inode.rdev,
                "st_blksize": 4096,
                "st_blocks": (size + 511) // 512,
            },
        )

    # What the session asks: names --------------------------------------------------

    def names(self, directory: Key) -> list[bytes]:
        return list(self._directory(directory).children)

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        if name == b".":
            inode = self._inode(directory)
        elif name == b"..":
            inode = self._directory(directory)
            inode = inode.parent or inode
        else:
            _check(name)
            found = self._directory(directory).children.get(name)
            if found is None:
                raise _fail(errno.ENOENT)
            inode = found
        return inode.key, self._status(inode)

    def is_mount_point(self, directory: Key, name: bytes) -> bool:
        return False

    def keep(self, node: Key) -> None:
        """Nothing: a node is there for as long as it has a name."""

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """Nothing."""

    def node_at(self, directory: Key, name: bytes) -> Key | None:
        _check(name)
        inode = self._inodes.get(directory)
        child = inode.children.get(name) if inode is not None else None
        return child.key if child is not None else None

    def inside(self, node: Key) -> bool:
        return node in self._inodes

    def place_of(self, node: Key) -> Place | None:
        inode = self._inodes.get(node)
        if inode is None or inode.parent is None:
            return None
        for name, child in inode.parent.children.items():
            if child is inode:
                return Place(inode.parent.key, name)
        return None

    def link(self, node: Key, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        self.journal.append("link")
        inode = self._inode(node)
        if inode.is_dir:
            raise _fail(errno.EPERM)
        self._add(self._directory(directory), name, inode)
        return node, self._status(inode)

    def unlink(self, directory: Key, name: bytes) -> None:
        self.journal.append("unlink")
        parent = self._directory(directory)
        key, _ = self.lookup(directory, name)
        if self._inode(key).is_dir:
            raise _fail(errno.EISDIR)
        self._remove(parent, name)

    def rmdir(self, directory: Key, name: bytes) -> None:
        self.journal.append("rmdir")
        parent = self._directory(directory)
        key, _ = self.lookup(directory, name)
        inode = self._directory(key)
        if inode.children:
            raise _fail(errno.ENOTEMPTY)
        self._remove(parent, name)

    def rename(
        self,
        old_directory: Key,
        old_name: bytes,
        new_directory: Key,
        new_name: bytes,
        flags: int,
        maker: Caller | None = None,
    ) -> None:
        self.journal.append("rename")
        if flags & ~7 or (flags & RENAME_EXCHANGE and flags & 5):
            raise _fail(errno.EINVAL)
        _check(old_name)
        _check(new_name)
        self._rename(Place(old_directory, old_name), Place(new_directory, new_name), flags)

    def _rename(self, old: Place, new: Place, flags: int) -> None:
        source, target = self._directory(old.directory), self._directory(new.directory)
        inode, other = source.children.get(old.name), target.children.get(new.name)
        if inode is None or (flags & RENAME_EXCHANGE and other is None):
            raise _fail(errno.ENOENT)
        self._must_not_hold_itself(inode, target)
        if other is not None and flags & RENAME_EXCHANGE:
            self._must_not_hold_itself(other, source)
            source.children[old.name], target.children[new.name] = other, inode
            for child, parent, before in ((inode, target, source), (other, source, target)):
                if child.is_dir:
                    child.parent = parent
                    before.nlink -= 1
                    parent.nlink += 1
            return
        if other is inode:
            return
        if other is not None:
            if flags & RENAME_NOREPLACE:
                raise _fail(errno.EEXIST)
            if inode.is_dir and not other.is_dir:
                raise _fail(errno.ENOTDIR)
            if other.is_dir and not inode.is_dir:
                raise _fail(errno.EISDIR)
            if other.children:
                raise _fail(errno.ENOTEMPTY)
            self._remove(target, new.name)
        del source.children[old.name]
        target.children[new.name] = inode
        if inode.is_dir:
            inode.parent = target
            source.nlink -= 1
            target.nlink += 1
        if flags & RENAME_WHITEOUT:
            self._add(source, old.name, self._make(stat.S_IFCHR, 0, 0))

    @staticmethod
    def _must_not_hold_itself(inode: Inode, directory: Inode | None) -> None:
        while directory is not None:
            if directory is inode:
                raise _fail(errno.EINVAL)
            directory = directory.parent

    # Making ------------------------------------------------------------------------

    def _made(
        self, directory: Key, name: bytes, mode: int, caller: Caller, rdev: int = 0
    ) -> tuple[Inode, os.stat_result]:
        parent = self._directory(directory)
        _check(name)
        if not (0 <= caller.uid < 0xFFFFFFFF and 0 <= caller.gid < 0xFFFFFFFF):
            raise _fail(errno.EINVAL)
        if name in parent.children:
            raise _fail(errno.EEXIST)
        inode = self._make(mode, caller.uid, caller.gid, rdev)
        self._add(parent, name, inode)
        return inode, self._status(inode)

    def mknod(
        self, directory: Key, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        self.journal.append("mknod")
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
            raise _fail(errno.EINVAL)
        inode, status = self._made(directory, name, kind | mode & 0o7777, caller, rdev)
        return inode.key, status

    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        self.journal.append("mkdir")
        inode, status = self._made(directory, name, stat.S_IFDIR | mode & 0o7777, caller)
        return inode.key, status

    def symlink(
        self, directory: Key, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        self.journal.append("symlink")
        inode, _ = self._made(directory, name, stat.S_IFLNK | 0o777, caller)
        inode.target = target
        return inode.key, self._status(inode)

    def create(
        self, directory: Key, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        self.journal.append("create")
        found = self._directory(directory).children.get(name)
        if found is not None:
            if flags & os.O_EXCL:
                raise _fail(errno.EEXIST)
            if found.memory < 0:
                raise _fail(errno.ESTALE)
            return found.key, self._status(found), self._open(found, flags)
        inode, status = self._made(directory, name, stat.S_IFREG | mode & 0o7777, caller)
        return inode.key, status, self._open(inode, flags)

    def tmpfile(
        self, directory: Key, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        self.journal.append("tmpfile")
        self._directory(directory)
        if not flags & os.O_ACCMODE:
            raise _fail(errno.EINVAL)
        inode = self._make(stat.S_IFREG | mode & 0o7777, caller.uid, caller.gid)
        return inode.key, self._status(inode), self._open(inode, flags)

    # Inodes ------------------------------------------------------------------------

    def _open(self, inode: Inode, flags: int) -> int:
        allowed = flags & _CONTENT_FLAGS | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{inode.memory}", allowed)

    def open(
        self, node: Key, flags: int, *, place: Place | None = None, kill_suidgid: bool = False
    ) -> int:
        self.journal.append("open")
        self.places.append(place)
        inode = self._inode(node)
        if inode.memory < 0:
            raise _fail(errno.EISDIR if inode.is_dir else errno.ENXIO)
        return self._open(inode, flags)

    def getattr(self, node: Key) -> os.stat_result:
        return self._status(self._inode(node))

    def getattr_open(self, fd: int) -> os.stat_result:
        return self._status(self._memories[os.fstat(fd).st_ino])

    def birth_time(self, node: Key) -> int | None:
        return BIRTH_NS + self._inode(node).ino

    def setattr(
        self,
        node: Key,
        fd: int | None,
        changes: SetAttr,
        caller: Caller,
        *,
        place: Place | None = None,
        groups: Groups = no_groups,
    ) -> os.stat_result:
        self.journal.append("setattr")
        self.places.append(place)
        inode = self._inode(node) if fd is None else self._memories[os.fstat(fd).st_ino]
        for number in (changes.uid, changes.gid):
            if number is not None and not 0 <= number < 0xFFFFFFFF:
                raise _fail(errno.EINVAL)
        inode.uid = inode.uid if changes.uid is None else changes.uid
        inode.gid = inode.gid if changes.gid is None else changes.gid
        if changes.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | changes.mode & 0o7777
        if changes.size is not None:
            if inode.memory < 0 or changes.size >= 1 << 40:
                raise _fail(errno.EINVAL)
            os.ftruncate(inode.memory, changes.size)
        for index, moment in enumerate((changes.atime_ns, changes.mtime_ns)):
            if moment != OMIT:
                inode.times[index] = 5_000_000_000 if moment == NOW else moment
        return self._status(inode)

    def statfs(self, node: Key) -> os.statvfs_result:
        self._inode(node)
        return os.statvfs_result((4096, 4096, 1000, 900, 800, 700, 600, 500, 0, NAME_MAX))

    def readlink(self, node: Key) -> bytes:
        inode = self._inode(node)
        if not stat.S_ISLNK(inode.mode):
            raise _fail(errno.EINVAL)
        return inode.target

    def getxattr(self, node: Key, name: bytes) -> bytes:
        try:
            return self._inode(node).xattrs[name]
        except KeyError:
            raise _fail(errno.ENODATA) from None

    def listxattr(self, node: Key) -> list[bytes]:
        return sorted(self._inode(node).xattrs)

    def setxattr(
        self,
        node: Key,
        name: bytes,
        value: bytes,
        flags: int,
        caller: Caller,
        *,
        place: Place | None = None,
        kill_sgid: bool = False,
    ) -> None:
        self.journal.append("setxattr")
        self.places.append(place)
        xattrs = self._inode(node).xattrs
        if flags & ~3:
            raise _fail(errno.EINVAL)
        if not 0 < len(name) <= 255:
            raise _fail(errno.ERANGE)
        if flags & os.XATTR_CREATE and name in xattrs:
            raise _fail(errno.EEXIST)
        if flags & os.XATTR_REPLACE and name not in xattrs:
            raise _fail(errno.ENODATA)
        xattrs[name] = value

    def removexattr(self, node: Key, name: bytes, *, place: Place | None = None) -> None:
        self.journal.append("removexattr")
        self.places.append(place)
        if self._inode(node).xattrs.pop(name, None) is None:
            raise _fail(errno.ENODATA)

    def opendir(self, node: Key) -> MemoryDirectory:
        inode = self._directory(node)
        self.open_directories += 1
        return MemoryDirectory(self, inode)

    @staticmethod
    def fallocate(
        fd: int,
        mode: int,
        offset: int,
        length: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> None:
        if offset + length > 1 << 20:
            raise _fail(errno.EFBIG)  # it would take memory, and not be given back soon
        Content.fallocate(fd, mode, offset, length)

    @staticmethod
    def fsyncdir(directory: Listing, datasync: bool) -> None: ...

    def syncfs(self) -> None: ...
