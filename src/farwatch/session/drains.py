"""What the client has done and seen itself, and whether what the source says came before that.

The source is read until it is empty, and what was read is planned: a drain.

    begin ── read ── settled ── planned ── end

    changed   a name that the client has changed since a drain began.  The change's own record
              may not have been read yet: what has been read of the name came before it.
    seen      a name whose holder the client has just been told anew, perhaps after what is being
              read: it says nothing of what the name held before.

Called with the view's lock held, apart from ``is_early``.
"""

from __future__ import annotations

from collections.abc import Iterator

from farwatch.export.nodes import Node
from farwatch.session.doubts import Name

_MOST_SEEN = 1 << 16


class Drains:
    """The drains of one client's source, in order."""

    def __init__(self) -> None:
        self.begun = 0
        """Number of the drain that is under way, or of the last."""
        self.ended = 0
        """Number of the last one that is over."""
        self._changed: dict[Name, int] = {}
        self._seen: dict[Name, int] = {}

    def begin(self) -> None:
        """The source is about to be read until it is empty."""
        self.begun += 1

    def end(self) -> None:
        """What was read is planned: changes made before that drain are history."""
        self.ended = begun = self.begun
        if self._changed:
            self._changed = {at: made for at, made in self._changed.items() if made >= begun}
        if self._seen:
            self._seen = {at: seen for at, seen in self._seen.items() if seen >= begun}

    def change(self, at: Name) -> None:
        """The client changes a name."""
        self._changed[at] = self.begun

    def see(self, at: Name) -> None:
        """The client is told what a name holds that was not told so before."""
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[at] = self.begun

    def changed_since(self, directory: Node, name: bytes) -> bool:
        """Whether the client has changed a name since the drain began."""
        return self._changed.get((directory.id, name), -1) >= self.begun

    def changed(self) -> Iterator[Name]:
        """The names that the client has changed since the drain began."""
        return (at for at, made in self._changed.items() if made >= self.begun)

    def is_early(self, directory: Node, name: bytes) -> bool:
        """Whether the client has seen what a name holds, perhaps after what is being read."""
        return self._seen.get((directory.id, name), -2) >= self.begun - 1
