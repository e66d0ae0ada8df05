"""The server's process, as the supervisor has it: forked, its first words, its end.

    forked ──"ready"──> serving ──the mount is gone──> ended
       └──why it cannot be──> ended

Its first words come through a pipe, whose other end is this process's.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from farwatch.linux.signals import ENDING
from farwatch.mounting.server import Unservable
from farwatch.serving.refused import Refused

log = logging.getLogger(__name__)

_READY = b"ready"
_MOST_WORDS = 4096

Serve = Callable[[Callable[[], None]], None]
"""What the process does; it calls what it is given when the mount answers."""


class ServerProcess:
    """A fork of this process; owns the descriptors by which it is known."""

    def __init__(self) -> None:
        self.pid = 0
        """0 before it is forked, and when it has been waited for."""
        self.fd = -1
        """Its pidfd: readable when it has ended."""
        self.ready_fd = -1
        """Readable when it has said its first words."""

    def fork(self, serve: Serve) -> None:
        """Starts it.  Raises OSError."""
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ready_read)
            _serve_and_exit(serve, ready_write)
        os.close(ready_write)
        self.ready_fd = ready_read
        self.fd = os.pidfd_open(self.pid)

    def hear(self) -> None:
        """Its first words: that it is ready.  Raises Refused with why it cannot be."""
        words = os.read(self.ready_fd, _MOST_WORDS)
        if not words:
            raise Refused("the server ended while starting", remedy="see its messages")
        if words != _READY:
            raise Refused(words.decode(errors="replace"))

    def kill(self) -> None:
        """Raises ProcessLookupError."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Until it has ended; how, as subprocess gives it."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Waits for its end, and forgets it."""
        if self.pid:
            self.wait()
        for fd in (self.fd, self.ready_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.ready_fd = -1


def _serve_and_exit(serve: Serve, ready_fd: int) -> None:
    """The forked server: never returns."""
    status = 1
    try:
        os.setsid()
        threading.excepthook = _end_with_thread
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        serve(lambda: _say(ready_fd, _READY))
        status = 0
    except Unservable as error:
        _say(ready_fd, str(error).encode())
    except Exception:
        log.exception("the server failed")
    finally:
        logging.shutdown()
        os._exit(status)


def _end_with_thread(died: threading.ExceptHookArgs) -> None:
    """A server that has lost one of its threads would go on as if nothing was the matter."""
    name = died.thread.name if died.thread is not None else "?"
    if died.exc_value is not None:
        log.critical("the server's thread %s failed", name, exc_info=died.exc_value)
    logging.shutdown()
    os._exit(1)


def _say(ready_fd: int, words: bytes) -> None:
    os.write(ready_fd, words)
    os.close(ready_fd)
