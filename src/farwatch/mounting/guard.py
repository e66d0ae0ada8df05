"""``-o auto_unmount``: takes a mount away when its server has died and nobody else does.

A program of its own, which nothing ends but the end of the server: it is there when
supervisor and server have been killed both.

    python -m farwatch.mounting.guard PIDFD MOUNT_ID UNIQUE_ID DEVICE
"""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from contextlib import suppress

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
    # Whoever else has seen the server's end may have been quicker.
    with suppress(OSError):
        place.unmount_dead()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(int(sys.argv[1]), Place(*map(int, sys.argv[2:])))
