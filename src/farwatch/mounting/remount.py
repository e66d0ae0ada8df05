"""``-o remount``: other flags for a mount that is there, and nothing else about it."""

from __future__ import annotations

import os

from farwatch.linux import mounts
from farwatch.mounting.checks import mounted_at
from farwatch.mounting.options import Options
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import FSTYPE


def remount(target: str, options: Options) -> None:
    """Gives the farwatch mount on ``target`` the flags that ``options`` name.

    They are the mount's and not its file system's: a replay is not refused by ``ro``.  What
    else stands among the options stays as it was made.  Raises Refused.
    """
    path = os.path.realpath(os.fsencode(target))
    if mounted_at(path) != FSTYPE:
        raise Refused("no farwatch mount is there to be changed", target)
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            mounts.mount_setattr(fd, options.attributes, options.named, recursive=False)
        finally:
            os.close(fd)
    except OSError as error:
        raise Refused(f"cannot change its flags: {error.strerror}", target) from None
