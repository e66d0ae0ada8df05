"""FSNOTIFY: watches placed on a server, and its events sent to the client.

A client that keeps watches itself (a kernel that has the feature, ``farwatch.client``)
asks for it in INIT, says with FSNOTIFY requests what it watches, and is sent events as
FUSE notifications.  Four dialects of it exist.  Three were posted to the kernel's lists
and never merged; the numbers that they took have since been given to others, so they are
spoken only with a client that cannot mean those.

    dialect      asked for in INIT                  request            event
    POSTED       bit 30 of a 16 byte INIT, minor 36 24 bytes, opcode   inode, mask, name,
    (Oct 2021)   (elsewhere it is INIT_EXT)         51                 cookie; code 8
    AGGREGATED   the same; the first request tells  8 bytes, opcode    the same, and
    (Dec 2021)   which of the two, before any event 51                 generation; code 8
    PARENTED     bit 34, minor 38, only where the   8 bytes, opcode    node and parent in
    (2022)       server was told to expect it       51                 one; code 8
    CURRENT      bit 61 of INIT (flags2 bit 29)     opcode 0x46570002  below; code 0x4657

Here are the layouts of CURRENT, whose numbers are far outside of what is given out one by
one, and the messages as all dialects mean them; the layouts of the other three are in
``farwatch.abi.fsnotify_posted``.

CURRENT.  After INIT the client says how it wants its events (BEGIN, on the root), and then
what it watches (MARK, on a node; mask 0 removes).  A node is its id and its generation.

    BEGIN   client -> server  version, mode, flags
            server -> client  version, mode, supported kinds, number of this client
    MARK    client -> server  generation, mask, flags
            server -> client  the kinds of it that can be told, and the sequence: events
                              numbered up to this one happened before it was answered
    TAKE    client -> server  flags.  Parked until there is something to say, for a client
                              that no notification can reach
            server -> client  notifications, whole, one behind the other
    EVENT   server -> client  one thing that happened, with every node and name of it; both
                              halves of a rename in one
    ENDED   server -> client  nothing more will come for this node's mark

Little endian, names are bytes without a NUL, lengths are in bytes.  A sequence counts the
events and endings sent to one client from 1, and is never used twice.  docs/protocol.md
has the whole of it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from struct import Struct, error
from typing import NamedTuple

from farwatch.events import Mask

VERSION = 1
NAME_MAX = 255
"""limits.h."""

HAVE_FSNOTIFY = 1 << 61
"""Init flag: bit 29 of ``flags2``."""
BEGIN = 0x4657_0001
MARK = 0x4657_0002
TAKE = 0x4657_0003
NOTIFY_EVENT = 0x4657
NOTIFY_ENDED = 0x4658

BEGIN_IN = Struct("<III4x")
"""version, mode (``Mode``), flags (0)."""
BEGIN_OUT = Struct("<IIIIQ")
"""version, mode, supported kinds, 0, number of this client among the server's."""
MARK_IN = Struct("<QII")
"""generation, mask, flags (``MarkFlag``)."""
MARK_OUT = Struct("<IIQ")
"""kinds of the mask that can be told, 0, sequence of the last event before this."""
TAKE_IN = Struct("<II")
"""most bytes of an answer, flags (0)."""
EVENT = Struct("<QIIQQQIIIIQHH4x")
"""sequence, mask, cookie, node, parent, new_parent, and the generations of the three,
origin (``Source``), client, bytes of the name, bytes of the new name."""
ENDED = Struct("<QQII")
"""sequence, node, generation, reason (``Reason``)."""

KINDS = (
    Mask.ACCESS
    | Mask.MODIFY
    | Mask.ATTRIB
    | Mask.CLOSE_WRITE
    | Mask.CLOSE_NOWRITE
    | Mask.OPEN
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CREATE
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
)
"""What a mask may ask for: inotify(7)'s kinds."""


class Dialect(StrEnum):
    """Which of the layouts a client speaks."""

    POSTED = "posted"
    AGGREGATED = "aggregated"
    PARENTED = "parented"
    CURRENT = "current"


class Mode(IntEnum):
    """What becomes of the events of what the client does itself."""

    REMOTE = 1
    """The client raises none; all come from the server."""
    MERGED = 2
    """The client raises them as ever; the server does not send them."""


class MarkFlag(IntFlag):
    """How a mark is removed."""

    LIMBO = 1
    """With mask 0: the client has removed the node itself.  The mark stays until nothing
    more will come for it, then the server says ENDED."""


class Source(IntEnum):
    """Who made what an event tells."""

    UNKNOWN = 0
    LOCAL = 1
    """The client that it is sent to."""
    REMOTE = 2
    """Somebody else: another client (``client`` says which), or the host (0)."""


class Reason(IntEnum):
    """Why nothing more will come for a mark."""

    REMOVED = 1
    """It was removed by a request."""
    GONE = 2
    """Its inode is gone: DELETE_SELF, if that was asked for, has been sent before."""
    DROPPED = 3
    """The server keeps no more marks in limbo."""


class Malformed(ValueError):
    """Bytes that are no message of this protocol."""


class Begin(NamedTuple):
    """The answer to BEGIN."""

    version: int
    mode: Mode
    supported: int
    client: int


class Marking(NamedTuple):
    """What a request says of a node's mark; a mask of 0 removes it."""

    mask: int
    generation: int | None
    """None: the dialect has none."""
    flags: int = 0
    group: int = 0
    """POSTED: whose watch it is.  A node's mark is the union of what its groups ask for."""


class Event(NamedTuple):
    """One thing that happened, as the kernel's ``fsnotify`` is told of it.

    ``node``        what it happened to; 0 if the client was never told of it
    ``parent``      the directory in which it has ``name``; 0 for an event of the node alone
    ``new_parent``  of a RENAME: where it is now, with ``new_name``

    The mask is one kind, with ISDIR where the node is a directory; RENAME has both halves,
    Q_OVERFLOW has neither node nor name.
    """

    mask: int
    node: int = 0
    parent: int = 0
    name: bytes = b""
    new_parent: int = 0
    new_name: bytes = b""
    cookie: int = 0
    generation: int = 0
    parent_generation: int = 0
    new_parent_generation: int = 0
    source: Source = Source.UNKNOWN
    client: int = 0
    sequence: int = 0


class Ended(NamedTuple):
    """Nothing more will come for a node's mark."""

    node: int
    generation: int
    reason: Reason
    sequence: int = 0


def encode_event(event: Event) -> bytes:
    """EVENT of the current dialect."""
    return (
        EVENT.pack(
            event.sequence,
            event.mask,
            event.cookie,
            event.node,
            event.parent,
            event.new_parent,
            event.generation,
            event.parent_generation,
            event.new_parent_generation,
            event.source,
            event.client,
            len(event.name),
            len(event.new_name),
        )
        + event.name
        + event.new_name
    )


def decode_event(data: bytes | memoryview) -> Event:
    """The reverse of ``encode_event``.  Raises Malformed."""
    try:
        (
            sequence,
            mask,
            cookie,
            node,
            parent,
            new_parent,
            generation,
            parent_generation,
            new_parent_generation,
            source,
            client,
            size,
            new_size,
        ) = EVENT.unpack_from(data)
        who = Source(source)
    except (error, ValueError) as reason:
        raise Malformed(f"EVENT: {reason}") from None
    names = bytes(data[EVENT.size :])
    if len(names) != size + new_size:
        raise Malformed(f"EVENT: names of {size} and {new_size} in {len(names)} bytes")
    name, new_name = names[:size], names[size:]
    if bool(parent) != bool(name) or bool(new_parent) != bool(new_name):
        raise Malformed("EVENT: a name without a directory, or a directory without a name")
    if not all(is_entry(each) for each in (name, new_name) if each):
        raise Malformed("EVENT: not a name")
    return Event(
        mask,
        node,
        parent,
        name,
        new_parent,
        new_name,
        cookie,
        generation,
        parent_generation,
        new_parent_generation,
        who,
        client,
        sequence,
    )


def encode_ended(ended: Ended) -> bytes:
    """ENDED of the current dialect."""
    return ENDED.pack(ended.sequence, ended.node, ended.generation, ended.reason)


def decode_ended(data: bytes | memoryview) -> Ended:
    """The reverse of ``encode_ended``.  Raises Malformed."""
    try:
        sequence, node, generation, reason = ENDED.unpack(data)
        return Ended(node, generation, Reason(reason), sequence)
    except (error, ValueError) as reason_:
        raise Malformed(f"ENDED: {reason_}") from None


def decode_marking(data: bytes | memoryview) -> Marking:
    """What MARK of the current dialect asks for.  Raises Malformed."""
    try:
        generation, mask, flags = MARK_IN.unpack(data)
    except error as reason:
        raise Malformed(f"FSNOTIFY ({Dialect.CURRENT}): {reason}") from None
    return Marking(mask, generation, flags)


def is_entry(name: bytes) -> bool:
    """Whether a directory can have an entry of that name, other than ``.`` and ``..``."""
    return (
        0 < len(name) <= NAME_MAX
        and b"/" not in name
        and b"\0" not in name
        and name not in (b".", b"..")
    )
