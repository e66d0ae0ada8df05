"""A server on a unix socket that says whatever it is told to, for clients that must not mind."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from farwatch.abi import fsnotify, fuse

Script = Callable[["Peer"], Awaitable[None]]


class Request(NamedTuple):
    """A request's header, as far as it matters, and its body."""

    opcode: int
    unique: int
    node: int
    body: bytes


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.interrupted: list[int] = []
        self.forgotten: list[tuple[int, bytes]] = []

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def greet(self) -> bytes:
        """Reads the client's line and says ok."""
        line = await self.reader.readline()
        self.say(b"FARWATCH/1 ok\n")
        return line

    async def request(self) -> Request:
        """The next request that has an answer."""
        while True:
            head = await self.reader.readexactly(40)
            length, opcode, unique, node = struct.unpack_from("<IIQQ", head)
            body = await self.reader.readexactly(length - 40)
            if opcode == fuse.Opcode.INTERRUPT:
                self.interrupted.append(struct.unpack("<Q", body)[0])
            elif opcode in (fuse.Opcode.FORGET, fuse.Opcode.BATCH_FORGET):
                self.forgotten.append((node, body))
            else:
                return Request(opcode, unique, node, body)

    def answer(self, request: Request, payload: bytes = b"", error: int = 0) -> None:
        self.say(struct.pack("<IiQ", 16 + len(payload), -error, request.unique) + payload)

    def notify(self, code: int, payload: bytes) -> None:
        self.say(struct.pack("<IiQ", 16 + len(payload), code, 0) + payload)

    async def begin(self, *, can: bool = True) -> None:
        """Greets, and answers INIT, and BEGIN if it ``can`` tell events."""
        await self.greet()
        init = await self.request()
        assert init.opcode == fuse.Opcode.INIT
        flags = fsnotify.HAVE_FSNOTIFY if can else 0
        self.answer(
            init,
            fuse.INIT_OUT.pack(
                7, 45, 0, flags & 0xFFFFFFFF, 0, 0, 1 << 17, 1, 32, 0, flags >> 32, 0
            ),
        )
        offered = fuse.INIT_IN.unpack(init.body)[4] << 32
        if can and offered & fsnotify.HAVE_FSNOTIFY:
            begin = await self.request()
            assert begin.opcode == fsnotify.BEGIN
            _, mode, _ = fsnotify.BEGIN_IN.unpack(begin.body)
            self.answer(begin, fsnotify.BEGIN_OUT.pack(1, mode, int(fsnotify.KINDS), 0, 3))


class HostileServer:
    """A context: listens, and has ``script`` talk to whoever comes."""

    def __init__(self, path: Path, script: Script) -> None:
        self.url = f"unix:{path}"
        self._path = path
        self._script = script
        self.failures: list[BaseException] = []
        self.peers: list[Peer] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except AssertionError as error:
            self.failures.append(error)
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for peer in self.peers:
            peer.writer.close()
        self._path.unlink(missing_ok=True)
        assert not self.failures, self.failures


def attributes(mode: int = 0o100644, nlink: int = 1, ino: int = 9) -> bytes:
    return fuse.ATTR.pack(ino, 3, 8, 1, 2, 3, 4, 5, 6, mode, nlink, 10, 11, 0, 4096, 0)


def entry(node: int = 5, mode: int = 0o100644, generation: int = 7) -> bytes:
    return fuse.ENTRY_OUT_HEAD.pack(node, generation, 1, 1, 0, 0) + attributes(mode)
