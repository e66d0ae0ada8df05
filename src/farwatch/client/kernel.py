"""A FUSE client in user space, without the I/O: what a kernel does between programs and server.

    kernel = Kernel(ask, tell, mode=Mode.REMOTE)
    await kernel.start()
    wd = await kernel.add_watch(kernel.core.group(), "/directory", IN_CREATE)

``ask`` sends a request and waits for its answer, and all that is awaited here is ``ask``:
any event loop will do, or none.  ``tell`` sends what has no answer, and never raises.
Whoever reads the server's notifications hands each to ``notified``, in order, and runs
``catch_up`` when ``on_work`` is called.

Nothing of names or attributes is cached: each operation asks.  Which events it raises by
itself is the mode's (``abi.fsnotify.Mode``):

    wanted   offered by the server   then
    None     whatever                local: its own events, nothing else
    a mode   no                      local
    REMOTE   yes                     none of its own; all come from the server
    MERGED   yes                     its own; the server tells what others did
"""

from __future__ import annotations

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fsnotify import Mode
from farwatch.abi.fuse import Init, Opcode
from farwatch.client import answers
from farwatch.client.asking import Ask
from farwatch.client.errors import ProtocolError
from farwatch.client.fsnotify import Fsnotify
from farwatch.client.inodes import Tell
from farwatch.client.naming import Naming
from farwatch.client.opening import Opening
from farwatch.client.protocol import LARGEST_REQUEST, Caller

_OFFERED = (
    Init.ASYNC_READ
    | Init.BIG_WRITES
    | Init.MAX_PAGES
    | Init.DO_READDIRPLUS
    | Init.PARALLEL_DIROPS
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
)
_LOW = 0xFFFF_FFFF
_DEFAULT_UMASK = 0o022


class Kernel(Naming, Opening):
    """See the top of the file.

    ``caller``  on whose behalf it works; that the server believes it is between them
    ``umask``   taken from the modes of what is made
    ``core``    groups and marks; one of an earlier session of the same server goes on
    """

    def __init__(
        self,
        ask: Ask,
        tell: Tell,
        *,
        mode: Mode | None,
        caller: Caller = Caller(),  # noqa: B008 - a constant
        umask: int = _DEFAULT_UMASK,
        core: Fsnotify | None = None,
    ) -> None:
        super().__init__(ask, tell, mode=mode, caller=caller, umask=umask, core=core or Fsnotify())
        self.supported = 0
        """The kinds that the server can tell; 0 in local mode."""
        self._start_watches()

    async def start(self) -> None:
        """INIT, and BEGIN if a mode is wanted and the server can.

        Raises ProtocolError for a server that is none, OSError for one that refuses.
        """
        offered = int(_OFFERED)
        if self.mode is not None:
            offered |= fsnotify.HAVE_FSNOTIFY
        body = fuse.INIT_IN.pack(
            fuse.MAJOR, fuse.NEWEST_MINOR, LARGEST_REQUEST, offered & _LOW, offered >> 32
        )
        self.server = answers.init_out(await self.ask(Opcode.INIT, 0, body))
        if self.server.flags & ~offered & fsnotify.HAVE_FSNOTIFY:
            raise ProtocolError("INIT: the server takes what was not offered")
        if not self.server.flags & fsnotify.HAVE_FSNOTIFY:
            self.mode = None
        if self.mode is not None:
            begin = fsnotify.BEGIN_IN.pack(fsnotify.VERSION, self.mode, 0)
            begun = answers.begun(await self.ask(fsnotify.BEGIN, fuse.ROOT_ID, begin))
            if begun.mode is not self.mode:
                raise ProtocolError(f"BEGIN: mode {begun.mode.name} was not asked for")
            self.number, self.supported = begun.client, begun.supported
