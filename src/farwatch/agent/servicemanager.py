"""sd_notify(3): telling systemd, if it has started this process, that it is ready."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """Whoever waits for this process, or nobody.  Nothing here raises for want of a listener.

    Made before the process leaves the mounts in which the socket can be found, and before it
    starts others: what they would say is not asked for, so they do not inherit the address.
    """

    def __init__(self) -> None:
        self._socket = _connected(os.environ.pop(_VARIABLE, ""))

    def ready(self, status: str) -> None:
        """The process does what it was started for; ``status`` is a line for a person."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(f"READY=1\nSTATUS={status}\n".encode())


def _connected(address: str) -> socket.socket | None:
    if address[:1] not in ("/", "@"):
        return None
    import socket

    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        found.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError:
        found.close()
        return None
    return found
