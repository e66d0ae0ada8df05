"""A vhost-user device that answers what no device may: one dropped connection, no hang."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.client import FileSystem, ProtocolError
from farwatch.session.request import Payload
from farwatch.transports.vhost.backend import Backend
from farwatch.transports.vhost.state import Options
from tests.transports.vhost.scene import whole

Reply = Callable[[int, int], bytes]
"""Of the opcode and the unique."""


@contextmanager
def device(path: Path, reply: Reply) -> Iterator[None]:
    """Serves one front end."""
    backend = Backend(Options(notify_buf_size=1024))

    def receive(data: memoryview) -> Sequence[Payload] | None:
        _, opcode, unique, *_ = fuse.IN_HEADER.unpack_from(data)
        if opcode == Opcode.INIT:
            init = fuse.INIT_OUT.pack(7, 45, 0, 0, 0, 0, 1 << 17, 1, 32, 0, 0, 0)
            return [struct.pack("<IiQ", 16 + len(init), 0, unique), init]
        answer = reply(opcode, unique)
        return [answer] if answer else None

    def serve() -> None:
        connection, _ = listening.accept()
        backend.serve(connection, whole(receive), lambda: None)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            backend.stop()
            thread.join(10)
            backend.close()
            assert not thread.is_alive()


def use(path: Path, *, seconds: float = 5) -> None:
    async def work() -> None:
        async with asyncio.timeout(20), FileSystem(f"vhost-user:{path}", seconds=seconds) as there:
            await there.stat("x")

    asyncio.run(work())


@pytest.mark.parametrize(
    "reply",
    [
        lambda opcode, unique: bytes(16),
        lambda opcode, unique: struct.pack("<IiQ", 16, 0, unique),
        lambda opcode, unique: struct.pack("<IiQ", 16, 0, unique + 2),
        lambda opcode, unique: struct.pack("<IiQ", 16, 5, unique),
        lambda opcode, unique: struct.pack("<IiQ", 0xFFFFFFFF, 0, unique) + bytes(128),
        lambda opcode, unique: struct.pack("<IiQQ", 144, 0, unique, 5) + bytes(120),
    ],
)
def test_wrong_replies(tmp_path: Path, reply: Reply) -> None:
    with device(tmp_path / "s", reply), pytest.raises(ProtocolError):
        use(tmp_path / "s")


def test_no_reply(tmp_path: Path) -> None:
    with device(tmp_path / "s", lambda opcode, unique: b""):
        with pytest.raises(ConnectionError, match="no answer within"):
            use(tmp_path / "s", seconds=0.3)


def test_errno(tmp_path: Path) -> None:
    with device(tmp_path / "s", lambda opcode, unique: struct.pack("<IiQ", 16, -13, unique)):
        with pytest.raises(PermissionError):
            use(tmp_path / "s")


def test_no_device(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(TimeoutError):
            use(tmp_path / "s", seconds=0.3)
