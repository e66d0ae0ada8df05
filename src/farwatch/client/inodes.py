"""The inodes that the client knows at this moment, and the names in use by which.

A server counts how often it has told a node, and keeps it until the client has forgotten
as many (FORGET).  Here an inode lives while somebody holds it: a path being walked, an open
file, a watch.

    LOOKUP's answer ── told ──► held ── hold/release ──► held by nobody ──► FORGET

A ``Dentry`` is a name by which an inode was reached, as the kernel's is: it goes along when
the name is renamed, so what an open file hears and says is under its name of now; of one
that was removed it stays the last name.
"""

from __future__ import annotations

from collections.abc import Callable
from stat import S_IFDIR, S_IFMT, S_ISDIR, S_ISLNK

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.client.answers import Attributes, Entry
from farwatch.client.errors import ProtocolError
from farwatch.client.fsnotify import NodeId

Tell = Callable[[int, int, bytes], None]
"""Sends a request that has no reply: opcode, node, body."""
_MOST_AT_ONCE = 4096
"""Nodes in one BATCH_FORGET."""


IN_LIMBO = -1
"""Of a mark: the server keeps it until nothing more will come for it."""


class Inode:
    """A node of the server's.

    ``holds``     who needs it
    ``lookups``   how often the server has told it
    ``opens``     open files and directories
    ``mode``      type and permissions, and
    ``nlink``     links, as last heard of; the client's own removals are counted at once
    ``is_gone``   no link is left, and nobody here has the name open that went last
    ``is_ours``   this client has removed the last link
    ``mark``      the mask that the server's mark has, or IN_LIMBO
    ``asking``    masks of watches that are being placed
    ``leaving``   requests of this client's under way that may be the end of it
    ``has_ended`` the server said meanwhile that it was
    """

    __slots__ = (
        "asking",
        "has_ended",
        "holds",
        "id",
        "is_gone",
        "is_ours",
        "leaving",
        "lookups",
        "mark",
        "mode",
        "nlink",
        "opens",
    )

    def __init__(self, identity: NodeId, kind: int) -> None:
        self.id = identity
        self.mode = kind
        self.nlink = 1
        self.holds = 0
        self.lookups = 0
        self.opens = 0
        self.is_gone = False
        self.is_ours = False
        self.mark = 0
        self.asking: list[int] = []
        self.leaving = 0
        self.has_ended = False

    @property
    def node(self) -> int:
        """Its number at the server."""
        return self.id.node

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return S_ISLNK(self.mode)

    def learn(self, attributes: Attributes) -> None:
        """What the server says of it.  Raises ProtocolError if it is of another type."""
        if S_IFMT(attributes.mode) != S_IFMT(self.mode):
            raise ProtocolError(f"node {self.node} has become a file of another type")
        self.mode = attributes.mode
        self.nlink = attributes.nlink


class Dentry:
    """A name, or the root, which has none.  Holds both inodes while it is held itself.

    ``opens``  open files by this name
    """

    __slots__ = ("holds", "inode", "is_unlinked", "name", "opens", "parent")

    def __init__(self, parent: Inode | None, name: bytes, inode: Inode) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.holds = 0
        self.opens = 0
        self.is_unlinked = False


class Inodes:
    """All inodes and dentries that are held."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._inodes: dict[NodeId, Inode] = {}
        self._names: dict[tuple[NodeId, bytes], Dentry] = {}
        self._forgotten: dict[int, int] = {}
        root = Inode(NodeId(fuse.ROOT_ID, 0), S_IFDIR)
        root.holds = 1
        self._inodes[root.id] = root
        self.root = Dentry(None, b"", root)
        self.root.holds = 1

    def __len__(self) -> int:
        """How many inodes are known, the root among them."""
        return len(self._inodes)

    def get(self, identity: NodeId) -> Inode | None:
        """The inode with this number, if it is known."""
        return self._inodes.get(identity)

    # Inodes ------------------------------------------------------------------------

    def told(self, entry: Entry) -> Inode:
        """The server has told a node: its inode, held once for the caller.

        Raises ProtocolError for one that has become of another type.
        """
        if entry.node == fuse.ROOT_ID:
            raise ProtocolError("a name in the export leads to its root")
        kind = S_IFMT(entry.attributes.mode)
        identity = NodeId(entry.node, entry.generation)
        inode = self._inodes.get(identity)
        if inode is None:
            inode = self._inodes[identity] = Inode(identity, kind)
        inode.learn(entry.attributes)
        inode.lookups += 1
        inode.holds += 1
        return inode

    def untold(self, entry: Entry) -> None:
        """The server has told a node that nobody here needs."""
        self._forgotten[entry.node] = self._forgotten.get(entry.node, 0) + 1

    def hold(self, inode: Inode) -> Inode:
        """Somebody needs it."""
        inode.holds += 1
        return inode

    def release(self, inode: Inode) -> None:
        """Somebody needs it no longer."""
        inode.holds -= 1
        if inode.holds == 0:
            del self._inodes[inode.id]
            if inode.lookups:
                self._forgotten[inode.node] = self._forgotten.get(inode.node, 0) + inode.lookups

    def flush(self) -> None:
        """Tells the server what is not needed any longer."""
        forgotten = list(self._forgotten.items())
        self._forgotten.clear()
        if len(forgotten) == 1:
            self._tell(Opcode.FORGET, forgotten[0][0], fuse.FORGET_IN.pack(forgotten[0][1]))
            return
        for start in range(0, len(forgotten), _MOST_AT_ONCE):
            batch = forgotten[start : start + _MOST_AT_ONCE]
            body = fuse.BATCH_FORGET_IN.pack(len(batch), 0)
            body += b"".join(fuse.FORGET_ONE.pack(*one) for one in batch)
            self._tell(Opcode.BATCH_FORGET, 0, body)

    # Names -------------------------------------------------------------------------

    def named(self, parent: Inode, name: bytes, inode: Inode) -> Dentry:
        """The dentry of a name that was found to hold an inode, held once for the caller.

        Takes over the caller's hold of ``inode``.
        """
        at = (parent.id, name)
        dentry = self._names.get(at)
        if dentry is not None and dentry.inode is inode:
            self.release(inode)
        else:
            dentry = self._names[at] = Dentry(self.hold(parent), name, inode)
        dentry.holds += 1
        return dentry

    def hold_name(self, dentry: Dentry) -> Dentry:
        """Somebody needs a dentry."""
        dentry.holds += 1
        return dentry

    def release_name(self, dentry: Dentry) -> None:
        """Somebody needs it no longer."""
        dentry.holds -= 1
        if dentry.holds == 0:
            self._unhash(dentry)
            self.release(dentry.inode)
            if dentry.parent is not None:
                self.release(dentry.parent)

    def holds_name(self, parent: NodeId, name: bytes, node: NodeId) -> bool:
        """Whether a name is in use, and as that of this node (0: of whatever it is)."""
        dentry = self._names.get((parent, name))
        return dentry is not None and (not node.node or dentry.inode.id == node)

    def unlinked(self, parent: NodeId, name: bytes) -> None:
        """A name was removed; who has it in use keeps it as the last one."""
        dentry = self._names.pop((parent, name), None)
        if dentry is not None:
            dentry.is_unlinked = True

    def moved(self, old: NodeId, old_name: bytes, new: Inode, new_name: bytes) -> None:
        """A name was renamed, perhaps over another."""
        self.unlinked(new.id, new_name)
        dentry = self._names.pop((old, old_name), None)
        if dentry is not None:
            self._place(dentry, new, new_name)

    def exchanged(self, old: Inode, old_name: bytes, new: Inode, new_name: bytes) -> None:
        """Two names have changed places."""
        first = self._names.pop((old.id, old_name), None)
        second = self._names.pop((new.id, new_name), None)
        if first is not None:
            self._place(first, new, new_name)
        if second is not None:
            self._place(second, old, old_name)

    def _place(self, dentry: Dentry, parent: Inode, name: bytes) -> None:
        before, dentry.parent = dentry.parent, self.hold(parent)
        if before is not None:
            self.release(before)
        dentry.name = name
        self._names[parent.id, name] = dentry

    def _unhash(self, dentry: Dentry) -> None:
        if dentry.parent is not None:
            at = (dentry.parent.id, dentry.name)
            if self._names.get(at) is dentry:
                del self._names[at]
