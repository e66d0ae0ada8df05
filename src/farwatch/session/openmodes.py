"""How files are opened on the source's side, which its OPEN events do not say.

The close says it, if it is read with the open.  If not, whoever has opened the file is
asked, who has it open still; and if it has not, then the close is in the queue by now, or
it is still about to get its descriptor.  Who runs a program never gets one: but that is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from farwatch.events import Key, Mask, Record

_OPEN = int(Mask.OPEN)
_OPEN_EXEC = int(Mask.OPEN_EXEC)
_CLOSE = int(Mask.CLOSE_WRITE | Mask.CLOSE_NOWRITE)
_ISDIR = int(Mask.ISDIR)
_PAUSES_SECONDS = (1e-4, 3e-4, 9e-4, 2.7e-3, 8.1e-3)
"""Linux 6.10 and later tell of an open before they truncate the file (O_TRUNC), and only
then does the opener have its descriptor; on a busy machine that takes a while."""
_MOST_SEARCHES = 3
"""Pauses after which everybody was asked often enough: that takes long."""


class OpenModes:
    """The access modes of what one batch opens and does not close."""

    def __init__(
        self, ask: Callable[[int, Key], int | None], *, knows_nobody: bool = False
    ) -> None:
        """``ask`` gives the access mode that a thread has a node open with, if it has.

        With ``knows_nobody`` it is asked although a record does not say by whom it is: then
        only while the batch is read, since it takes longer.
        """
        self._ask = ask
        self._knows_nobody = knows_nobody
        self._pauses = _PAUSES_SECONDS[:_MOST_SEARCHES] if knows_nobody else _PAUSES_SECONDS
        self._modes: dict[tuple[int, Key], int] = {}

    def mode(self, thread: int, node: Key) -> int | None:
        """The access mode of an open of the batch that was learnt last, or that it has now.

        None if neither is known, which mostly means that it is closed.
        """
        mode = self._modes.get((thread, node))
        return self._ask(thread, node) if mode is None and not self._knows_nobody else mode

    def learn(self, records: list[Record], read: Callable[[], list[Record]]) -> list[Record]:
        """The records, and what had to be read further to know how files were opened."""
        self._modes.clear()
        for pause in self._pauses:
            if not self._are_missing(records):
                break
            more = read()
            if not more:
                time.sleep(pause)
                more = read()
            records = records + more
        return records

    def _are_missing(self, records: list[Record]) -> bool:
        opens = [r for r in records if r.mask & _OPEN and not r.mask & (_CLOSE | _ISDIR)]
        if not opens:
            return False
        closed = {record.node for record in records if record.mask & _CLOSE}
        missing = False
        for record in opens:
            node, key = record.node, (record.thread, record.node)
            if node is None or node in closed or key in self._modes:
                continue
            if record.mask & _OPEN_EXEC:
                self._modes[record.thread, node] = os.O_RDONLY
                continue
            # A thread of another pid namespace has no name here, and cannot be asked.
            if not record.thread and not self._knows_nobody:
                continue
            mode = self._ask(record.thread, node)
            if mode is None:
                missing = True
            else:
                self._modes[record.thread, node] = mode
        return missing
