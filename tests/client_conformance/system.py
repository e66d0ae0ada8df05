"""The system calls of ``tests.conformance.watcher`` by way of ``farwatch.client``.

Its inotify is the client's own, and its files are the server's.  The client's event loop
runs in a thread, where each call is carried out while the caller waits.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Self, TypeVar

from farwatch import client
from farwatch.client import FileSystem, InotifyEvent, OpenFile
from farwatch.client.attributes import NOW
from farwatch.client.listing import Directory
from tests.conformance.watcher import Inotify, System

CALL_SECONDS = 20.0
"""Only a failure lasts that long."""
BILLION = 1_000_000_000

T = TypeVar("T")


class Loop:
    """An event loop in a thread.  Owns both."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)

    def run(self, call: Coroutine[object, object, T]) -> T:
        """Carry a coroutine out there; raises what it raises."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(CALL_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ClientInotify(Inotify):
    """An inotify instance of the client's; ``fd`` is readable while it has events."""

    def __init__(self, loop: Loop, files: FileSystem) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop = loop
        self._names: dict[int, str] = {}
        self._descriptors: dict[str, int] = {}
        self._events: deque[InotifyEvent] = deque()
        self._instance, self._reader = loop.run(self._start(files))

    async def _start(self, files: FileSystem) -> tuple[client.Inotify, asyncio.Task[None]]:
        instance = files.inotify()
        return instance, asyncio.create_task(self._read(instance))

    async def _read(self, instance: client.Inotify) -> None:
        while True:
            self._events += await instance.read()
            os.eventfd_write(self.fd, 1)

    def watch(self, name: str, path: str, mask: int) -> None:
        wd = self._loop.run(self._instance.add_watch(path, mask))
        self._descriptors[name] = wd
        self._names.setdefault(wd, name)

    def unwatch(self, name: str) -> None:
        self._loop.run(self._instance.rm_watch(self._descriptors[name]))

    def read(self) -> list[dict[str, object]]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        return [self._told(self._events.popleft()) for _ in range(len(self._events))]

    def _told(self, event: InotifyEvent) -> dict[str, object]:
        return {
            "watch": self._names.get(event.wd, "*"),
            "mask": int(event.mask),
            "cookie": event.cookie,
            "name": os.fsdecode(event.name),
            "source": int(event.source),
            "client": event.client,
        }

    def close(self) -> None:
        self._loop.run(self._stop())
        os.close(self.fd)

    async def _stop(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._instance.close()


class ClientSystem(System):
    """Calls on files of a server.  Uses the loop and the file system, and owns neither."""

    def __init__(self, loop: Loop, files: FileSystem) -> None:
        self._loop = loop
        self._fs = files
        self._open: dict[int, OpenFile | Directory] = {}
        self._last = 2

    def _run(self, call: Coroutine[object, object, T]) -> T:
        return self._loop.run(call)

    @property
    def number(self) -> int:
        """Of this client at the server."""
        return self._fs.number

    def inotify(self) -> Inotify:
        return ClientInotify(self._loop, self._fs)

    # Open files.

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        opened: OpenFile | Directory
        if flags & os.O_DIRECTORY:
            opened = self._run(self._fs.run(self._fs.kernel.opendir(path)))
        else:
            opened = self._run(self._fs.open(path, flags & ~os.O_NONBLOCK, mode))
        self._last += 1
        self._open[self._last] = opened
        return self._last

    def _file(self, fd: int) -> OpenFile:
        file = self._open[fd]
        assert isinstance(file, OpenFile)
        return file

    def close(self, fd: int) -> None:
        opened = self._open.pop(fd)
        if isinstance(opened, OpenFile):
            self._run(opened.close())
        else:
            self._run(self._fs.run(opened.close()))

    def read(self, fd: int, size: int) -> bytes:
        return self._run(self._file(fd).read(size))

    def write(self, fd: int, data: bytes) -> None:
        self._run(self._file(fd).write(data))

    def ftruncate(self, fd: int, size: int) -> None:
        self._run(self._file(fd).truncate(size))

    def fallocate(self, fd: int, size: int) -> None:
        self._run(self._file(fd).allocate(0, size))

    def fchmod(self, fd: int, mode: int) -> None:
        self._run(self._file(fd).chmod(mode))

    def futime(self, fd: int) -> None:
        self._run(self._file(fd).utime())

    # Names.

    def mkdir(self, path: str) -> None:
        self._run(self._fs.mkdir(path))

    def mknod(self, path: str, mode: int, device: int) -> None:
        self._run(self._fs.mknod(path, mode, device))

    def bind(self, path: str) -> None:
        """unix_bind: what bind(2) does to the file system."""
        self._run(self._fs.mknod(path, stat.S_IFSOCK | 0o777))

    def link(self, old: str, new: str) -> None:
        self._run(self._fs.link(old, new))

    def symlink(self, target: str, path: str) -> None:
        self._run(self._fs.symlink(target, path))

    def unlink(self, path: str) -> None:
        self._run(self._fs.unlink(path))

    def rmdir(self, path: str) -> None:
        self._run(self._fs.rmdir(path))

    def rmtree(self, path: str) -> None:
        for name in self.listdir(path):
            child = os.path.join(path, name)
            if stat.S_ISDIR(self.lstat(child).st_mode):
                self.rmtree(child)
            else:
                self.unlink(child)
        self.rmdir(path)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        self._run(self._fs.rename(old, new, flags))

    # By path.

    def truncate(self, path: str, size: int) -> None:
        self._run(self._fs.truncate(path, size))

    def chmod(self, path: str, mode: int) -> None:
        self._run(self._fs.chmod(path, mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._run(self._fs.chown(path, uid, gid, follow=False))

    def utime(self, path: str, times: tuple[int | None, int | None] | None) -> None:
        wanted = (NOW, NOW) if times is None else [each and each * BILLION for each in times]
        self._run(self._fs.utime(path, *wanted, follow=False))

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self._run(self._fs.setxattr(path, name, value, follow=False))

    def removexattr(self, path: str, name: str) -> None:
        self._run(self._fs.removexattr(path, name, follow=False))

    def lstat(self, path: str) -> os.stat_result:
        return self._run(self._fs.lstat(path))

    def readlink(self, path: str) -> str:
        return os.fsdecode(self._run(self._fs.readlink(path)))

    def listdir(self, path: str) -> list[str]:
        return [os.fsdecode(name) for name in self._run(self._fs.listdir(path))]
