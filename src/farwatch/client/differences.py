"""What was seen of names and inodes, and the events that a difference is worth."""

from __future__ import annotations

from typing import NamedTuple

from farwatch.abi.fsnotify import Event, Source
from farwatch.client.answers import Attributes
from farwatch.client.fsnotify import Fsnotify, NodeId
from farwatch.events import Mask

MOST_NAMES = 1 << 16
"""Names of one directory that are remembered."""
NOWHERE = NodeId(0, 0)


class Seen(NamedTuple):
    """What a name held."""

    ino: int
    is_dir: bool
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def identity(self) -> tuple[int, bool, int, int]:
        """By which it is known at another name.

        Its number alone will not do: file systems give it to the next file that is made.
        """
        return self.ino, self.is_dir, self.size, self.mtime_ns


Names = dict[bytes, Seen | None]
"""What a directory's names held; None: something, and an event was heard of it since."""


def seen_of(attributes: Attributes) -> Seen:
    """What the attributes of an inode are worth remembering of."""
    return Seen(
        attributes.ino,
        attributes.is_dir,
        attributes.size,
        attributes.mtime_ns,
        attributes.ctime_ns,
    )


Identity = tuple[int, bool, int, int]


class Named(NamedTuple):
    """A name, and what it held, or holds."""

    directory: NodeId
    name: bytes
    seen: Seen

    def fact(self, mask: int) -> Event:
        """Something that happened to it."""
        return fact_of(mask | (Mask.ISDIR if self.seen.is_dir else 0), self.directory, self.name)


def compare(
    core: Fsnotify,
    directory: NodeId,
    before: Names,
    now: Names,
    gone: dict[Identity, Named],
    come: list[Named],
) -> None:
    """Tells what of a directory's names has changed; ``gone`` and ``come`` are told later."""
    for name, was in before.items():
        holds = now.get(name)
        if name in now and (was is None or holds is None or was.ino == holds.ino):
            if holds is not None:
                tell_changed(core, directory, name, NOWHERE, was, holds)
        elif was is None:
            core.fsnotify(fact_of(Mask.DELETE, directory, name))
        elif was.identity in gone:
            core.fsnotify(Named(directory, name, was).fact(Mask.DELETE))
        else:
            gone[was.identity] = Named(directory, name, was)
    for name, holds in now.items():
        was = before.get(name)
        if holds is not None and (name not in before or (was is not None and was.ino != holds.ino)):
            come.append(Named(directory, name, holds))


def tell_names(core: Fsnotify, gone: dict[Identity, Named], come: list[Named]) -> None:
    """Tells the names that went and came; what is the same at another name was renamed."""
    pairs = [(gone.pop(new.seen.identity, None), new) for new in come]
    for old in gone.values():
        core.fsnotify(old.fact(Mask.DELETE))
    for before, new in pairs:
        if before is not None:
            core.fsnotify(
                before.fact(Mask.RENAME)._replace(
                    new_parent=new.directory.node,
                    new_parent_generation=new.directory.generation,
                    new_name=new.name,
                )
            )
    for before, new in pairs:
        if before is None:
            core.fsnotify(new.fact(Mask.CREATE))


def tell_changed(
    core: Fsnotify, directory: NodeId, name: bytes, node: NodeId, was: Seen | None, now: Seen
) -> None:
    """Tells that an inode is not as it was, by a name or (NOWHERE) by itself."""
    if now.is_dir:
        # What is in it has events of its own; its own times change with those.
        return
    if was is None or (was.size, was.mtime_ns) != (now.size, now.mtime_ns):
        core.fsnotify(fact_of(Mask.MODIFY, directory, name, node))
    elif was.ctime_ns != now.ctime_ns:
        core.fsnotify(fact_of(Mask.ATTRIB, directory, name, node))


def fact_of(mask: int, directory: NodeId, name: bytes, node: NodeId = NOWHERE) -> Event:
    """An event that nobody has told."""
    return Event(
        mask,
        node=node.node,
        generation=node.generation,
        parent=directory.node,
        parent_generation=directory.generation,
        name=name,
        source=Source.UNKNOWN,
    )
