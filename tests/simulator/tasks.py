"""Coroutines stepped by hand: what a client does until it needs an answer."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

_HEADER = struct.Struct("<IIQQIIII")
_ANSWER = struct.Struct("<IiQ")


class Waiting:
    """The answer to a request, as it is awaited."""

    def __init__(self) -> None:
        self.payload: bytes | None = None
        self.error = 0

    def __await__(self) -> Generator[Waiting, None, bytes]:
        while self.payload is None and not self.error:
            yield self
        if self.error:
            raise OSError(self.error, "refused by the server")
        assert self.payload is not None
        return self.payload


class Wire:
    """Requests on their way to the server, and who waits for which answer."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._unique = 0
        self._asked: dict[int, tuple[Waiting, int, bytes]] = {}
        self.requests: deque[bytes] = deque()

    def ask(self, opcode: int, node: int, body: bytes) -> Waiting:
        """What a client's kernel asks."""
        self.tell(opcode, node, body)
        waiting = Waiting()
        self._asked[self._unique] = waiting, opcode, body
        return waiting

    def tell(self, opcode: int, node: int, body: bytes) -> None:
        """The same, where there is no answer."""
        self._unique += 2
        size = _HEADER.size + len(body)
        header = _HEADER.pack(size, opcode, self._unique, node, 0, 0, self._pid, 0)
        self.requests.append(header + body)

    @property
    def next_opcode(self) -> int:
        """Of the request that the server gets next."""
        return int(_HEADER.unpack_from(self.requests[0])[1])

    def answered(self, message: bytes) -> None:
        """An answer is here."""
        size, error, unique = _ANSWER.unpack_from(message)
        assert size == len(message)
        assert -512 < error <= 0
        assert not error or size == _ANSWER.size
        waiting, _, _ = self._asked.pop(unique)
        if error:
            waiting.error = -error
        else:
            waiting.payload = message[_ANSWER.size :]

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._asked)


class Task:
    """One coroutine, and what becomes of it."""

    def __init__(self, body: Coroutine[Any, Any, object]) -> None:
        self._body = body
        self._waits: Waiting | None = None
        self.is_over = False
        self.result: object = None
        self.error: OSError | None = None

    def step(self) -> None:
        """As far as it goes."""
        if self._waits is not None and self._waits.payload is None and not self._waits.error:
            return
        try:
            self._waits = self._body.send(None)
        except StopIteration as end:
            self.is_over, self.result = True, end.value
        except OSError as error:
            self.is_over, self.error = True, error

    def close(self) -> None:
        """It is not wanted any more."""
        self._body.close()


Then = Callable[[Task], None]
