"""Facts and streams for tests of the core alone."""

from __future__ import annotations

from farwatch.abi.fsnotify import Ended, Event, Reason
from farwatch.client.fsnotify import Group, NodeId
from farwatch.events import Mask

DIRECTORY = NodeId(1, 0)
OTHER = NodeId(2, 5)
FILE = NodeId(10, 7)
ALL = 0xFFF


def of_node(mask: int, node: NodeId = FILE, *, sequence: int = 0) -> Event:
    """Something of a node alone."""
    return Event(mask, node=node.node, generation=node.generation, sequence=sequence)


def of_name(
    mask: int,
    name: bytes = b"a",
    node: NodeId | None = FILE,
    *,
    parent: NodeId = DIRECTORY,
    sequence: int = 0,
) -> Event:
    """Something of a name in a directory."""
    return Event(
        mask,
        node=node.node if node else 0,
        generation=node.generation if node else 0,
        parent=parent.node,
        parent_generation=parent.generation,
        name=name,
        sequence=sequence,
    )


def renamed(name: bytes, new_name: bytes, *, new_parent: NodeId = DIRECTORY) -> Event:
    """A rename of FILE out of DIRECTORY."""
    return of_name(Mask.RENAME, name)._replace(
        new_parent=new_parent.node,
        new_parent_generation=new_parent.generation,
        new_name=new_name,
    )


def ended(reason: Reason, node: NodeId = FILE, *, sequence: int = 0) -> Ended:
    """The end of a server's mark."""
    return Ended(node.node, node.generation, reason, sequence)


def heard(group: Group) -> list[tuple[int, int, bytes]]:
    """All that waits: watch, mask and name."""
    return [(event.wd, event.mask, event.name) for event in group.read()]
