"""The agent's end of the control channel: ioctls on the mount's root directory."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable

from farwatch.abi import control
from farwatch.abi.control import Hello, Late, Watched
from farwatch.abi.steps import Step, decode_batch
from farwatch.agent.endings import NotServed, Replaced
from farwatch.linux.files import ioctl

_REASONS = {
    errno.ENOTTY: "its server is not farwatch",
    errno.ENOSYS: "its server is not farwatch",
    errno.EPERM: "its server accepts an agent only from who has mounted it,"
    " in the mount's own pid namespace",
    errno.EPROTO: "its server speaks another version of the agent's protocol",
}


_MARKS = (control.FIRST_UID, control.NO_UID)


class Channel:
    """One thread's use of the channel.  ``fd`` is the root directory, and stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = ctypes.create_string_buffer(control.BUFFER_SIZE)

    def hello(self, flags: int = 0) -> Hello:
        """Registers the calling thread; ``flags`` are of HelloFlag.

        Raises NotServed, Replaced if IF_NONE is among the flags and another agent is
        registered, OSError if the server cannot answer at this time.
        """
        try:
            hello = control.decode_hello(
                self._exchange(control.HELLO, control.HELLO_IN.pack(control.VERSION, flags))
            )
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Replaced from None
            reason = _REASONS.get(error.errno or 0)
            if reason is None:
                raise
            raise NotServed(reason) from None
        except control.Malformed:
            raise NotServed(_REASONS[errno.ENOTTY]) from None
        if hello.version != control.VERSION or hello.uid not in _MARKS:
            raise NotServed(_REASONS[errno.EPROTO])
        return hello

    def wait(
        self, done: int, failures: Iterable[tuple[int, int]], late: Iterable[Late] = ()
    ) -> tuple[int, int, int, list[Step]]:
        """Acknowledges a batch and waits for the next: number, flags, sequence, steps.

        Raises OSError: EINTR if a signal came, one of SERVER_GONE if the server is gone,
        EPERM if it does not know this agent (any more).
        """
        message = control.encode_wait(done, failures, late)
        try:
            return decode_batch(self._exchange(control.WAIT, message))
        except control.Malformed:
            raise NotServed("its server sends what an agent cannot do") from None

    def watch(self, flags: int, microseconds: int, watches: list[Watched]) -> None:
        """Says what is watched in the client.  Raises OSError as ``wait`` does."""
        for message in control.encode_watches(flags, microseconds, watches):
            self._exchange(control.WATCH, message)

    def place(self, node: int) -> tuple[int, bytes]:
        """Where a directory is now: the id of one above it, and the path from there.

        Raises OSError: ESTALE if the server knows no such directory, else as ``wait`` does.
        """
        try:
            return control.decode_place(self._exchange(control.PLACE, control.PLACE_IN.pack(node)))
        except control.Malformed as error:
            raise OSError(errno.EPROTO, str(error)) from None

    def _exchange(self, number: int, message: bytes) -> memoryview:
        buffer = self._buffer
        ctypes.memmove(buffer, message, len(message))
        ioctl(self._fd, number, buffer)
        return memoryview(buffer)
