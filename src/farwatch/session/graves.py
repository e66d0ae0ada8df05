"""What the client has removed itself, and may still use: it is kept until it is forgotten.

A program that has found a name opens, a moment later, what was there.  If another has
removed it meanwhile, or has renamed something over it, a local file system still has the
inode, for the program holds it.  Here only the client's kernel holds it, and the disk does not
know: without a descriptor of it the program would be told ESTALE, and so would who works in a
directory that is no more.

    removed      the last name is gone: the descriptor that was opened before is kept
    forgotten    the client's kernel has let go of it, mostly at once: closed, and the inode
                 ends, as it would have then on a local file system
"""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from farwatch.events import Key
from farwatch.export.nodes import Holder, Node
from farwatch.export.tree import Export

_SHARE = 4
"""Of the descriptors that the process may have at most one in so many is kept here; what is
removed beyond is not kept."""


class Graves:
    """Of one client.  Owns the descriptors.  Called with the view's lock held."""

    def __init__(self, export: Export, *, is_used: bool) -> None:
        """Does nothing unless ``is_used``.  Tells ``export`` what it is told as a Holder."""
        self._export = export
        self._holder: Holder = export
        self._is_used = is_used
        self._fds: dict[Key, int] = {}
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE

    def keep(self, node: Key) -> None:
        """The client knows the node from now on (``nodes.Holder``)."""
        self._holder.keep(node)

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """The client does not know the node any more (``nodes.Holder``)."""
        self._holder.let_go(node, inside)
        fd = self._fds.pop(node, None)
        if fd is not None:
            os.close(fd)

    def held(self, node: Key) -> int | None:
        """A descriptor (O_PATH) of what is kept; it stays owned here."""
        return self._fds.get(node)

    @contextmanager
    def removing(self, directory: Node, name: bytes, node: Node | None) -> Iterator[None]:
        """Around the removal of a name of a node: keeps it, if that was the last."""
        fd = None
        if self._is_used and node is not None and node.lookups and len(self._fds) < self._most:
            fd = self._export.hold(directory.key, name)
        if fd is None or node is None:
            yield
            return
        try:
            yield
        except BaseException:
            os.close(fd)
            raise
        if _has_no_name(fd) and node.key not in self._fds:
            self._fds[node.key] = fd
        else:
            os.close(fd)


def _has_no_name(fd: int) -> bool:
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError:
        # Below a FUSE mount that goes by paths there is nothing left to be kept.
        return False
