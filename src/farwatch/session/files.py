"""Open files of one client: what its file handles stand for, and how they do I/O.

The kernel wants one kind of I/O for all opens of an inode that are there at one time:
either every one of them goes to one backing file (passthrough), or none does; an open of
the other kind is answered EIO.  A replay's open has no file behind it and is direct I/O,
but must name the same backing file while others are open in passthrough.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from fcntl import F_GETFL, F_SETFL, fcntl
from stat import S_ISGID, S_ISUID

from farwatch.abi import fuse
from farwatch.abi.fuse import Open
from farwatch.events import Key
from farwatch.export.backing import BackingFiles
from farwatch.export.directories import Directory
from farwatch.export.nodes import Node
from farwatch.session.request import fail

NO_FILE = -1


class OpenFile:
    """An open file or, with ``fd`` NO_FILE, the open of a replay."""

    __slots__ = ("appends", "backed", "fd", "flushes", "node", "opener", "writes")

    def __init__(self, node: Node, fd: int, backed: bool) -> None:
        self.node = node
        self.fd = fd
        self.backed = backed
        self.flushes = True
        """Whether each close(2) of the client's is told."""
        self.opener = 0
        flags = 0 if fd == NO_FILE else fcntl(fd, F_GETFL)
        self.writes = bool(flags & os.O_ACCMODE)
        self.appends = bool(flags & os.O_APPEND)
        """Whether what is written goes to the end."""

    def append(self, on: bool) -> None:
        """From now on write at the end, or where it is said: a program can change that."""
        flags = fcntl(self.fd, F_GETFL)
        fcntl(self.fd, F_SETFL, flags | os.O_APPEND if on else flags & ~os.O_APPEND)
        self.appends = on


class _Mode:
    """How the opens of one inode do I/O, and how many there are."""

    __slots__ = ("backed", "count", "writers")

    def __init__(self, backed: bool) -> None:
        self.backed = backed
        self.count = 0
        self.writers = 0


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
        self.on_closed: Callable[[Node, int], None] = lambda node, opener: None
        """Called with a file that was written by itself (passthrough), and who opened it."""
        self._next = base + 1
        self.tells_closes = False
        """Whether it matters when a process closes a file: it then loses its locks of it."""
        self.needs_flush: Callable[[Node], bool] = lambda node: False
        """Whether to be told of each close(2) of what is opened for reading, too."""

    def add(self, node: Node, fd: int, opener: int = 0) -> bytes:
        """Take over a descriptor; the ``OPEN_OUT`` that tells the client of it.

        ``opener`` is the thread that opens it.

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
        file = OpenFile(node, fd, backing_id != 0)
        file.opener = opener
        if self.tells_closes and (file.writes or self.needs_flush(node)):
            flags &= ~int(Open.NOFLUSH)
        file.flushes = not flags & Open.NOFLUSH
        return self._enter(file, flags, backing_id)

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
            state.writers += file.writes
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

    def is_written(self, node: Node) -> bool:
        """Whether the client has a file open for writing."""
        state = self._modes.get(node.id)
        return state is not None and state.writers > 0

    def held(self, key: Key) -> int | None:
        """A descriptor of a file that the client has open, if it has; it stays owned here."""
        for file in list(self._files.values()):
            if file.fd != NO_FILE and file.node.key == key:
                return file.fd
        return None

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
        if file.writes and file.backed:
            self.on_closed(file.node, file.opener)
        if file.backed or file.fd != NO_FILE:
            state = self._modes[file.node.id]
            state.count -= 1
            state.writers -= file.writes
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
