"""The stage of an ordinary user: what ``FarwatchStage`` is for root."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.ordinary.user import environment
from tests.stage import STAGE_VARIABLE, FarwatchStage

_MARK = re.compile(r"^inotify wd:\S+ ino:\S+ sdev:\S+ mask:(\w+)", re.MULTILINE)


class OrdinaryStage(FarwatchStage):
    """``farwatch mount`` as the user that the harness is, with inotify as its source."""

    name = "farwatch for an ordinary user"

    def __init__(self, *, reading: bool = False) -> None:
        super().__init__(reading=reading)
        self._environment = environment(**{STAGE_VARIABLE: str(self._home)})

    def source_mask(self) -> int:
        """What any mark of the server's asks for."""
        mask = 0
        for pid in self.processes():
            for found in inotify_masks(pid):
                mask |= found
        return mask


def inotify_masks(pid: int) -> Iterator[int]:
    directory = Path(f"/proc/{pid}/fdinfo")
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            with contextlib.suppress(OSError):
                for found in _MARK.finditer((directory / entry).read_text()):
                    yield int(found[1], 16)
