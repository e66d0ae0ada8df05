"""The link counts that a client is told: only replays take links away.

    told        what the disk says, plus the removals that are still to be replayed (``unlinks``),
                and never 0 before the last of them
    one less    the client's kernel counts down itself when it removes a name, and when it reads
                that the agent has
    undigested  between the answer to the agent and its next request: the kernel may not have
                counted yet

An inode whose count reached 0 early would be told DELETE_SELF with no DELETE, one that never
reaches it would never be told.  Called with the view's lock held.
"""

from __future__ import annotations

from collections.abc import Callable

from farwatch.export.nodes import Node


class Links:
    """The link counts of one client's nodes."""

    def __init__(self) -> None:
        self.is_behind: Callable[[], bool] = lambda: True
        """Whether something that has happened may not have been read from the source."""
        self.undigested: dict[int, Node] = {}
        """For each thread of the agent what its last answer took a link of, if not the last:
        the client's kernel may not have counted it yet."""

    def told(self, node: Node, on_disk: int) -> int:
        """The link count to tell of a node that has ``on_disk`` links.

        Not less than was told before while a removal is on its way or, for all that is
        known, has not been read yet.  If there is none, nothing will set that right: the
        node is ``unsure`` then, and the answer good for this once.
        """
        node.unsure = False
        if node.is_dir or node.dead:
            return on_disk
        counted = max(on_disk + node.unlinks, 1)
        if counted >= node.nlink or not (self._is_losing(node) or self.is_behind()):
            return counted
        node.unsure = True
        return node.nlink

    def of_gone(self, node: Node) -> int:
        """The link count to tell of a node whose inode is gone.

        Of its links none is taken before its removal has been read.
        """
        return 0 if node.dead else max(node.unlinks, node.nlink, 1)

    def _is_losing(self, node: Node) -> bool:
        return node.unlinks > 0 or node in self.undigested.values()

    def unlinked(self, node: Node) -> None:
        """The client's kernel has counted one link less."""
        node.nlink = 0 if node.is_dir else max(node.nlink - 1, 0)
        if node.nlink == 0:
            node.dead = True

    def unlinked_by(self, thread: int, node: Node) -> None:
        """The agent's thread is answered that a link is gone.

        The kernel counts it when it has read the answer.  Whoever asks in between is told
        the old count, for this once: one less would be counted down again, to nothing.
        Of a last link nothing less can be told.
        """
        if node.is_dir or node.nlink <= 1:
            self.unlinked(node)
        else:
            self.undigested[thread] = node

    def digested(self, thread: int) -> None:
        """The agent's thread asks something else: its kernel has read the last answer."""
        node = self.undigested.pop(thread, None)
        if node is not None:
            self.unlinked(node)

    def agent_left(self) -> None:
        """Whatever it was answered has been read, or never will be."""
        for thread in list(self.undigested):
            self.digested(thread)
