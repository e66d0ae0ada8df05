"""What the server of a mount asks of its source, whichever kind that is."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from farwatch.events import Record


class MountSource(Protocol):
    """Reports what changes in an export; a context manager that stops at its end."""

    is_silent: bool
    """Whether ``silence`` is in effect."""

    @property
    def wanted(self) -> int:
        """The kinds that reading makes which are asked for now (Mask bits)."""

    def want(self, mask: int) -> None:
        """Ask for exactly these of the READING kinds from now on."""

    def silence(self, mount_fd: int) -> None:
        """Hear nothing of opens, reads, writes and closes through this mount.

        ``mount_fd`` is a directory of it, and stays the caller's.
        """

    def be_silent(self, *, is_silent: bool) -> None:
        """Take what ``silence`` did back, or do it again; nothing if it was never called."""

    def read(self, limit: int = ...) -> list[Record]:
        """What has happened; an empty list if nothing waits."""

    def queued(self) -> int:
        """How many events wait to be read."""

    def fileno(self) -> int:
        """For poll: readable when something happened."""

    def close(self) -> None:
        """Stop.  Closing twice does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
