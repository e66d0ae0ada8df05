"""Many operations at once on one connection, with asyncio.

    NEW ── start ──► UP ── drop: the connection or the server fails, or ``close`` ──► DOWN

A *carrier* brings bytes to the server and hands over what comes (``sockets``, ``vhost``).
An operation of the kernel layer runs in a task of its own, to its end: a caller that is
cancelled has the request that is under way interrupted, and goes; the operation still
counts what it is answered, so nothing stays at the server.  What is not done yet of it
fails with EINTR, what cleans up is done.

Nothing waits longer than ``seconds`` for an answer, but TAKE: then the connection is given
up.  Once it is down, every operation raises ConnectionError.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fuse import Opcode
from farwatch.client.errors import ProtocolError
from farwatch.client.files import Opened
from farwatch.client.kernel import Kernel
from farwatch.client.protocol import Caller, Connection, Notification, most_answered, taken

_T = TypeVar("_T")
_CLEANING = frozenset((Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FLUSH, fsnotify.MARK))
"""What an operation that was interrupted still does."""
_LARGE = 1 << 16
"""Bytes of a request that waits for the ones before it to be on their way."""
_TAKEN = 1 << 16
"""The most bytes of notifications that TAKE is answered."""


class Carrier(Protocol):
    """Whatever requests travel on."""

    notifies: bool
    """Whether notifications come by themselves; else TAKE fetches them."""
    interrupts: bool
    """Whether an INTERRUPT can overtake its request."""

    def send(self, data: bytes, room: int) -> None:
        """Sends a request that may be answered ``room`` bytes; 0: it has no answer."""

    async def writable(self) -> None:
        """Waits until what was sent is not piling up."""

    def close(self) -> None:
        """Closes it.  Twice is once."""


class _Call:
    """One operation that somebody waits for."""

    def __init__(self) -> None:
        self.unique = 0
        self.is_interrupted = False


_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("call", default=None)


class Link:
    """See the top of the file.  Owns its carrier from ``attach`` on."""

    def __init__(self, caller: Caller, *, seconds: float) -> None:
        self.connection = Connection(caller)
        self.on_lost: Callable[[ConnectionError], None] | None = None
        """Called once, when the connection has been lost; not by ``close``."""
        self.lost: ConnectionError | None = None
        """Why it is down."""
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._carrier: Carrier | None = None
        self._kernel: Kernel | None = None
        self._waiting: dict[int, tuple[asyncio.Future[bytes], float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._work = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None

    async def start(self, carrier: Carrier, kernel: Kernel) -> None:
        """The carrier is there: INIT, and from then on whatever the server tells.

        Raises OSError; then it is down.
        """
        self._carrier, self._kernel = carrier, kernel
        kernel.on_work = self._work.set
        self._watch()
        try:
            await self.run(kernel.start())
        except BaseException:
            self.close()
            raise
        self._spawn(self._catch_up(kernel))
        if kernel.mode is not None and not carrier.notifies:
            self._spawn(self._take(kernel))

    # For the kernel layer ----------------------------------------------------------

    async def ask(self, opcode: int, node: int, body: bytes) -> bytes:
        """Sends a request and waits for its answer.  Raises OSError."""
        call = _call.get()
        if call is not None and call.is_interrupted and opcode not in _CLEANING:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        if len(body) > _LARGE:
            await self._up().writable()
        carrier = self._up()
        unique, data = self.connection.request(opcode, node, body)
        future: asyncio.Future[bytes] = self._loop.create_future()
        patience = float("inf") if opcode == fsnotify.TAKE else self._loop.time() + self._seconds
        self._waiting[unique] = future, patience
        if call is not None:
            call.unique = unique
        carrier.send(data, fuse.OUT_HEADER.size + most_answered(opcode, body))
        return await future

    def tell(self, opcode: int, node: int, body: bytes) -> None:
        """Sends a request that has no answer; nothing once the connection is down."""
        if self._carrier is not None and self.lost is None:
            _, data = self.connection.request(opcode, node, body, expects_reply=False)
            self._carrier.send(data, 0)

    def _up(self) -> Carrier:
        if self.lost is not None:
            raise _alike(self.lost)
        if self._carrier is None:
            raise ConnectionError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._carrier

    # For the carrier -----------------------------------------------------------------

    def received(self, data: bytes, *, is_message: bool = False) -> None:
        """Something came; ``is_message``: exactly one message."""
        try:
            if is_message:
                self.connection.receive_message(data)
            else:
                self.connection.receive_data(data)
            while self.lost is None and (event := self.connection.next_event()) is not None:
                if isinstance(event, Notification):
                    # After whoever the answers before it have woken.
                    self._loop.call_soon(self._notified, event)
                    continue
                future, _ = self._waiting.pop(event.unique)
                if future.done():
                    continue
                if event.error:
                    future.set_exception(OSError(event.error, os.strerror(event.error)))
                else:
                    future.set_result(event.payload)
        except ProtocolError as error:
            self.drop(error)

    def _notified(self, event: Notification) -> None:
        if self.lost is None and self._kernel is not None:
            try:
                self._kernel.notified(event.code, event.payload)
            except ProtocolError as error:
                self.drop(error)

    def drop(self, error: ConnectionError) -> None:
        """The connection is of no more use."""
        if self.lost is None:
            self._down(error)
            if self.on_lost is not None:
                self.on_lost(error)

    # For programs ----------------------------------------------------------------------

    async def run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Runs an operation of the kernel layer; see the top of the file."""
        call = _Call()
        task = self._spawn(self._called(operation, call))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._interrupt(call)
            task.add_done_callback(self._abandoned)
            raise

    async def _called(self, operation: Coroutine[Any, Any, _T], call: _Call) -> _T:
        _call.set(call)
        try:
            return await operation
        except ProtocolError as error:
            self.drop(error)
            raise

    def _interrupt(self, call: _Call) -> None:
        call.is_interrupted = True
        if self._carrier is not None and self._carrier.interrupts and self.lost is None:
            data = self.connection.interrupt(call.unique)
            if data:
                self._carrier.send(data, 0)

    def _abandoned(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for its result: what was opened is to be closed."""
        if task.cancelled() or task.exception() is not None:
            return
        result = task.result()
        if isinstance(result, Opened) and self.lost is None:
            self._spawn(result.close())

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told

    # By itself ---------------------------------------------------------------------------

    async def _catch_up(self, kernel: Kernel) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            await kernel.catch_up()

    async def _take(self, kernel: Kernel) -> None:
        body = fsnotify.TAKE_IN.pack(_TAKEN, 0)
        while True:
            try:
                payload = await self.ask(fsnotify.TAKE, fuse.ROOT_ID, body)
            except InterruptedError:
                continue
            try:
                for event in taken(payload):
                    kernel.notified(event.code, event.payload)
            except ProtocolError as error:
                self.drop(error)

    def _watch(self) -> None:
        """Nobody waits for ever."""
        now = self._loop.time()
        if any(patience < now for _, patience in self._waiting.values()):
            self.drop(ConnectionError(errno.ETIMEDOUT, f"no answer within {self._seconds:g} s"))
        else:
            self._watchdog = self._loop.call_later(max(self._seconds / 4, 0.01), self._watch)

    # The end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Ends it; whatever is under way fails.  Twice is once."""
        if self.lost is None:
            self._down(ConnectionError(errno.ENOTCONN, "the connection was closed"))
        for task in self._tasks:
            task.cancel()

    async def closed(self) -> None:
        """Waits until everything that was under way has ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        # A transport that was aborted closes its socket in the loop's next turn.
        await asyncio.sleep(0)

    def _down(self, error: ConnectionError) -> None:
        self.lost = error
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._carrier is not None:
            self._carrier.close()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(_alike(error))
                future.exception()
        self._waiting.clear()


def _alike(error: ConnectionError) -> ConnectionError:
    """The same error for another who is to be told."""
    what = error.strerror or str(error)
    return (
        ProtocolError(what) if isinstance(error, ProtocolError) else type(error)(error.errno, what)
    )
