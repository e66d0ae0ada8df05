"""A stage whose directory is mounted below the one that is shared."""

from __future__ import annotations

import contextlib
from pathlib import Path

from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount
from tests.stage import FarwatchStage


class SubmountStage(FarwatchStage):
    """Another file system, of which a directory is mounted below SRC on the disk.

    What is done there is done by way of the file system's own mount.
    """

    name = "submount"

    def __init__(self, *, reading: bool = False, place: str | Path) -> None:
        """``place`` is a directory of the other file system."""
        super().__init__(reading=reading)
        self._inner = Path(place) / self._home.name
        self._point = self._home / "shared" / "below"
        self.acting = self._inner / "in" / "acting"
        self.outside = self._inner / "out"

    @property
    def shared(self) -> Path:
        return self._point.parent

    @property
    def watching(self) -> str:
        return str(self.mnt / "below" / "acting")

    def __enter__(self) -> SubmountStage:
        self._point.mkdir(parents=True)
        self.acting.parent.mkdir(parents=True)
        mount(bytes(self.acting.parent), bytes(self._point), None, MS_BIND)
        return super().__enter__()

    def _stop(self) -> None:
        try:
            super()._stop()
        finally:
            with contextlib.suppress(OSError):
                umount(bytes(self._point), MNT_DETACH)
