"""A FUSE client in user space: files and events of a farwatch server, with no mount.

    import asyncio
    from farwatch.client import IN_CREATE, IN_MOVED_TO, Watcher

    async def main() -> None:
        async with Watcher("unix:/run/farwatch.sock") as watcher:
            async for event in watcher.watch("/inbox", IN_CREATE | IN_MOVED_TO):
                print(event.source.name, await watcher.read_bytes(b"/inbox/" + event.name))

    asyncio.run(main())

A server is ``farwatch serve`` (``unix:/path``, ``tcps://host:port``, ``tcp://localhost:port``,
``vsock://cid:port``) or ``farwatch virtiofsd`` (``vhost-user:/path``); ``Watcher`` follows
paths, ``FileSystem`` reads and writes files, ``FileSystem.inotify`` is inotify(7) itself.

Errors are OSError with the errno that the system call would have had; ConnectionError when
the server is lost; ProtocolError, which is one, when it says what no server may say; and
Misuse, a ValueError, for what a program must not ask.
"""

from __future__ import annotations

from farwatch.abi.fsnotify import Source
from farwatch.client.client import Client
from farwatch.client.errors import Misuse, ProtocolError
from farwatch.client.filesystem import FileSystem, OpenFile
from farwatch.client.fsnotify import InotifyEvent
from farwatch.client.inotify import Inotify
from farwatch.client.protocol import Caller
from farwatch.client.watcher import Event, Watcher
from farwatch.events import Mask
from farwatch.linux.inotify import (
    IN_ALL_EVENTS,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
)

IN_ACCESS = Mask.ACCESS
IN_MODIFY = Mask.MODIFY
IN_ATTRIB = Mask.ATTRIB
IN_CLOSE_WRITE = Mask.CLOSE_WRITE
IN_CLOSE_NOWRITE = Mask.CLOSE_NOWRITE
IN_OPEN = Mask.OPEN
IN_MOVED_FROM = Mask.MOVED_FROM
IN_MOVED_TO = Mask.MOVED_TO
IN_CREATE = Mask.CREATE
IN_DELETE = Mask.DELETE
IN_DELETE_SELF = Mask.DELETE_SELF
IN_MOVE_SELF = Mask.MOVE_SELF
IN_UNMOUNT = Mask.UNMOUNT
IN_Q_OVERFLOW = Mask.Q_OVERFLOW
IN_IGNORED = Mask.IGNORED
IN_ISDIR = Mask.ISDIR

__all__ = [
    "IN_ACCESS",
    "IN_ALL_EVENTS",
    "IN_ATTRIB",
    "IN_CLOSE_NOWRITE",
    "IN_CLOSE_WRITE",
    "IN_CREATE",
    "IN_DELETE",
    "IN_DELETE_SELF",
    "IN_DONT_FOLLOW",
    "IN_EXCL_UNLINK",
    "IN_IGNORED",
    "IN_ISDIR",
    "IN_MASK_ADD",
    "IN_MASK_CREATE",
    "IN_MODIFY",
    "IN_MOVED_FROM",
    "IN_MOVED_TO",
    "IN_MOVE_SELF",
    "IN_ONESHOT",
    "IN_ONLYDIR",
    "IN_OPEN",
    "IN_Q_OVERFLOW",
    "IN_UNMOUNT",
    "Caller",
    "Client",
    "Event",
    "FileSystem",
    "Inotify",
    "InotifyEvent",
    "Misuse",
    "OpenFile",
    "ProtocolError",
    "Source",
    "Watcher",
]
