"""A guest without a virtual machine: the dummy kernel's requests, through our front end."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.shared import SharedMemory
from tests.session.kernel import (
    FIRST_UID,
    IOCTL,
    IOCTL_DIR,
    ROOT,
    WAIT,
    WITHOUT_REPLY,
    Agent,
    Batch,
    Kernel,
    Refused,
    batch_of,
    checked,
    request,
)

ROOM = (1 << 17) + 4096


class Guest(Kernel):
    """A client kernel at the other end of a daemon's socket.  Owns the connection."""

    def __init__(self, path: str, queues: int = 2) -> None:
        self._unique = 0
        self.given = {}
        self.frontend = Frontend.connect(path)
        try:
            self.frontend.negotiate()
            self.frontend.start(SharedMemory([8 << 20]), queues=queues)
        except BaseException:
            self.frontend.close()
            raise

    def submit(
        self, opcode: int, node: int = ROOT, body: bytes = b"", *, uid: int = 0, pid: int = 100
    ) -> tuple[int, Pending]:
        """A request whose answer is waited for later."""
        self._unique += 2
        data = request(opcode, node, body, unique=self._unique, uid=uid, pid=pid)
        return self._unique, self.frontend.submit(data, ROOM)

    def reply(self, asked: tuple[int, Pending]) -> bytes:
        """The payload.  Raises Refused."""
        unique, pending = asked
        number, payload = checked([self.frontend.wait(pending)], unique)
        if number:
            raise Refused(number, errno.errorcode.get(number, str(number)))
        return payload

    def try_ask(
        self,
        opcode: int,
        node: int = ROOT,
        body: bytes = b"",
        *,
        uid: int = 0,
        gid: int = 0,
        pid: int = 100,
    ) -> bytes | None:
        if opcode not in WITHOUT_REPLY:
            return self.reply(self.submit(opcode, node, body, uid=uid, pid=pid))
        self._unique += 2
        data = request(opcode, node, body, unique=self._unique, uid=uid, gid=gid, pid=pid)
        assert self.frontend.ask(data, 0, queue=0) == b""
        return None

    def go_on(self, connection: socket.socket) -> None:
        """Goes on with another daemon; what is under way stays so."""
        self.frontend.reconnect(connection)

    def start_agent(self) -> GuestAgent:
        """An agent that is at work."""
        agent = GuestAgent(self)
        agent.register()
        return agent

    def close(self) -> None:
        self.frontend.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GuestAgent(Agent):
    """An agent whose WAIT returns when it is answered."""

    kernel: Guest

    def submit_wait(self, done: int = 0) -> tuple[int, Pending]:
        body = struct.pack("<QIIQII", self.fh, IOCTL_DIR, WAIT, 0, 16, 16383)
        body += struct.pack("<QII", done, 0, 0)
        return self.kernel.submit(IOCTL, ROOT, body, uid=FIRST_UID, pid=self.pid)

    def waited(self, asked: tuple[int, Pending]) -> Batch:
        return batch_of(self.kernel.reply(asked)[16:])

    def hear(self, done: int = 0) -> tuple[int, list[bytes]]:
        """Names in the next batch that has steps, and its number."""
        while True:
            batch = self.waited(self.submit_wait(done))
            done = batch.number
            if batch.steps:
                return done, [step.name for step in batch.steps]

    def hear_all(self, names: Sequence[bytes]) -> set[bytes]:
        """Every name that was told until all of these were."""
        heard: set[bytes] = set()
        done = 0
        while not heard.issuperset(names):
            done, found = self.hear(done)
            heard.update(found)
        return heard
