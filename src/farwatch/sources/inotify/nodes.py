"""What the source asks of the export, from its own thread."""

from __future__ import annotations

import os
from typing import Protocol

from farwatch.events import Key, Place
from farwatch.sources.inotify.tenants import is_ghost


class Nodes(Protocol):
    """The nodes that the client knows, and those that it may come to know."""

    def look(self, place: Place) -> Key | None:
        """The key of what is at a name, which is pinned; None if there is nothing."""

    def open_node(self, node: Key) -> int:
        """An O_PATH descriptor of a node, the caller's.  OSError(ESTALE) if it is not known."""

    def let_die(self, node: Key) -> bool:
        """Let go of a node that has no name left; whether that was so."""


def found_at(nodes: Nodes | None, place: Place) -> Key | None:
    """What is at a name now; None if that is nothing, or there is nobody to be asked."""
    if nodes is None or is_ghost(place.directory):
        return None
    try:
        return nodes.look(place)
    except OSError:
        return None


def has_no_name(nodes: Nodes | None, node: Key) -> bool:
    """Whether a node has no name any more, as far as anybody can be asked."""
    if nodes is None:
        return False
    try:
        fd = nodes.open_node(node)
    except OSError:
        return True
    try:
        return not os.fstat(fd).st_nlink
    finally:
        os.close(fd)
