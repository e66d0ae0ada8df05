"""What the client's kernel is to ask about again, though it believes that it knows.

Mostly a replay sets right what is cached.  Doubtful is what no replay will, or not in time:
one that the client's kernel would not do, one that waits for an agent that does not come,
what may have changed without any event.

    doubted --take--> notifications, which a thread sends that holds no lock (invalidating.py)

What a request changes besides what its reply tells is outdated.  The client's kernel knows that
of most of it, and asks again; but of an answer that was given before, and is read afterwards by
whoever has asked, it does not see that it is older: it would be believed for long.  A
notification it counts as news, and drops what was asked for before.  So whoever sends the reply
sends those first:

    outdated --take_outdated--> notifications, which are sent before the reply

They wait for nothing: they are of attributes alone, and of what the caller holds.

A name is expired, never invalidated: that would take away what programs have mounted below
it.  Called with the view's lock held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from farwatch.abi import fuse
from farwatch.abi.fuse import Notify
from farwatch.export.nodes import Node
from farwatch.session.reply import Reply

Name = tuple[int, bytes]
"""Node id of a directory, and a name in it."""

_ATTRIBUTES, _EVERYTHING = (-1, 0), (0, 0)
"""The range of a node's pages that goes with its attributes: none, all."""
_MOST_TAKEN = 512
"""Nodes whose names are taken at a time: the lock is held meanwhile."""


class Doubts:
    """Names and nodes that are to be asked for again, each once however often it is doubted."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` is called when there is something to be taken."""
        self._wake = wake
        self._names: dict[Name, None] = {}
        self._nodes: dict[int, tuple[int, int]] = {}
        self._below: deque[Node] = deque()
        self._outdated: list[Reply] = []

    def name(self, directory: Node, name: bytes) -> None:
        """What a name holds is doubtful."""
        if directory.key and name:
            self._names[directory.id, name] = None
            self._wake()

    def names(self, names: Iterable[Name]) -> None:
        """The same, of many."""
        self._names.update(dict.fromkeys(names))
        self._wake()

    def node(self, node: Node) -> None:
        """A node's attributes are doubtful, and its pages if the kernel may have any."""
        if node.key:
            self._doubt(node)
            self._wake()

    def _doubt(self, node: Node) -> None:
        node.believed = False
        self._nodes[node.id] = _EVERYTHING if node.cached else _ATTRIBUTES

    def outdated(self, node: Node) -> None:
        """A node's attributes are others by the request that is being answered."""
        if node.key:
            node.believed = False
            self._outdated.append(invalidation(node.id, *_ATTRIBUTES))

    def take_outdated(self) -> Sequence[Reply]:
        """The notifications for it."""
        if not self._outdated:
            return ()
        taken, self._outdated = self._outdated, []
        return taken

    def everything(self, nodes: Iterable[Node]) -> None:
        """These nodes, and all the names that were told in them."""
        self._below.extend(nodes)
        self._wake()

    def take(self) -> list[Reply]:
        """The notifications for some of it; an empty list if there is nothing."""
        for _ in range(min(len(self._below), _MOST_TAKEN)):
            node = self._below.popleft()
            self._doubt(node)
            for name in node.children or ():
                self._names[node.id, name] = None
        names, self._names = self._names, {}
        nodes, self._nodes = self._nodes, {}
        return [
            *(expiry(directory, name) for directory, name in names),
            *(invalidation(node, *pages) for node, pages in nodes.items()),
        ]


def expiry(directory: int, name: bytes) -> Reply:
    """A FUSE_NOTIFY_INVAL_ENTRY after which the name is asked for when it is used next."""
    out = fuse.NOTIFY_INVAL_ENTRY_OUT.pack(directory, len(name), fuse.EXPIRE_ONLY)
    return _notification(Notify.INVAL_ENTRY, out, name + b"\0")


def invalidation(node: int, offset: int, length: int) -> Reply:
    """A FUSE_NOTIFY_INVAL_INODE of the attributes, and of these pages if the offset is >= 0."""
    return _notification(Notify.INVAL_INODE, fuse.NOTIFY_INVAL_INODE_OUT.pack(node, offset, length))


def _notification(code: Notify, *payload: bytes) -> Reply:
    size = fuse.OUT_HEADER.size + sum(map(len, payload))
    return (fuse.OUT_HEADER.pack(size, code, 0), *payload)
