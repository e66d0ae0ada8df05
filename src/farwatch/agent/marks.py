"""How the server knows the agent's replays, and how the agent comes to directories.

    by fsuid    each request carries the step's number (abi/control.py).  Directories are
                opened by handle, which takes root as well
    by thread   an ordinary user's: the server knows the thread, and that it does the steps in
                their order.  Directories are opened by path (paths.py)

A directory whose name the kernel has dropped to save memory is opened by path in any case: to
open its handle the kernel would list the directory above, which everybody hears who watches that
for OPEN.  So the server does not answer the question by which that begins, a LOOKUP of ``..``.
"""

from __future__ import annotations

import errno
import struct
from typing import Protocol

from farwatch.abi.control import FIRST_UID, LAST_UID, NO_UID, Hello
from farwatch.agent.paths import DIRECTORY, Paths
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

_CAPABILITIES = CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH | CAP_FOWNER | CAP_FSETID | CAP_MKNOD
_HANDLE = struct.Struct("<IiIII")
"""A FUSE file handle (fs/fuse/inode.c): 12 bytes of type 0x81: node id high, low,
generation."""
_HANDLE_TYPE = 0x81


class Marks(Protocol):
    """Of one thread, which is the one that replays."""

    resolve: int
    """``RESOLVE_``… bits for whatever is opened by name; 0: none is needed."""

    def take(self) -> None:
        """Mark the calling thread.  Raises OSError."""

    def on(self, sequence: int) -> None:
        """The thread is on a step."""

    def open_directory(self, node: int) -> int:
        """An O_PATH descriptor of a directory by its id, the caller's.

        Raises OSError: one of ``paths.LOST`` for a directory that has no place any more.
        """

    def drop(self) -> None:
        """The thread is nobody's any more."""


class ByFsuid:
    """Root's.  ``root`` is the mount's root directory."""

    resolve = 0

    def __init__(self, root: int, hello: Hello) -> None:
        self._root = root
        self._generation = hello.generation
        self._paths = Paths(root, hello.hidden)

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
        try:
            return open_by_handle(self._root, handle, DIRECTORY)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return self._paths.open(node)

    def drop(self) -> None:
        """See Marks."""
        setfsuid(0)


class ByThread:
    """An ordinary user's.  ``root`` is the mount's root directory."""

    resolve = files.RESOLVE_NO_XDEV

    def __init__(self, root: int, hello: Hello) -> None:
        self._paths = Paths(root, hello.hidden)

    def take(self) -> None:
        """The server has taken note at HELLO."""

    def on(self, sequence: int) -> None:
        """The server sees by itself."""

    def open_directory(self, node: int) -> int:
        """See Marks."""
        return self._paths.open(node)

    def drop(self) -> None:
        """The server knows it until it ends."""


def marks_of(root: int, hello: Hello) -> Marks:
    """The marks that the server asks for."""
    return (ByThread if hello.uid == NO_UID else ByFsuid)(root, hello)
