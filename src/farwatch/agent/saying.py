"""What the agent says: lines for a person, and sd_notify(3) for systemd.

Made before the agent leaves the client's mounts: afterwards no socket can be found.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_OUT, _ERR = 1, 2


class Voice:
    """Speaks of one mount.  Nothing here raises for want of a listener."""

    def __init__(self, path: str, quiet: bool) -> None:
        """``quiet`` leaves out what is not wrong."""
        self._prefix = f"farwatch agent: {printable(path)}: "
        self._quiet = quiet
        self._manager = _manager()

    def ready(self) -> None:
        """From now on every remote change is delivered."""
        self.note("events are delivered")
        if self._manager is not None:
            with suppress(OSError):
                self._manager.send(b"READY=1\nSTATUS=events are delivered\n")

    def note(self, what: str) -> None:
        """Something that is as it should be."""
        if not self._quiet:
            say(self._prefix + what, _OUT)

    def complain(self, what: str) -> None:
        """Something that is not."""
        say(self._prefix + what, _ERR)


def printable(path: str) -> str:
    """A path on one line, whatever bytes are in it."""
    return path if path.isprintable() else ascii(path)


def say(line: str, fd: int = _ERR) -> None:
    """Writes a line, at once."""
    with suppress(OSError):
        os.write(fd, line.encode(errors="backslashreplace") + b"\n")


def _manager() -> socket.socket | None:
    """The socket of the service manager that waits for us, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
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
