"""The agent's end of the control channel: ioctls on the mount's root directory."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable

from farwatch.abi import control
from farwatch.abi.control import Hello, Late, Step, Watched
from farwatch.linux.files import ioctl


class NotServed(Exception):
    """The mount's server is not farwatch's, or will have nothing to do with this agent."""


_REASONS = {
    errno.ENOTTY: "its server is not farwatch",
    errno.ENOSYS: "its server is not farwatch",
    errno.EPERM: "its server accepts an agent only from root, in the mount's own pid namespace",
    errno.EPROTO: "its server speaks another version of the agent's protocol",
}


class Channel:
    """One thread's use of the channel.  ``fd`` is the root directory, and stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = ctypes.create_string_buffer(control.BUFFER_SIZE)

    def hello(self) -> Hello:
        """Registers the calling thread.  Raises NotServed."""
        try:
            return control.decode_hello(
                self._exchange(control.HELLO, control.HELLO_IN.pack(control.VERSION, 0))
            )
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror)
            raise NotServed(reason) from None
        except control.Malformed:
            raise NotServed(_REASONS[errno.ENOTTY]) from None

    def wait(
        self, done: int, failures: Iterable[tuple[int, int]], late: Iterable[Late] = ()
    ) -> tuple[int, int, int, list[Step]]:
        """Acknowledges a batch and waits for the next: number, flags, sequence, steps.

        Raises OSError: EINTR if a signal came, ENOTCONN or ECONNABORTED if the server
        is gone.
        """
        message = control.encode_wait(done, failures, late)
        return control.decode_batch(self._exchange(control.WAIT, message))

    def watch(self, flags: int, microseconds: int, watches: list[Watched]) -> None:
        """Says what is watched in the client.  Raises OSError as ``wait`` does."""
        for message in control.encode_watches(flags, microseconds, watches):
            self._exchange(control.WATCH, message)

    def _exchange(self, number: int, message: bytes) -> memoryview:
        buffer = self._buffer
        ctypes.memmove(buffer, message, len(message))
        ioctl(self._fd, number, buffer)
        return memoryview(buffer)
