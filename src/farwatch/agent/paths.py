"""Directories by the path that the kernel has for them now, as the server says.

By path nothing is reached but what is in the mount: no symbolic link is followed, no other mount
entered, and no name leads up.  What is reached at a wrong place is refused by the server, which
acknowledges only what the step is about.
"""

from __future__ import annotations

import errno
import os

from farwatch.abi.control import HIDDEN_ID, ROOT_ID
from farwatch.agent.channel import Channel
from farwatch.linux import files

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_WITHIN = (
    files.RESOLVE_NO_XDEV
    | files.RESOLVE_NO_SYMLINKS
    | files.RESOLVE_NO_MAGICLINKS
    | files.RESOLVE_BENEATH
)
_DEEPEST = 64
"""How many parts a path may come in, each of some thousand bytes."""


class Paths:
    """Of one mount.

    ``root`` is its root directory and stays the caller's; ``hidden`` the name in it of the
    directory that nobody sees.
    """

    def __init__(self, root: int, hidden: bytes) -> None:
        self._root = root
        self._hidden = hidden
        self._channel = Channel(root)

    def open(self, node: int) -> int:
        """An O_PATH descriptor of a directory by its id, the caller's.

        Raises OSError: one of ``LOST`` if it is not where the server says.
        """
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


LOST = frozenset((errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
"""What ``open`` fails with for a directory that has no place any more, or another now.

Not EXDEV: the client has mounted something on it, so it is to stay where it is."""
