"""A server on /dev/fuse that can be what a guest's may be: restarted, or not farwatch's.

    python -m tests.agent.server SRC MNT [virtiofs] [foreign]

``virtiofs``  an idle WAIT is answered after a second, and nothing interrupts it
``foreign``   it knows no ioctl, as the servers of others

Commands on standard input, a line each; it says the same line when it is done:

    stop    the server is away: what is unanswered, and everything from now on, fails
    start   another one is there, which knows nothing of what the kernel was told

It ends when the mount does, or its standard input.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.export.tree import Export
from farwatch.serving.server import Server, open_modes
from farwatch.serving.start import this_start
from farwatch.session.request import Payload
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from farwatch.sources.fanotify import FanotifySource
from farwatch.transports.devfuse import DevFuse

MAX_WRITE = 1 << 17
UNANSWERED = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)


class Restartable:
    """A connection to the kernel that outlives its servers."""

    def __init__(self, device: DevFuse, source: FanotifySource, export: Export) -> None:
        self._device = device
        self._source = source
        self._export = export
        self._is_virtiofs = "virtiofs" in sys.argv[3:]
        self._is_foreign = "foreign" in sys.argv[3:]
        self._pending: set[int] = set()
        self._init: bytes | None = None
        self._running = ExitStack()
        self._server: Server | None = None

    def start(self) -> None:
        start = this_start()
        settings = Settings(
            start.generation,
            start.hidden_name,
            max_write=MAX_WRITE,
            base=start.base,
            longest_wait=1.0 if self._is_virtiofs else None,
        )
        modes = open_modes(self._export)
        session = Session(self._export, settings, self._export, modes.mode)
        server = Server(self._export, self._source, session, modes, self._send)
        if self._init is not None:
            session.receive(memoryview(self._init))
        self._server = self._running.enter_context(server)

    def stop(self) -> None:
        self._server = None
        self._running.close()
        for unique in list(self._pending):
            self._fail(unique, errno.EIO)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._device.fileno(), select.POLLIN)
        poll.register(0, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._milliseconds()))
            if self._device.fileno() in ready and not self._answer():
                return
            if 0 in ready:
                command = os.read(0, 64)
                if not command:
                    return
                {b"stop\n": self.stop, b"start\n": self.start}[command]()
                os.write(1, command)
            if self._server is not None:
                self._server.tick()

    def close(self) -> None:
        self._running.close()

    def _milliseconds(self) -> float | None:
        due = self._server.session.due if self._server is not None else None
        return None if due is None else max(0.0, due - time.monotonic()) * 1000 + 1

    def _answer(self) -> bool:
        try:
            data = os.read(self._device.fileno(), MAX_WRITE + 4096)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.EINTR)
        _, opcode, unique, *_ = fuse.IN_HEADER.unpack_from(data)
        if opcode == Opcode.INIT:
            self._init = data
        if opcode == Opcode.INTERRUPT and self._is_virtiofs:
            return True
        if opcode not in UNANSWERED:
            self._pending.add(unique)
        if opcode == Opcode.IOCTL and self._is_foreign:
            self._fail(unique, errno.ENOSYS)
        elif self._server is not None:
            reply = self._server.receive(memoryview(data))
            if reply is not None:
                self._send(reply)
        elif opcode not in UNANSWERED:
            self._fail(unique, errno.EIO)
        return True

    def _fail(self, unique: int, number: int) -> None:
        self._send((fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size, -number, unique),))

    def _send(self, reply: Sequence[Payload]) -> None:
        (unique,) = struct.unpack_from("=Q", bytes(reply[0]), 8)
        self._pending.discard(unique)
        self._device.send(reply)


def main() -> None:
    source_path, target = map(os.fsencode, sys.argv[1:3])
    directory = os.open(source_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with (
        DevFuse(MAX_WRITE) as device,
        FanotifySource.open(directory) as source,
        Export(directory) as export,
    ):
        device.mount(source_path, target, 0)
        server = Restartable(device, source, export)
        server.start()
        os.write(1, b"mounted\n")
        try:
            server.run()
        finally:
            server.close()


if __name__ == "__main__":
    main()
