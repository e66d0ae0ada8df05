"""What one client can be watching, and what it is known to watch.

Two answers, of different worth:

    can be   An inode mark pins its inode, so a node that the client's kernel has
             forgotten, and whose directory it has forgotten, is watched by nobody.
             This alone decides whether a change is dropped; mount and superblock
             marks pin nothing, and while there is one nothing is dropped.
    is       What a scan of /proc/*/fdinfo found.  It misses marks (descriptors in
             flight, dnotify, other pid namespaces), so it only decides about the kinds
             that reading makes, which are too many to be told on the off chance.
"""

from __future__ import annotations

from farwatch.abi.control import Watched, WatchFlag
from farwatch.events import READING, Key, Mask, Record
from farwatch.export.nodes import Node, NodeTable


class Interest:
    """The interest of one client; ``concerns`` may be called without a lock."""

    def __init__(self, nodes: NodeTable) -> None:
        self._nodes = nodes
        self._watches: dict[int, int] = {}
        self._scan: dict[int, int] = {}
        self.everything = False
        """Whether some mark sees nodes that the client's kernel has forgotten."""
        self.by_path = False
        """Whether somebody wants descriptors: a touch does not reach such."""
        self.scans = 0
        """Scans that are complete, since the start."""
        self.reading = 0
        """The kinds (Mask bits) that the source is to be asked for: somebody watches them."""
        self.scan_seconds = 0.0
        """How long the last scan took the agent, in seconds."""

    def learn(self, flags: int, microseconds: int, watches: list[Watched]) -> bool:
        """Takes in one message of a scan; True if the scan is complete with it."""
        if flags & WatchFlag.FIRST:
            self._scan = {}
        for watched in watches:
            self._scan[watched.node] = self._scan.get(watched.node, 0) | watched.mask
        if not flags & WatchFlag.LAST:
            return False
        self._watches = self._scan
        self._scan = {}
        self.everything = bool(flags & WatchFlag.EVERYTHING)
        self.by_path = bool(flags & WatchFlag.BY_PATH)
        self.reading = self._reading()
        self.scans += 1
        self.scan_seconds = microseconds / 1e6
        return True

    def _reading(self) -> int:
        union = 0
        for mask in self._watches.values():
            union |= mask
        if self.by_path:
            union |= int(Mask.OPEN)
        if union & Mask.OPEN:
            # What is opened in the client for an OPEN is closed there by the close.
            union |= int(Mask.CLOSE_NOWRITE)
        return union & int(READING)

    def forget(self) -> None:
        """The agent is gone: nothing is known of who watches."""
        self._watches = {}
        self.everything = self.by_path = False
        self.reading = 0

    def watches(self, kind: int, *nodes: Node | None) -> bool:
        """Whether one of these nodes is known to be watched for a kind."""
        found = self._watches
        if self.everything and found.get(0, 0) & kind:
            return True
        return any(node is not None and found.get(node.id, 0) & kind for node in nodes)

    def watched(self) -> dict[Key, bool]:
        """The nodes that are known to be watched, and which of them are directories."""
        by_id = self._nodes.by_id
        nodes = (by_id.get(node_id) for node_id in self._watches)
        return {node.key: node.is_dir for node in nodes if node is not None}

    def concerns(self, record: Record) -> bool:
        """Whether a record can matter to this client; cheap, and never falsely no."""
        known = self._nodes.by_key
        place = record.place
        if place is not None and place.directory in known:
            return True
        if record.node in known:
            return True
        new_place = record.new_place
        if new_place is not None and new_place.directory in known:
            return True
        return self.everything

    def live(self, key: Key | None) -> Node | None:
        """The node, if the client's kernel may hold it."""
        node = self._nodes.by_key.get(key) if key is not None else None
        if node is not None and (node.lookups or node.pins):
            return node
        return None
