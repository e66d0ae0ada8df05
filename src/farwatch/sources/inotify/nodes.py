"""What the source asks of the export, from its own thread."""

from __future__ import annotations

from typing import Protocol

from farwatch.events import Key, Place


class Nodes(Protocol):
    """The nodes that the client knows, and those that it may come to know."""

    def look(self, place: Place) -> Key | None:
        """The key of what is at a name, which is pinned; None if there is nothing."""

    def open_node(self, node: Key) -> int:
        """An O_PATH descriptor of a node, the caller's.  OSError(ESTALE) if it is not known."""

    def let_die(self, node: Key) -> bool:
        """Let go of a node that has no name left; whether that was so."""
