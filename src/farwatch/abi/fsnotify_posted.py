"""FSNOTIFY as it was posted to the kernel's lists: the dialects of the three RFC generations.

``farwatch.abi.fsnotify`` says when each is spoken, and has the messages.  The numbers that
these took have been given to others since: 51 is TMPFILE, bit 30 INIT_EXT, bit 34
CREATE_SUPP_GROUP, 8 INC_EPOCH.

They tell of one inode at a time, and not whose doing it was.  The generation is that inode's.

POSTED and AGGREGATED carry a name as inotify(7) hands it out: with its NUL, padded with NULs
to a multiple of 16, ``namelen`` counting all of these.  PARENTED carries it bare.  Its three
forms of event:

    inode      parent     notify_parent  name
    directory  0          0              entry    CREATE, DELETE, MOVED_FROM, MOVED_TO, and
                                                  what happened to a child without a node
    child      directory  1              entry    what happened to a child; ON_CHILD is set
    node       0          0              none     what happened to the node itself
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, error

from farwatch.abi.fsnotify import Dialect, Event, Malformed, Marking, is_entry
from farwatch.events import Mask

POSTED_OPCODE = 51
POSTED_NOTIFY = 8
POSTED_INIT = 1 << 30
POSTED_MINOR = 36
PARENTED_INIT = 1 << 34
PARENTED_MINOR = 38

POSTED_IN = Struct("<QQI4x")
"""mask, group, action (``Action``)."""
AGGREGATED_IN = Struct("<II")
"""mask, generation."""
PARENTED_IN = Struct("<Q")
"""mask."""
POSTED_OUT = Struct("<QQII")
"""inode, mask, namelen, cookie; behind it the name, padded."""
AGGREGATED_OUT = Struct("<QQIII4x")
"""inode, mask, namelen, cookie, generation; behind it the name, padded."""
PARENTED_OUT = Struct("<QQQIIB7x")
"""inode, parent, mask, namelen, generation, notify_parent; behind it the name, bare."""
PADDED = 16
"""``sizeof(struct inotify_event)``, to a multiple of which inotify(7) pads a name."""
ON_CHILD = 0x0800_0000
"""FAN_EVENT_ON_CHILD of fanotify(7), which PARENTED sets with ``notify_parent``."""

_ENTRIES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO


class Action(IntEnum):
    """What a POSTED request does with a mark."""

    REMOVE = 0
    ADD = 1


def decode_posted_marking(dialect: Dialect, data: bytes | memoryview) -> Marking:
    """What an FSNOTIFY request of a posted dialect asks for.  Raises Malformed."""
    try:
        if dialect is Dialect.POSTED:
            mask, group, action = POSTED_IN.unpack(data)
            return Marking(mask if Action(action) is Action.ADD else 0, None, group=group)
        if dialect is Dialect.AGGREGATED:
            mask, generation = AGGREGATED_IN.unpack(data)
            return Marking(mask, generation)
        (mask,) = PARENTED_IN.unpack(data)
        return Marking(mask, None)
    except (error, ValueError) as reason:
        raise Malformed(f"FSNOTIFY ({dialect}): {reason}") from None


def encode_posted(dialect: Dialect, event: Event, *, to_parent: bool) -> bytes:
    """An event in a posted dialect.

    ``to_parent`` has it told to the directory, with the name, else to the node itself.
    """
    if dialect is Dialect.PARENTED:
        return _encode_parented(event, to_parent=to_parent)
    inode, generation, name = event.node, event.generation, b""
    if to_parent:
        inode, generation, name = event.parent, event.parent_generation, _padded(event.name)
    if dialect is Dialect.POSTED:
        return POSTED_OUT.pack(inode, event.mask, len(name), event.cookie) + name
    return AGGREGATED_OUT.pack(inode, event.mask, len(name), event.cookie, generation) + name


def _encode_parented(event: Event, *, to_parent: bool) -> bytes:
    inode, parent, generation = event.node, 0, event.generation
    mask, name = event.mask, b""
    if to_parent:
        name = event.name
        if event.mask & _ENTRIES or not event.node:
            inode, generation = event.parent, event.parent_generation
        else:
            parent, mask = event.parent, event.mask | ON_CHILD
    return PARENTED_OUT.pack(inode, parent, mask, len(name), generation, bool(parent)) + name


def decode_posted(dialect: Dialect, data: bytes | memoryview) -> tuple[Event, bool]:
    """The reverse of ``encode_posted``.  Raises Malformed."""
    if dialect is Dialect.PARENTED:
        return _decode_parented(data)
    layout = POSTED_OUT if dialect is Dialect.POSTED else AGGREGATED_OUT
    try:
        inode, mask, size, cookie, *rest = layout.unpack_from(data)
    except error as reason:
        raise Malformed(f"FSNOTIFY ({dialect}): {reason}") from None
    generation = rest[0] if rest else 0
    padded = _behind(dialect, layout, data, size)
    if not padded:
        return Event(mask, inode, cookie=cookie, generation=generation), False
    name = padded.rstrip(b"\0")
    if len(name) == len(padded) or not is_entry(name):
        raise Malformed(f"FSNOTIFY ({dialect}): not a name")
    return Event(mask, 0, inode, name, cookie=cookie, parent_generation=generation), True


def _decode_parented(data: bytes | memoryview) -> tuple[Event, bool]:
    dialect = Dialect.PARENTED
    try:
        inode, parent, mask, size, generation, to_parent = PARENTED_OUT.unpack_from(data)
    except error as reason:
        raise Malformed(f"FSNOTIFY ({dialect}): {reason}") from None
    name = _behind(dialect, PARENTED_OUT, data, size)
    if name and not is_entry(name):
        raise Malformed(f"FSNOTIFY ({dialect}): not a name")
    if to_parent:
        if to_parent != 1 or not parent or not name:
            raise Malformed(f"FSNOTIFY ({dialect}): an event on a child without its place")
        return Event(mask & ~ON_CHILD, inode, parent, name, generation=generation), True
    if name:
        return Event(mask, 0, inode, name, parent_generation=generation), True
    return Event(mask, inode, generation=generation), False


def _behind(dialect: Dialect, layout: Struct, data: bytes | memoryview, size: int) -> bytes:
    rest = bytes(data[layout.size :])
    if len(rest) != size:
        raise Malformed(f"FSNOTIFY ({dialect}): a name of {size} in {len(rest)} bytes")
    return rest


def _padded(name: bytes) -> bytes:
    return name.ljust((len(name) // PADDED + 1) * PADDED, b"\0")
