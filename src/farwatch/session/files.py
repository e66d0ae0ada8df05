"""Open files of one client: what its file handles stand for, and how they do I/O.

The kernel wants one kind of I/O for all opens of an inode that are there at one time:
either every one of them goes to one backing file (passthrough), or none does; an open of
the other kind is answered EIO.  A replay's open has no file behind it and is direct I/O,
but must name the same backing file while others are open in passthrough.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISGID, S_ISUID

from farwatch.abi import fuse
from farwatch.abi.fuse import Open
from farwatch.export.backing import BackingFiles
from farwatch.export.directories import Directory
from farwatch.export.nodes import Node
from farwatch.session.request import fail

NO_FILE = -1


class OpenFile:
    """An open file or, with ``fd`` NO_FILE, the open of a replay."""

    __slots__ = ("backed", "fd", "node")

    def __init__(self, node: Node, fd: int, backed: bool) -> None:
        self.node = node
        self.fd = fd
        self.backed = backed


class _Mode:
    """How the opens of one inode do I/O, and how many there are."""

    __slots__ = ("backed", "count")

    def __init__(self, backed: bool) -> None:
        self.backed = backed
        self.count = 0


class OpenFiles:
    """File handles of files.  Owns the descriptors; ``close`` closes them all."""

    def __init__(
        self,
        backing: BackingFiles | None,
        noflush: bool,
        direct: bool = False,
        base: int = 0,
    ) -> None:
        """With ``direct`` nothing of a file is cached; handles are above ``base``."""
        self._backing = backing
        self._flush_flag = Open.NOFLUSH if noflush else 0
        self._flags = int(self._flush_flag | (Open.DIRECT_IO if direct else 0))
        self._files: dict[int, OpenFile] = {}
        self._modes: dict[int, _Mode] = {}
        self._next = base + 1

    def add(self, node: Node, fd: int) -> bytes:
        """Take over a descriptor; the ``OPEN_OUT`` that tells the client of it.

        A file that gives privileges to who runs it is not opened in passthrough: the
        server must take them away on a write.
        """
        backing_id = 0
        flags = self._flags
        if self._backing is not None:
            backing_id = self._back(self._backing, node, fd)
            if backing_id:
                flags |= int(Open.PASSTHROUGH)
        node.cached |= not backing_id
        return self._enter(OpenFile(node, fd, backing_id != 0), flags, backing_id)

    def _back(self, backing: BackingFiles, node: Node, fd: int) -> int:
        """The backing id that an open goes to; 0 if it goes to none."""
        state = self._modes.get(node.id)
        if not (state.backed if state is not None else not _gives_privileges(fd)):
            return 0
        try:
            return backing.acquire(node.key, fd)
        except OSError:
            if state is not None:
                raise
            return 0

    def open_replay(self, node: Node) -> bytes:
        """An open with no file behind it; its ``OPEN_OUT``."""
        flags = Open.DIRECT_IO | self._flush_flag
        backing_id = None if self._backing is None else self._backing.share(node.key)
        if backing_id is not None:
            flags |= Open.PASSTHROUGH
        file = OpenFile(node, NO_FILE, backing_id is not None)
        return self._enter(file, int(flags), backing_id or 0)

    def _enter(self, file: OpenFile, flags: int, backing_id: int) -> bytes:
        if file.backed or file.fd != NO_FILE:
            state = self._modes.setdefault(file.node.id, _Mode(file.backed))
            state.count += 1
        fh = self._next
        self._next += 1
        self._files[fh] = file
        return fuse.OPEN_OUT.pack(fh, flags, backing_id)

    def get(self, fh: int) -> OpenFile:
        """The file of a handle.  Raises OSError EBADF."""
        file = self._files.get(fh)
        if file is None:
            raise fail(errno.EBADF)
        return file

    def fd(self, fh: int) -> int:
        """The descriptor of a handle.  Raises OSError EBADF, also for a replay's."""
        fd = self.get(fh).fd
        if fd == NO_FILE:
            raise fail(errno.EBADF)
        return fd

    def is_replay(self, fh: int) -> bool:
        """Whether a handle is the open of a replay."""
        file = self._files.get(fh)
        return file is not None and file.fd == NO_FILE

    def release(self, fh: int) -> None:
        """Close what a handle stands for.  Raises OSError EBADF."""
        file = self._files.pop(fh, None)
        if file is None:
            raise fail(errno.EBADF)
        if file.fd != NO_FILE:
            os.close(file.fd)
        if file.backed or file.fd != NO_FILE:
            state = self._modes[file.node.id]
            state.count -= 1
            if not state.count:
                del self._modes[file.node.id]
        if file.backed and self._backing is not None:
            self._backing.release(file.node.key)

    def close(self) -> None:
        """Close all of them."""
        for fh in list(self._files):
            self.release(fh)


class OpenDirectories:
    """File handles of directories; a replay's has no directory behind it."""

    def __init__(self, base: int = 0) -> None:
        """Handles are above ``base``."""
        self._directories: dict[int, tuple[Node, Directory | None]] = {}
        self._next = base + 1

    def add(self, node: Node, directory: Directory | None) -> bytes:
        """Take over an open directory; the ``OPEN_OUT`` that tells the client of it."""
        fh = self._next
        self._next += 1
        self._directories[fh] = (node, directory)
        return fuse.OPEN_OUT.pack(fh, 0, 0)

    def get(self, fh: int) -> tuple[Node, Directory]:
        """The node and directory of a handle.  Raises OSError EBADF."""
        node, directory = self._directories.get(fh, (None, None))
        if node is None or directory is None:
            raise fail(errno.EBADF)
        return node, directory

    def release(self, fh: int) -> None:
        """Close what a handle stands for.  Raises OSError EBADF."""
        found = self._directories.pop(fh, None)
        if found is None:
            raise fail(errno.EBADF)
        if found[1] is not None:
            found[1].close()

    def close(self) -> None:
        """Close all of them."""
        for fh in list(self._directories):
            self.release(fh)


def _gives_privileges(fd: int) -> bool:
    if os.fstat(fd).st_mode & (S_ISUID | S_ISGID):
        return True
    try:
        return bool(os.getxattr(fd, "security.capability"))
    except OSError:
        return False


class ReplayOpens:
    """The opens that the agent makes to raise OPEN and CLOSE."""

    def __init__(self, files: OpenFiles, directories: OpenDirectories) -> None:
        self._files = files
        self._directories = directories

    def open(self, node: Node, is_dir: bool) -> bytes:
        """``OPEN_OUT`` of an open with nothing behind it."""
        if is_dir:
            return self._directories.add(node, None)
        return self._files.open_replay(node)

    def is_replay(self, fh: int) -> bool:
        """Whether a file handle is the open of a replay."""
        return self._files.is_replay(fh)
