"""What the agent says: lines for a person, and to a service manager that it is ready."""

from __future__ import annotations

import os
from contextlib import suppress

from farwatch.agent.servicemanager import ServiceManager

_OUT, _ERR = 1, 2
_DELIVERED = "events are delivered"


class Voice:
    """Speaks of one mount.  Nothing here raises for want of a listener.

    Made before the agent leaves the client's mounts: see ServiceManager.
    """

    def __init__(self, path: str, quiet: bool) -> None:
        """``quiet`` leaves out what is not wrong."""
        self._prefix = f"farwatch agent: {printable(path)}: "
        self._quiet = quiet
        self._manager = ServiceManager()

    def ready(self) -> None:
        """From now on every remote change is delivered."""
        self.note(_DELIVERED)
        self._manager.ready(_DELIVERED)

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
