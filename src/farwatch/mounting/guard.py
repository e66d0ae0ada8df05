"""``-o auto_unmount``: takes a mount away when its server has died and nobody else does.

A program of its own, which nothing ends but the end of the server: it is there when
supervisor and server have been killed both.

    python -m farwatch.mounting.guard PIDFD MOUNT_ID DEVICE
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

from farwatch.agent.endings import SERVER_GONE
from farwatch.linux import mounts
from farwatch.mounting.place import Place


def start(server: int, place: Place) -> subprocess.Popen[bytes]:
    """Starts the guard of a mount; ``server`` is its server's pidfd."""
    command = [sys.executable, "-P", "-m", "farwatch.mounting.guard"]
    return subprocess.Popen(
        [*command, *map(str, (server, *place))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(server,),
        start_new_session=True,
        cwd="/",
    )


def watch(server: int, place: Place) -> None:
    """Returns when the server has ended and its mount is gone."""
    poll = select.poll()
    poll.register(server, select.POLLIN)
    poll.poll()
    entry = place.find()
    if entry is not None and _is_dead(entry.mount_point):
        # Whoever else has seen the server's end may have been quicker.
        with suppress(OSError):
            place.unmount(mounts.MNT_DETACH)


def _is_dead(target: bytes) -> bool:
    """Whether it is that mount, and not one that was made since and was given its numbers."""
    try:
        os.statvfs(target)
    except OSError as error:
        return error.errno in SERVER_GONE
    return False


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(int(sys.argv[1]), Place(int(sys.argv[2]), int(sys.argv[3])))
