"""Descriptors to wait on, and what to do when one is readable."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from farwatch.transports.vhost.errors import ProtocolError


class Poller:
    """An epoll instance, and a descriptor of its own to be woken by."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)

    def add(self, fd: int, callback: Callable[[], None], *, is_counter: bool = False) -> None:
        """Raises ProtocolError for what cannot be waited on.

        Of an eventfd (``is_counter``) each signal is told once: nobody need read it.
        """
        events = select.EPOLLIN | (select.EPOLLET if is_counter else 0)
        try:
            self._epoll.register(fd, events)
        except OSError as error:
            raise ProtocolError(f"a descriptor cannot be polled: {error.strerror}") from None
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Before ``fd`` is closed: another process may hold the file behind it open."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait(self, seconds: float | None) -> bool:
        """Waits so long for something to be readable; calls what is to be called.

        None waits for as long as it takes.  Returns whether anything was readable.
        """
        ready = self._epoll.poll(seconds)
        for fd, _ in ready:
            if fd == self._wake:
                os.eventfd_read(fd)
                continue
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
        return bool(ready)

    def wake(self) -> None:
        """Have ``wait`` return.  From any thread."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close both descriptors."""
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)
            self._epoll.close()
