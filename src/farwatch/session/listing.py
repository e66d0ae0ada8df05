"""Requests about directories' contents."""

from __future__ import annotations

from collections.abc import Callable

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.export.nodes import Node
from farwatch.export.tree import DirEntry, Export
from farwatch.session.files import OpenDirectories
from farwatch.session.naming import Naming
from farwatch.session.request import Handler, Payload, Request
from farwatch.session.view import View

_PADDING = bytes(8)
_NOT_TOLD = bytes(fuse.ENTRY_OUT_SIZE)
_UNTOLD_ENTRIES = (b".", b"..")
_PLUS_SHARE = 6
"""A listed entry is about this many times as long as what the disk says of it."""


class Listing:
    """Handlers of opendir, readdir and what belongs to them."""

    def __init__(
        self,
        export: Export,
        view: View,
        directories: OpenDirectories,
        naming: Naming,
        on_closed: Callable[[int], None],
    ) -> None:
        """``on_closed`` is told the handle of each directory that is closed."""
        self._export = export
        self._view = view
        self._directories = directories
        self._naming = naming
        self._on_closed = on_closed
        self.handlers: dict[int, Handler] = {
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
        }

    def opendir(self, request: Request) -> Payload:
        """OPENDIR."""
        node = self._naming.directory(request.node)
        return self._directories.add(node, self._export.opendir(node.key))

    def releasedir(self, request: Request) -> Payload:
        """RELEASEDIR."""
        fh = fuse.RELEASE_IN.unpack_from(request.body)[0]
        # The agent's may be one of a server that has died, and so unknown as a directory.
        self._on_closed(fh)
        self._directories.release(fh)
        return b""

    def fsyncdir(self, request: Request) -> Payload:
        """FSYNCDIR."""
        fh, flags, _ = fuse.FSYNC_IN.unpack_from(request.body)
        _, directory = self._directories.get(fh)
        self._export.fsyncdir(directory, bool(flags & fuse.FSYNC_FDATASYNC))
        return b""

    def readdir(self, request: Request) -> Payload:
        """READDIR: names, inode numbers and types; nothing that the client remembers."""
        fh, offset, size, *_ = fuse.READ_IN.unpack_from(request.body)
        _, directory = self._directories.get(fh)
        parts: list[bytes] = []
        for entry in directory.read(offset, size):
            length = fuse.dirent_size(len(entry.name))
            if length > size:
                break
            size -= length
            parts.extend(_dirent(entry))
        return b"".join(parts)

    def readdirplus(self, request: Request) -> Payload:
        """READDIRPLUS: names, and for each what a LOOKUP of it would have told."""
        fh, offset, size, *_ = fuse.READ_IN.unpack_from(request.body)
        node, directory = self._directories.get(fh)
        parts: list[bytes] = []
        for entry in directory.read(offset, size // _PLUS_SHARE):
            length = fuse.ENTRY_OUT_SIZE + fuse.dirent_size(len(entry.name))
            if length > size:
                break
            size -= length
            parts.append(self._told_along(node, entry))
            parts.extend(_dirent(entry))
        return b"".join(parts)

    def _told_along(self, directory: Node, entry: DirEntry) -> bytes:
        """The ``fuse_entry_out`` of a listed name; of node 0 if it is not to be told."""
        if entry.name in _UNTOLD_ENTRIES:
            return _NOT_TOLD
        try:
            key, status = self._export.lookup(directory.key, entry.name)
        except OSError:
            return _NOT_TOLD
        known = self._view.nodes.by_key.get(key)
        if not self._view.tellable(directory, entry.name, known):
            return _NOT_TOLD
        return bytes(self._naming.tell(directory, entry.name, key, status))


def _dirent(entry: DirEntry) -> tuple[bytes, bytes, bytes]:
    length = len(entry.name)
    return (
        fuse.DIRENT.pack(entry.ino, entry.next_offset, length, entry.type),
        entry.name,
        _PADDING[: -length & 7],
    )
