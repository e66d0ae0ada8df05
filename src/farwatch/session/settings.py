"""What a session is allowed to do, decided once by whoever starts the server."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.abi.fuse import Init

FILE_SECONDS = 1
"""The longest that a regular file's attributes are believed which somebody may have open for
writing: a mapping writes without any event until it is closed, and so does asynchronous I/O."""

DAY = 86_400
"""Seconds for which what is kept right is believed."""


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


class Cache(Enum):
    """What ``--cache`` can be; each stands for a Caching.

    ``COHERENT``  all that is known is cached: a change ends what was believed of it
    ``AUTO``      names and attributes for a second
    ``NEVER``     nothing, and no pages
    """

    COHERENT = "coherent"
    AUTO = "auto"
    NEVER = "never"


class Marks(Enum):
    """How the agent's replays are told from what programs do.

    ``BY_FSUID``   each request carries a user id that nobody else can have
    ``BY_THREAD``  by who asks: an ordinary user's agent, see session/agents.py
    """

    BY_FSUID = "fsuid"
    BY_THREAD = "thread"


class Caching(NamedTuple):
    """What the client's kernel may believe, and for how long.

    ``seconds``   names and attributes, while nobody replays changes
    ``replayed``  the same while an agent does: what is cached is then set right by replays
    ``direct``    every read and write comes to the server: no pages are cached
    ``coherent``  what no replay sets right is taken back by notifications: so names that are
                  not there, and attributes of files that nobody writes, are believed as long
                  as the rest

    Pages are never kept from one open to the next, and writes never held back
    (FOPEN_KEEP_CACHE, FUSE_WRITEBACK_CACHE), so that what is read at an event is new.
    """

    seconds: int = 1
    replayed: int = 1
    direct: bool = False
    coherent: bool = False


CACHING = {
    Cache.COHERENT: Caching(1, DAY, coherent=True),
    Cache.AUTO: Caching(1, 1),
    Cache.NEVER: Caching(0, 0, direct=True),
}


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
    ``posix_acl``     whether the client's kernel is to go by access control lists: only with
                      ``xattrs``, and where the export's file system has them
    ``fsnotify``      the dialects in which a client may keep its own marks
    ``client``        the number of this client among the server's; 0 is the host
    ``most_notices``  events that wait for such a client; more become a Q_OVERFLOW
    ``most_marks``    marks of such a client, with the endings that it has not taken
    ``most_in_limbo`` marks whose node the client has removed itself
    ``knows_pids``    the client's processes are this host's: whose lock it is can be told
    ``checks_permissions`` the client's callers were checked by nobody; there is no agent
    ``marks``         how replays are known
    ``owner``         the user whose agent is served
    ``is_read_only``  programs are refused whatever changes something
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
    posix_acl: bool = False
    fsnotify: frozenset[Dialect] = DIALECTS
    client: int = 1
    most_notices: int = 16384
    most_marks: int = 1 << 16
    most_in_limbo: int = 1024
    knows_pids: bool = False
    checks_permissions: bool = False
    marks: Marks = Marks.BY_FSUID
    owner: int = 0
    is_read_only: bool = False
