"""fanotify groups of a client's, on a mount under test."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from farwatch.linux import fanotify as fan

_METADATA = struct.Struct("=IBBHQii")
"""``struct fanotify_event_metadata``: length, version, reserved, its length, mask, fd, pid."""
_RESPONSE = struct.Struct("=iI")
_ALLOW = 1


class ClientGroup:
    """A fanotify group; owns its descriptors, those in its events too."""

    flags = fan.FAN_CLASS_NOTIF

    def __init__(self) -> None:
        self.group = fan.Group(self.flags | fan.FAN_NONBLOCK | fan.FAN_CLOEXEC)

    def mark(self, path: Path, mask: int, how: int = 0) -> None:
        self.group.mark(fan.FAN_MARK_ADD | how, mask, path=os.fsencode(path))

    def _events(self) -> list[tuple[int, int]]:
        """Mask and descriptor of every event that waits."""
        buffer = bytearray(1 << 16)
        events: list[tuple[int, int]] = []
        while True:
            try:
                size = self.group.read(buffer)
            except BlockingIOError:
                return events
            at = 0
            while at < size:
                length, _, _, _, mask, fd, _ = _METADATA.unpack_from(buffer, at)
                events.append((mask, fd))
                at += length

    def names(self, kind: int) -> list[str]:
        """What the events of a kind were about, relative to the root of its file system."""
        found = []
        for mask, fd in self._events():
            if mask & kind:
                found.append(self._name(fd))
            os.close(fd)
        return found

    @staticmethod
    def _name(fd: int) -> str:
        """The agent's mount, by which an event may have come, has no path of its own."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        return path.partition("/mnt/")[2] or path.lstrip("/")

    def heard(self) -> int:
        """The kinds that were heard of since the last call."""
        kinds = 0
        for mask, fd in self._events():
            kinds |= mask
            if fd >= 0:
                os.close(fd)
        return kinds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # With the group all its answers are given.
        self.group.close()


class DescriptorGroup(ClientGroup):
    """Wants a descriptor with each event."""


class Listener(ClientGroup):
    """Is asked before every open below a mount, and does not answer until told to."""

    flags = fan.FAN_CLASS_CONTENT

    def __init__(self, mount: Path) -> None:
        super().__init__()
        self.mark(mount, fan.FAN_OPEN_PERM | fan.FAN_EVENT_ON_CHILD)

    def allow_all(self) -> None:
        """Give every answer that is due, and be asked no more."""
        self.group.mark(fan.FAN_MARK_FLUSH, 0, path=b"/")
        for mask, fd in self._events():
            if mask & fan.FAN_OPEN_PERM:
                with suppress(FileNotFoundError):
                    os.write(self.group.fileno(), _RESPONSE.pack(fd, _ALLOW))
            os.close(fd)
