"""What the disk holds of what is compared after a gap: looked at once, and again where it changes.

Each answer of the export may be old already when it is given; whoever surveys looks again at
all that has changed meanwhile (resync.py).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from farwatch.events import Key, Place
from farwatch.session.stamps import Entry, Stamp, entry_of, stamp, stamp_of

_SLICE = 64
_GONE = frozenset((errno.ESTALE, errno.ENOENT, errno.ENOTDIR))

log = logging.getLogger(__name__)


class Surveyed(Protocol):
    """What is asked of the export, from another thread than the server's."""

    def names(self, directory: Key) -> list[bytes]:
        """All names of a directory.  Raises OSError ESTALE if it is gone."""

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        """Key and attributes of the node at a name.  Raises OSError."""

    def getattr(self, node: Key) -> os.stat_result:
        """The inode's status.  Raises OSError ESTALE if it is gone."""


class Survey:
    """Directories and nodes, as they were found to be."""

    def __init__(self, export: Surveyed) -> None:
        self._export = export
        self.found: dict[Key, dict[bytes, Entry]] = {}
        """The names of each directory that was looked at."""
        self.nodes: dict[Key, bytes] = {}
        """The stamp of each node that was looked at by itself and is there."""
        self.unlisted: list[Key] = []
        """Directories that are there and cannot be listed."""

    def look_into(self, key: Key, names: Sequence[bytes] | None) -> Iterator[None]:
        """Look at these names of a directory, or at all of them, a slice at each step."""
        found = self.found[key] = {}
        try:
            names = self._export.names(key) if names is None else names
        except OSError as error:
            if error.errno not in _GONE:
                log.warning("a watched directory cannot be listed: %s", error.strerror)
                self.unlisted.append(key)
                del self.found[key]
            return
        for index, name in enumerate(names):
            entry = self._look(key, name)
            if entry is not None:
                found[name] = entry
            if index % _SLICE == _SLICE - 1:
                yield
        yield

    def look_at(self, place: Place) -> None:
        """Look at a name again, if its directory is one of those."""
        names = self.found.get(place.directory)
        if names is None:
            return
        entry = self._look(*place)
        if entry is not None:
            names[place.name] = entry
        else:
            names.pop(place.name, None)

    def look_at_node(self, key: Key) -> None:
        """Look at a node by itself."""
        packed = self._packed(key)
        if packed is not None:
            self.nodes[key] = packed
        else:
            self.nodes.pop(key, None)

    def stamp(self, key: Key) -> Stamp | None:
        """The stamp that any node has now; None if it is gone."""
        packed = self._packed(key)
        return stamp(packed) if packed is not None else None

    def _look(self, directory: Key, name: bytes) -> Entry | None:
        try:
            return entry_of(*self._export.lookup(directory, name))
        except OSError:
            return None

    def _packed(self, key: Key) -> bytes | None:
        try:
            return stamp_of(self._export.getattr(key))
        except OSError:
            return None
