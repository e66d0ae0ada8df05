"""The client's kernel layer on a session, in one process and without an event loop.

    with InProcess(disk) as there:
        there.run(there.kernel.mkdir("/d"))

Every request is answered at once, so an operation never suspends, and ``run`` needs one step.
What the session has to tell is handed over when ``listen`` is called, and not before.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from farwatch.abi.fsnotify import Mode
from farwatch.client.fsnotify import Fsnotify, Group
from farwatch.client.kernel import Kernel
from farwatch.client.protocol import Caller, Connection, Notification, Reply
from farwatch.events import Mask
from farwatch.session.session import Session
from tests.session import kernel as dummy
from tests.session.memory import MemoryDisk

T = TypeVar("T")

ALL = 0xFFF
"""IN_ALL_EVENTS."""


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise AssertionError("it waits")


class InProcess:
    """See the top of the file."""

    def __init__(
        self,
        disk: MemoryDisk,
        mode: Mode | None = None,
        caller: Caller = Caller(0, 0, 100),  # noqa: B008
        session: Session | None = None,
        core: Fsnotify | None = None,
    ) -> None:
        self.disk = disk
        self.session = session or Session(
            dummy.in_session(disk), dummy.settings(), disk, lambda thread, key: None
        )
        self.connection = Connection(caller)
        self.kernel = Kernel(self.ask, self.tell, mode=mode, caller=caller, core=core)
        self.asked: list[int] = []
        """Opcodes of all requests."""
        self.run(self.kernel.start())

    async def ask(self, opcode: int, node: int, body: bytes) -> bytes:
        self.asked.append(opcode)
        unique, data = self.connection.request(opcode, node, body)
        answer = self.session.receive(memoryview(data))
        assert answer is not None, "no answer"
        self.connection.receive_data(b"".join(bytes(part) for part in answer))
        reply = self.connection.next_event()
        assert isinstance(reply, Reply)
        assert reply.unique == unique
        if reply.error:
            raise OSError(reply.error, os.strerror(reply.error))
        return reply.payload

    def tell(self, opcode: int, node: int, body: bytes) -> None:
        self.asked.append(opcode)
        _, data = self.connection.request(opcode, node, body, expects_reply=False)
        assert self.session.receive(memoryview(data)) is None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return step(coroutine)

    def listen(self) -> None:
        """Hands over all that the session has to tell."""
        while (notice := self.session.next_notice()) is not None:
            self.connection.receive_data(b"".join(bytes(part) for part in notice))
            event = self.connection.next_event()
            assert isinstance(event, Notification)
            self.kernel.notified(event.code, event.payload)
            self.run(self.kernel.catch_up())

    def watch(self, path: str, mask: int = ALL, group: Group | None = None) -> Group:
        group = group or self.kernel.core.group()
        self.run(self.kernel.add_watch(group, path, mask))
        return group

    @property
    def known(self) -> int:
        """Nodes that the session keeps for this client: the root is always one."""
        return len(self.session.view.nodes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.session.close()


NAMES = {int(kind): kind.name or "" for kind in Mask}


def said(mask: int) -> str:
    """A mask in words, ISDIR last."""
    return "|".join(name for bit, name in sorted(NAMES.items()) if mask & bit)


def heard(group: Group, names: dict[int, str] | None = None) -> list[str]:
    """What a group has heard: ``watch:KIND(name)``."""
    return [
        f"{(names or {}).get(event.wd, event.wd)}:{said(event.mask)}"
        + (f"({event.name.decode()})" if event.name else "")
        for event in group.read()
    ]


def paired(events: list[tuple[int, str]]) -> list[str]:
    """Events with their cookies numbered in the order in which they come; 0 stays."""
    numbers: dict[int, int] = {0: 0}
    return [
        f"{text}#{numbers.setdefault(cookie, len(numbers))}" if cookie else text
        for cookie, text in events
    ]


def unpack_inotify(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """wd, mask, cookie and name of each ``struct inotify_event``."""
    found, start = [], 0
    while start < len(data):
        wd, mask, cookie, length = struct.unpack_from("iIII", data, start)
        name = data[start + 16 : start + 16 + length].rstrip(b"\0")
        found.append((wd, mask, cookie, name))
        start += 16 + length
    return found
