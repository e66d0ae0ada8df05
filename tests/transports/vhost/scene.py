"""A back end in a thread, a front end beside it, and a session behind.

    with Scene(disk) as scene:
        scene.ask(k.GETATTR, body)      # FUSE requests through the queues
        scene.frontend, scene.backend   # both sides

What ``kernel.py`` says of requests and replies holds here, too: ``checked``, ``Refused``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence

from farwatch.linux.descriptors import Closable
from farwatch.session.request import Payload, Views
from farwatch.session.session import Session
from farwatch.transports.vhost.backend import Backend, Receive
from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.notices import Speaker
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k

MAX_WRITE = 1 << 17
ROOM = MAX_WRITE + 4096


def whole(answer: Callable[[memoryview], Sequence[Payload] | None]) -> Receive:
    """``receive`` by a function that takes each request in one piece."""

    def receive(
        data: memoryview, payload: Views | None, room: Views | None
    ) -> Sequence[Payload] | None:
        return answer(memoryview(b"".join((data, *(payload or ())))))

    return receive


class Server:
    """A back end in a thread of its own; closed with everything that it has started."""

    def __init__(
        self,
        receive: Receive,
        after: Callable[[], None],
        options: Options | None = None,
        speaker: Speaker | None = None,
    ) -> None:
        self.backend = Backend(options or Options(max_request=MAX_WRITE + 4096))
        self._receive, self._after = receive, after
        self._speaker = speaker
        self._thread: threading.Thread | None = None
        self.failures: list[BaseException] = []

    def connect(self) -> socket.socket:
        """The front end's end of a new connection.  The one before must be over."""
        self.join()
        here, there = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=(here,))
        self._thread.start()
        return there

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.backend.serve(connection, self._receive, self._after, speaker=self._speaker)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failures.append(error)

    def join(self, seconds: float = 10) -> None:
        """Wait for the end of a connection."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(seconds)
            assert not thread.is_alive(), "the back end hangs"

    @property
    def is_serving(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        self.backend.stop()
        self.join()
        self.backend.close()
        assert not self.failures, self.failures


class Scene(Closable):
    """See the top of the file."""

    def __init__(
        self,
        session: Session,
        *,
        options: Options | None = None,
        features: int = FEATURES,
        sizes: Sequence[int] = (4 << 20,),
        adjacent: bool = False,
        queue_size: int = 64,
    ) -> None:
        self.session = session
        self.server = Server(session.receive, self._after, options)
        self.backend = self.server.backend
        self.frontend = Frontend(self.server.connect())
        self.frontend.negotiate(features)
        memory = SharedMemory(sizes, adjacent=adjacent)
        self.frontend.start(memory, queues=self.backend.options.queues, size=queue_size)
        self._unique = 0

    def _after(self) -> None:
        answer = self.session.answer()
        if answer is not None:
            self.backend.send(answer)

    def next_unique(self) -> int:
        self._unique += 2
        return self._unique

    def submit(
        self, opcode: int, node: int = k.ROOT, body: bytes = b"", room: int = ROOM
    ) -> tuple[int, Pending]:
        unique = self.next_unique()
        data = k.request(opcode, node, body, unique=unique)
        return unique, self.frontend.submit(data, room)

    def reply(self, asked: tuple[int, Pending]) -> bytes:
        """The payload.  Raises Refused."""
        unique, pending = asked
        number, payload = k.checked([self.frontend.wait(pending)], unique)
        if number:
            raise k.Refused(number, errno.errorcode.get(number, str(number)))
        return payload

    def ask(self, opcode: int, node: int = k.ROOT, body: bytes = b"", room: int = ROOM) -> bytes:
        return self.reply(self.submit(opcode, node, body, room))

    def init(self) -> None:
        self.ask(k.INIT, 0, struct.pack("<5I44x", 7, 41, 0, k.FLAGS_6_18, k.FLAGS2_6_18))

    def close(self) -> None:
        self.frontend.close()
        self.server.close()
        self.session.close()


def open_descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(found)


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def joined(reply: Sequence[Payload] | None) -> bytes:
    return b"".join(bytes(part) for part in reply or ())
