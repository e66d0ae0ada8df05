"""Directories that the client has forgotten, and in which it knows something still.

A watch keeps an inode and not its name: under memory pressure the client's kernel forgets the
names, and then the directories.  What is done to a file is told by the mark of the directory
that it is in, where marks are by node; so that directory is held for as long as the file is
known.  It is for nothing else: what else happens there is not told to the client.

A file that has moved elsewhere meanwhile holds its old home, too, which nobody sees but whoever
watches that directory on SRC and removes it: the end of it is told when the file is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection

from farwatch.events import Key


class Homes:
    """Who lives where, of what is known.  Not locked."""

    def __init__(self) -> None:
        self._inside: dict[Key, set[Key]] = {}
        self._homes: dict[Key, set[Key]] = {}

    def forget(self, node: Key, inside: Collection[Key]) -> list[Key]:
        """The client does not know the node any more; what need not be held from now on.

        ``inside`` is known, and in this directory.  A directory that is given back may be
        known again by now.
        """
        if inside:
            self._inside.setdefault(node, set()).update(inside)
            for each in inside:
                self._homes.setdefault(each, set()).add(node)
        freed = [] if node in self._inside else [node]
        for home in self._homes.pop(node, ()):
            left = self._inside[home]
            left.discard(node)
            if not left:
                del self._inside[home]
                freed.append(home)
        return freed
