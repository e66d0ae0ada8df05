"""What every part of the client's kernel layer stands on: one server, its inodes, its marks."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from farwatch.abi.fsnotify import Event, Mode
from farwatch.client.answers import Server
from farwatch.client.errors import Misuse
from farwatch.client.fsnotify import Fsnotify
from farwatch.client.inodes import Inode, Inodes, Tell
from farwatch.client.protocol import Caller

Ask = Callable[[int, int, bytes], Awaitable[bytes]]
"""Sends a request (opcode, node, body) and waits for its answer's payload.  Raises OSError."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound="Asking")


def fail(number: int, path: bytes | None = None) -> OSError:
    """An OSError with this errno, to be raised."""
    return OSError(number, os.strerror(number), *([os.fsdecode(path)] if path else []))


def path_bytes(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """A path as the server has it.  Raises Misuse for one with a NUL."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise Misuse("a path with a NUL")
    return raw


Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""Every path is absolute within the export, whether it begins with a slash or not."""


def again(
    operation: Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]]:
    """An operation on paths that is done over once where the server says ESTALE.

    As the kernel does (``retry_estale`` of namei.h): the path was walked while it changed.
    """

    async def tried(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await operation(self, *args, **kwargs)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return await operation(self, *args, **kwargs)

    functools.update_wrapper(tried, operation)
    return tried


class Asking:
    """See the top of the file.

    ``ask`` and ``tell`` are whoever carries requests to the server.  ``mode`` is what is
    wanted until ``Kernel.start``, from then on what was agreed; None: this client's own
    events only.
    """

    def __init__(
        self, ask: Ask, tell: Tell, *, mode: Mode | None, caller: Caller, umask: int, core: Fsnotify
    ) -> None:
        self.ask = ask
        self.tell = tell
        self.mode = mode
        self.caller = caller
        self.umask = umask
        self.core = core
        self.inodes = Inodes(tell)
        self.server = Server(0, 0, 4096)
        self.number = 0
        """This client's number at the server, 0 for none."""
        self.is_over = False
        """Its connection is lost, and the core another's: nothing is to be told any more."""
        self.on_fact: Callable[[Event], None] | None = None
        """Called with every fact that the core is told."""

    @property
    def raises(self) -> bool:
        """Whether this client raises the events of what it does itself."""
        return self.mode is not Mode.REMOTE

    @property
    def is_root(self) -> bool:
        """Whether the caller keeps set-user-id bits when it writes (CAP_FSETID)."""
        return self.caller.uid == 0

    def _note_marks(self) -> None:
        """The core was told something, and the server's marks may have to be others."""
        raise NotImplementedError

    def _to_limbo(self, inode: Inode) -> None:
        """This client has removed an inode, and its events come from the server."""
        raise NotImplementedError
