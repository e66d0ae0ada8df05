"""Two rings of a device, and the order in which what comes there is handed over."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from farwatch.abi.virtio import Feature
from farwatch.client.link import Link
from farwatch.client.vhost import VhostCarrier
from farwatch.session.request import Payload
from farwatch.transports.vhost.backend import Backend
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import whole


class Saying:
    """Has one notification before each answer."""

    told_first = frozenset((k.MKDIR,))

    def __init__(self) -> None:
        self.has_notice = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        self.has_notice = True
        yield

    def next_notice(self, room: int) -> Sequence[Payload] | None:
        self.has_notice = False
        return (struct.pack("<IiQ", 16, 9, 0),)


class Heard:
    """In the place of the link."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.lost: ConnectionError | None = None

    def received(self, data: bytes, *, is_message: bool) -> None:
        assert is_message
        self.codes.append(struct.unpack_from("<Ii", data)[1])

    def drop(self, error: ConnectionError) -> None:
        self.lost = error


def test_a_notification_that_was_put_before_an_answer_is_heard_before_it() -> None:
    here, there = socket.socketpair()
    backend = Backend(Options(notify_buf_size=64))
    is_done = threading.Event()

    def echo(data: memoryview) -> Sequence[Payload]:
        return (struct.pack("<IiQ", 16, 0, struct.unpack_from("<8xQ", data)[0]),)

    thread = threading.Thread(
        target=backend.serve,
        args=(here, whole(echo), is_done.set),
        kwargs={"speaker": Saying()},
    )
    thread.start()

    async def work(heard: Heard) -> None:
        frontend = Frontend(there)
        frontend.negotiate(FEATURES | Feature.FS_NOTIFICATION)
        frontend.start(SharedMemory([1 << 20]), queues=frontend.request_queue + 1)
        carrier = VhostCarrier(cast("Link", heard), frontend)
        try:
            for number in range(1, 51):
                is_done.clear()
                carrier.send(k.request(k.MKDIR, number * 2), 100)
                # The loop stands still until both are in their rings.
                assert is_done.wait(10)
                async with asyncio.timeout(10):
                    while len(heard.codes) < 2 * number:
                        await asyncio.sleep(0)
        finally:
            carrier.close()

    heard = Heard()
    try:
        asyncio.run(work(heard))
    finally:
        backend.stop()
        thread.join(10)
        backend.close()
    assert heard.lost is None
    assert heard.codes == [9, 0] * 50
