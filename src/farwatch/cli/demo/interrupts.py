"""Signals that end the demo, held back while it sets up and while it cleans up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns ENDING signals into exceptions, but never within `held`.

    SIGINT raises KeyboardInterrupt, the others SystemExit(128 + number).  The
    previous handlers are back after the ``with`` block.  Main thread only.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in ENDING:
            self._previous[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back; the first that came is raised at the end of the block.

        Not raised over an exception that already ends the block.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        self._raise_pending()

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._pending = self._pending or number
        self._raise_pending()

    def _raise_pending(self) -> None:
        if self._depth or self._pending is None:
            return
        number, self._pending = self._pending, None
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
