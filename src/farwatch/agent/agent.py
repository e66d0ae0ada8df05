"""The agent: registers with the server, then replays batch after batch.

    clone the mount -> leave the client's mounts -> HELLO -> scan -> mark -> WAIT ... WAIT

It ends when the mount is gone from the client's mount table (a plain ``umount``), or when
the server is.
"""

from __future__ import annotations

import errno
import os

from farwatch.abi.control import SEQUENCES, BatchFlag
from farwatch.agent.channel import Channel
from farwatch.agent.mountpoint import MountPoint
from farwatch.agent.replayer import Replayer
from farwatch.agent.watching import Watching
from farwatch.linux.namespace import enter_private_root

_SERVER_GONE = frozenset((errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EBADF))


def run(path: bytes) -> None:
    """Serves the mount at ``path`` until it is gone.

    Raises OSError if it cannot be cloned, NotServed if its server is not farwatch's.
    """
    with MountPoint(path) as mount:
        # Without the client's mounts: a submount below a directory that is removed
        # remotely would make its removal fail here with EBUSY.
        enter_private_root({})
        root = mount.open_root()
        channel = Channel(root)
        hello = channel.hello()
        watching = Watching(mount, root, on_gone=_end)
        watching.start()
        replayer = Replayer(root, hello)
        try:
            _replay(channel, replayer, watching)
        finally:
            replayer.close()
            os.close(root)


def _end() -> None:
    """The mount is gone: leave, although the replaying thread waits in an ioctl."""
    os._exit(0)


def _replay(channel: Channel, replayer: Replayer, watching: Watching) -> None:
    done = 0
    failures: list[tuple[int, int]] = []
    while True:
        try:
            done, flags, sequence, steps = channel.wait(done, failures)
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno in _SERVER_GONE:
                return
            raise
        failures = []
        if flags & BatchFlag.SCAN:
            watching.ask()
        for index, step in enumerate(steps):
            number = replayer.perform(step, (sequence + index) % SEQUENCES)
            if number:
                failures.append((index, number))
        if flags & BatchFlag.RELEASE:
            replayer.release_kept()
        replayer.finish_batch()
