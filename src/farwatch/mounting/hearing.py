"""Which source hears of a mount's remote changes, by ``--events``."""

from __future__ import annotations

import os

from farwatch.mounting.options import Events
from farwatch.serving.refused import Refused
from farwatch.sources.fanotify import FanotifySource, NoSource
from farwatch.sources.inotify import InotifySource
from farwatch.sources.mountsource import MountSource
from farwatch.sources.nothing import NoEvents


def source_of(events: Events, src_fd: int, path: bytes) -> MountSource:
    """The source that reports what changes in the directory ``src_fd``; the caller's.

    ``path`` is what that directory is called.  Raises Refused if there is none of this kind.
    """
    if events is Events.NONE:
        return NoEvents()
    try:
        if events is Events.INOTIFY or (events is Events.AUTO and os.geteuid() != 0):
            return InotifySource.open()
        return FanotifySource.open(src_fd)
    except NoSource as error:
        raise Refused(
            f"changes there cannot be watched: {error.strerror}",
            path,
            "--events=inotify hears, in what is in use in MNT, of what is done on this machine;"
            " --events=none of nothing",
        ) from None
