"""Who opens files of a file system, and closes them: a fanotify group for that alone.

Not part of the source: nobody is to be told of these, they need no order, and there may be
many.  They are read now and then; what the same process does to the same file meanwhile is
one record.
"""

from __future__ import annotations

from farwatch.abi.fanotify import parse
from farwatch.events import Record
from farwatch.linux import fanotify as fan
from farwatch.linux.descriptors import Closable

OPENED, CLOSED = fan.FAN_OPEN, fan.FAN_CLOSE

_FLAGS = (
    fan.FAN_CLASS_NOTIF
    | fan.FAN_REPORT_FID
    | fan.FAN_UNLIMITED_QUEUE
    | fan.FAN_NONBLOCK
    | fan.FAN_CLOEXEC
)
_BUFFER = 1 << 16


class Openings(Closable):
    """Opens and closes of what is no directory; owns its group."""

    def __init__(self, mount_fd: int) -> None:
        """``mount_fd`` is a directory of a mount of the file system, and stays the caller's.

        What is opened through that mount is not told.  Raises OSError.
        """
        self._group = fan.Group(_FLAGS)
        self._buffer = memoryview(bytearray(_BUFFER))
        try:
            ignored = fan.FAN_MARK_IGNORE | fan.FAN_MARK_IGNORED_SURV_MODIFY
            add, kinds = fan.FAN_MARK_ADD, OPENED | CLOSED
            self._group.mark(add | fan.FAN_MARK_MOUNT | ignored, kinds, mount_fd, b".")
            self._group.mark(add | fan.FAN_MARK_FILESYSTEM, kinds, mount_fd, b".")
        except BaseException:
            self._group.close()
            raise

    def read(self) -> list[Record]:
        """What was opened and closed since; ``thread`` is the process."""
        records: list[Record] = []
        while True:
            try:
                size = self._group.read(self._buffer)
            except BlockingIOError:
                return records
            records += parse(self._buffer[:size].tobytes())

    def fileno(self) -> int:
        """For poll: readable when something was opened or closed."""
        return self._group.fileno()

    def close(self) -> None:
        """Give up the group.  Closing twice does nothing."""
        self._group.close()
