"""The nodes that one client kernel knows, and what it has been told of them.

A node id is made when the client is first told of a node, and lives until the
client has forgotten it (FORGET) and nothing that is still to be replayed needs it
(``pins``).  Ids are never used twice, so all nodes but the root have the one
generation of the table.

The tree that is kept here is the tree *as told*: names move when the client has
been told so, by an answer or by a replay that is on its way, not when the disk
changes.  It is what events are planned against; names that the client was never
told are not in it.

Not locked: whoever shares a table between threads holds a lock of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from stat import S_IFDIR, S_IFMT, S_ISDIR
from typing import Protocol

from farwatch.events import Key

ROOT_ID = 1
_MOST_LEFT = 4096
"""Names that nodes have left that are remembered: what somebody has open under such a name
is still reported by it, and that does not bring the name back."""
FIRST_ID = 16
"""Ids below are reserved (1 is the root, 2 the hidden directory)."""


class Node:
    """One inode, as one client knows it.

    ``lookups``  how often the client was given the node and has not forgotten it
    ``pins``     replays on their way that need it
    ``nlink``    the link count that the client last heard of, or counted itself
    ``unsure``   that count was more than is known to be there: it is not to be believed
    ``unlinks``  removals of names planned and not yet replayed, less additions
    ``dead``     the client has seen the last name go
    ``cached``   the client's kernel may hold pages of its content
    ``believed`` its attributes were told for longer than a moment
    ``children`` of a directory: what its names hold, as told
    ``names``    (directory, name) under which the node was told
    ``attr``     the last ``fuse_attr`` told, for when the inode is gone
    """

    __slots__ = (
        "attr",
        "believed",
        "cached",
        "children",
        "dead",
        "id",
        "key",
        "lookups",
        "mode",
        "names",
        "nlink",
        "pins",
        "unlinks",
        "unsure",
    )

    def __init__(self, node_id: int, key: Key, mode: int) -> None:
        self.id = node_id
        self.key = key
        self.mode = mode
        self.lookups = 0
        self.pins = 0
        self.nlink = 0
        self.unlinks = 0
        self.unsure = False
        self.dead = False
        self.cached = False
        self.believed = False
        self.children: dict[bytes, Node] | None = {} if S_ISDIR(mode) else None
        self.names: tuple[tuple[Node, bytes], ...] = ()
        self.attr = b""

    @property
    def is_dir(self) -> bool:
        """Whether the node is a directory."""
        return self.children is not None

    @property
    def kind(self) -> int:
        """The file type, one of the ``S_IF*`` bits of stat.h."""
        return S_IFMT(self.mode)

    def __repr__(self) -> str:
        return f"<Node {self.id} mode={self.mode:o} lookups={self.lookups} pins={self.pins}>"


class Holder(Protocol):
    """Who has to know which nodes a client knows, to hold something for each."""

    def keep(self, node: Key) -> None:
        """The client knows the node from now on."""

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """The client does not know the node any more.

        ``inside`` is what it still knows of what it was told to be in this directory: a watch
        keeps an inode and not its name, and memory pressure takes names away.
        """


class NodeTable:
    """Node ids and keys of one client, and the tree as it was told."""

    def __init__(
        self, root_key: Key, generation: int, base: int = 0, holder: Holder | None = None
    ) -> None:
        """Ids other than the reserved ones are above ``base``.

        ``holder`` is told of every node but the root.
        """
        self._holder = holder
        self.generation = generation
        self.root = Node(ROOT_ID, root_key, S_IFDIR)
        self.root.lookups = 1
        self._next_id = base + FIRST_ID
        self.by_id: dict[int, Node] = {ROOT_ID: self.root}
        self.by_key: dict[Key, Node] = {root_key: self.root}
        self._left: OrderedDict[tuple[int, bytes], Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self.by_id)

    def generation_of(self, node: Node) -> int:
        """The generation that goes with a node's id; the kernel gives the root 0."""
        return 0 if node.id == ROOT_ID else self.generation

    def obtain(self, key: Key, mode: int) -> Node:
        """The node with this key, made if there is none."""
        node = self.by_key.get(key)
        if node is None:
            node = Node(self._next_id, key, mode)
            self._next_id += 1
            self.by_id[node.id] = node
            self.by_key[key] = node
            if self._holder is not None:
                self._holder.keep(key)
        return node

    def close(self) -> None:
        """The client is gone, and knows nothing any more."""
        if self._holder is not None:
            for key in self.by_key:
                if key != self.root.key:
                    self._holder.let_go(key)

    def forget(self, node_id: int, lookups: int) -> None:
        """The client drops this many of its look-ups of a node (FORGET).

        A count that is too large is a client's mistake that harms only itself.
        """
        node = self.by_id.get(node_id)
        if node is None or node.id == ROOT_ID:
            return
        node.lookups = max(node.lookups - lookups, 0)
        self._release(node)

    def pin(self, node: Node) -> None:
        """Keeps a node although the client may forget it."""
        node.pins += 1

    def unpin(self, node: Node) -> None:
        """Takes a pin back."""
        node.pins -= 1
        self._release(node)

    def _release(self, node: Node) -> None:
        if node.lookups or node.pins or node.id == ROOT_ID:
            return
        if self.by_id.pop(node.id, None) is None:
            return
        del self.by_key[node.key]
        if self._holder is not None:
            self._holder.let_go(node.key, [child.key for child in (node.children or {}).values()])
        for directory, name in node.names:
            if directory.children is not None and directory.children.get(name) is node:
                del directory.children[name]
        node.names = ()
        if node.children:
            for name, child in node.children.items():
                child.names = tuple(at for at in child.names if at != (node, name))
            node.children.clear()

    def child(self, directory: Node, name: bytes) -> Node | None:
        """What the client was told that a name holds."""
        return directory.children.get(name) if directory.children is not None else None

    def tell(self, directory: Node, name: bytes, node: Node) -> None:
        """From now on the name holds the node.  A directory has one name only."""
        children = directory.children
        if children is None:
            raise NotADirectoryError(f"node {directory.id} is not a directory")
        before = children.get(name)
        if before is node:
            return
        if before is not None:
            self._unname(before, directory, name)
        if node.is_dir:
            for old_directory, old_name in node.names:
                if old_directory.children is not None:
                    old_directory.children.pop(old_name, None)
            node.names = ()
        self._left.pop((directory.id, name), None)
        children[name] = node
        node.names = (*node.names, (directory, name))

    def untell(self, directory: Node, name: bytes) -> Node | None:
        """From now on the name holds nothing; what it held is returned."""
        if directory.children is None:
            return None
        node = directory.children.pop(name, None)
        if node is not None:
            self._unname(node, directory, name)
            self.leave(directory, name, node)
        return node

    def leave(self, directory: Node, name: bytes, node: Node) -> None:
        """The node has gone from the name, whether the client was told the name or not."""
        self._left[directory.id, name] = node.key
        if len(self._left) > _MOST_LEFT:
            self._left.popitem(last=False)

    def has_left(self, directory: Node, name: bytes, node: Node) -> bool:
        """Whether the node was the last to go from the name, not too long ago."""
        return self._left.get((directory.id, name)) == node.key

    def move(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> Node | None:
        """A rename.  What the new name held is returned."""
        node = self.untell(old, old_name)
        replaced = self.untell(new, new_name)
        if node is not None:
            self.tell(new, new_name, node)
        return replaced

    def exchange(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """Two names swap what they hold."""
        first = self.untell(old, old_name)
        second = self.untell(new, new_name)
        if first is not None:
            self.tell(new, new_name, first)
        if second is not None:
            self.tell(old, old_name, second)

    @staticmethod
    def _unname(node: Node, directory: Node, name: bytes) -> None:
        node.names = tuple(at for at in node.names if not (at[0] is directory and at[1] == name))
