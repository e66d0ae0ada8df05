"""Descriptors of the directories that steps are about."""

from __future__ import annotations

import os

from farwatch.abi.control import HIDDEN_ID, ROOT_ID
from farwatch.agent.marks import Marks
from farwatch.agent.paths import DIRECTORY, LOST


class Directories:
    """Of one mount, for one thread, by the server's ids.

    ``root`` is the root directory in the clone, and the caller's; ``hidden`` the name in it of
    the directory that nobody sees, which is opened under the thread's mark.
    """

    def __init__(self, root: int, hidden: bytes, marks: Marks) -> None:
        """Raises OSError."""
        self._root = root
        self._marks = marks
        self._cached_id = 0
        self._cached_fd = -1
        self.hidden = os.open(hidden, DIRECTORY, dir_fd=root)

    def of(self, node: int) -> int:
        """A descriptor of a directory, good until the next call.  Raises OSError.

        It is not kept longer, because it would keep a removed directory alive, and so hold
        back its DELETE_SELF.
        """
        if node == ROOT_ID:
            return self._root
        if node == HIDDEN_ID:
            return self.hidden
        if node != self._cached_id:
            self.drop()
            self._cached_fd = self.open(node)
            self._cached_id = node
        return self._cached_fd

    def open(self, node: int) -> int:
        """A descriptor of any but the root and the hidden one, the caller's.  Raises OSError."""
        try:
            return self._marks.open_directory(node)
        except OSError as error:
            if error.errno not in LOST:
                raise
        # The kernel has lost its place in the tree, and there is none on the server any more,
        # or it is not where that was told to be.  It has a place here.
        return os.open(b"n%d" % node, DIRECTORY, dir_fd=self.hidden)

    def drop(self) -> None:
        """Lets go of the last one."""
        if self._cached_fd >= 0:
            os.close(self._cached_fd)
        self._cached_fd = -1
        self._cached_id = 0

    def close(self) -> None:
        """Lets go of everything.  Closing twice does nothing."""
        self.drop()
        if self.hidden >= 0:
            os.close(self.hidden)
            self.hidden = -1
