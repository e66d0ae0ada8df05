"""How the server knows the agent's replays, and how the agent comes to directories.

    by fsuid    each request carries the step's number (abi/control.py).  Directories are
                opened by handle, which takes root as well
    by thread   an ordinary user's: the server knows the thread, and that it does the steps in
                their order.  Directories are opened by the path that the kernel has for them
                now, as the server says

By path nothing is reached but what is in the mount: no symbolic link is followed, no other mount
entered, and no name leads up.  What is reached at a wrong place is refused by the server, which
acknowledges only what the step is about.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Protocol

from farwatch.abi.control import FIRST_UID, HIDDEN_ID, LAST_UID, NO_UID, ROOT_ID, Hello
from farwatch.agent.channel import Channel
from farwatch.linux import files
from farwatch.linux.credentials import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_MKNOD,
    can_be_fsuids,
    change_fsuid,
    raise_effective,
    setfsuid,
)
from farwatch.linux.handles import open_by_handle

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CAPABILITIES = CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH | CAP_FOWNER | CAP_FSETID | CAP_MKNOD
_HANDLE = struct.Struct("<IiIII")
"""A FUSE file handle (fs/fuse/inode.c): 12 bytes of type 0x81: node id high, low,
generation."""
_HANDLE_TYPE = 0x81
_WITHIN = (
    files.RESOLVE_NO_XDEV
    | files.RESOLVE_NO_SYMLINKS
    | files.RESOLVE_NO_MAGICLINKS
    | files.RESOLVE_BENEATH
)
_DEEPEST = 64
"""How many parts a path may come in, each of some thousand bytes."""


class Marks(Protocol):
    """Of one thread, which is the one that replays."""

    resolve: int
    """``RESOLVE_``… bits for whatever is opened by name; 0: none is needed."""
    lost: frozenset[int]
    """What ``open_directory`` fails with for a directory that has no place any more."""

    def take(self) -> None:
        """Mark the calling thread.  Raises OSError."""

    def on(self, sequence: int) -> None:
        """The thread is on a step."""

    def open_directory(self, node: int) -> int:
        """An O_PATH descriptor of a directory by its id, the caller's.  Raises OSError."""

    def drop(self) -> None:
        """The thread is nobody's any more."""


class ByFsuid:
    """Root's.  ``root`` is a descriptor in the mount."""

    resolve = 0
    lost = frozenset((errno.ESTALE,))

    def __init__(self, root: int, generation: int) -> None:
        self._root = root
        self._generation = generation

    def take(self) -> None:
        """See Marks."""
        # An unmarked request would be a real one: that must not happen by a mapping.
        if not can_be_fsuids(FIRST_UID, LAST_UID):
            raise PermissionError(errno.EPERM, "user ids cannot be changed here")
        setfsuid(FIRST_UID)
        raise_effective(_CAPABILITIES)

    def on(self, sequence: int) -> None:
        """See Marks."""
        change_fsuid(FIRST_UID + sequence)

    def open_directory(self, node: int) -> int:
        """See Marks."""
        handle = _HANDLE.pack(12, _HANDLE_TYPE, node >> 32, node & 0xFFFF_FFFF, self._generation)
        return open_by_handle(self._root, handle, DIRECTORY)

    def drop(self) -> None:
        """See Marks."""
        setfsuid(0)


class ByThread:
    """An ordinary user's.  ``root`` is the mount's root directory."""

    resolve = files.RESOLVE_NO_XDEV
    lost = frozenset((errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.ELOOP))

    def __init__(self, root: int, hidden: bytes) -> None:
        self._root = root
        self._hidden = hidden
        self._channel = Channel(root)

    def take(self) -> None:
        """The server has taken note at HELLO."""

    def on(self, sequence: int) -> None:
        """The server sees by itself."""

    def open_directory(self, node: int) -> int:
        """See Marks."""
        parts: list[bytes] = []
        above = node
        for _ in range(_DEEPEST):
            above, path = self._channel.place(above)
            parts.append(path)
            if above in (ROOT_ID, HIDDEN_ID):
                break
        else:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if above == HIDDEN_ID:
            parts.append(self._hidden)
        return self._walk(parts)

    def _walk(self, parts: list[bytes]) -> int:
        """From the root along the parts, of which the last one is the first."""
        fd = files.openat2(self._root, parts.pop(), DIRECTORY, resolve=_WITHIN)
        while parts:
            try:
                below = files.openat2(fd, parts.pop(), DIRECTORY, resolve=_WITHIN)
            finally:
                os.close(fd)
            fd = below
        return fd

    def drop(self) -> None:
        """The server knows it until it ends."""


def marks_of(root: int, hello: Hello) -> Marks:
    """The marks that the server asks for."""
    if hello.uid == NO_UID:
        return ByThread(root, hello.hidden)
    return ByFsuid(root, hello.generation)
