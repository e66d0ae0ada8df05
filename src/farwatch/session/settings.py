"""What a session is allowed to do, decided once by whoever starts the server."""

from __future__ import annotations

from typing import NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.abi.fuse import Init

FILE_SECONDS = 1
"""The longest that a regular file's attributes are believed: a mapping writes without any
event until it is closed, and so does asynchronous I/O."""


DIALECTS = frozenset((Dialect.CURRENT, Dialect.POSTED, Dialect.AGGREGATED))
"""What a client may ask for that keeps its own marks.  Not PARENTED: its flag has another
meaning by now (CREATE_SUPP_GROUP), which clients without marks have."""

SPOKEN = {
    "none": frozenset[Dialect](),
    "current": frozenset((Dialect.CURRENT,)),
    "posted": DIALECTS,
    "parented": DIALECTS | {Dialect.PARENTED},
}
"""What can be chosen of them, by name."""


class Caching(NamedTuple):
    """What the client's kernel may believe, and for how long.

    ``seconds``   names and attributes, while nobody replays changes
    ``replayed``  the same while an agent does: what is cached is then set right by replays
    ``direct``    every read and write comes to the server: no pages are cached

    Pages are never kept from one open to the next, and writes never held back
    (FOPEN_KEEP_CACHE, FUSE_WRITEBACK_CACHE), so that what is read at an event is new.
    """

    seconds: int = 1
    replayed: int = 1
    direct: bool = False


class Settings(NamedTuple):
    """Options of a session.

    ``generation``    of every node but the root: another one for each start of a server
    ``hidden_name``   of the hidden directory: nobody must be able to guess it
    ``passthrough``   whether file I/O may bypass the server (root, Linux 6.9)
    ``max_write``     bytes of the largest WRITE; the transport's buffer is that and a page
    ``caching``       see Caching
    ``longest_wait``  seconds after which WAIT is answered if nothing has happened; None: never,
                      for a transport that interrupts requests
    ``base``          node ids and file handles are above this: for a client that may still
                      have those of a server that has died, another one for each start
    ``refused``       flags of INIT that are not taken though the kernel offers them
    ``xattrs``        whether extended attributes are passed
    ``fsnotify``      the dialects in which a client may keep its own marks
    ``client``        the number of this client among the server's; 0 is the host
    ``most_notices``  events that wait for such a client; more become a Q_OVERFLOW
    ``most_marks``    marks of such a client, with the endings that it has not taken
    ``most_in_limbo`` marks whose node the client has removed itself
    ``checks_permissions`` the client's callers were checked by nobody; there is no agent
    """

    generation: int
    hidden_name: bytes
    passthrough: bool = False
    max_write: int = 1 << 20
    caching: Caching = Caching()
    longest_wait: float | None = None
    base: int = 0
    refused: Init = Init(0)
    xattrs: bool = True
    fsnotify: frozenset[Dialect] = DIALECTS
    client: int = 1
    most_notices: int = 16384
    most_marks: int = 1 << 16
    most_in_limbo: int = 1024
    checks_permissions: bool = False
