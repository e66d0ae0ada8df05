"""The agent: registers with the server, then replays batch after batch.

    clone the mount -> leave the client's mounts -> HELLO -> scan -> mark -> WAIT ... WAIT

It ends when the mount is gone from the client's mount table (a plain ``umount``), or when
the server is.
"""

from __future__ import annotations

import errno
import os

from farwatch.abi.control import (
    ABOUT_NAMES,
    NOT_TRIED,
    SEQUENCES,
    BatchFlag,
    Hello,
    Late,
    Step,
)
from farwatch.agent.channel import Channel
from farwatch.agent.kept import Kept
from farwatch.agent.mountpoint import MountPoint
from farwatch.agent.opener import OPENING, Opener, Perform
from farwatch.agent.replayer import Replayer
from farwatch.agent.watching import Watching
from farwatch.linux.namespace import enter_private_root

_FEW = 4
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
        try:
            Agent(mount, root).run()
        finally:
            os.close(root)


class Agent:
    """One agent of one mount.  ``root`` is the caller's."""

    def __init__(self, mount: MountPoint, root: int) -> None:
        self._mount = mount
        self._root = root
        self._channel = Channel(root)
        self._hello: Hello = self._channel.hello()
        self._watching = Watching(mount, root, on_gone=_end)
        self._files = Kept()
        self._pins = Kept()
        self._opener = Opener(self._prepare_opener)

    def run(self) -> None:
        """Replays until the mount or its server is gone."""
        self._opener.start()
        self._watching.start()
        replayer = self._replayer()
        done = 0
        failures: list[tuple[int, int]] = []
        while True:
            late = [Late(sequence, number) for sequence, number in self._opener.finished()]
            try:
                done, flags, sequence, steps = self._channel.wait(done, failures, late)
            except InterruptedError:
                failures = []
                continue
            except OSError as error:
                if error.errno in _SERVER_GONE:
                    return
                raise
            if flags & BatchFlag.SCAN:
                self._watching.ask()
            failures = self._replay(replayer, sequence, steps)
            if flags & BatchFlag.RELEASE:
                self._files.close()
            replayer.finish_batch(last_changed(steps))

    def _replay(self, replayer: Replayer, first: int, steps: list[Step]) -> list[tuple[int, int]]:
        failures = []
        for index, step in enumerate(steps):
            sequence = (first + index) % SEQUENCES
            perform = replayer.perform
            if step.op in OPENING and (self._watching.asks or self._opener.is_busy):
                perform = self._opener.perform
            number = perform(step, sequence)
            if number:
                failures.append((index, number))
                if step.op in ABOUT_NAMES:
                    failures += [(rest, NOT_TRIED) for rest in range(index + 1, len(steps))]
                    break
        return failures

    def _replayer(self) -> Replayer:
        return Replayer(self._root, self._hello, self._files, self._pins, self._visible)

    def _visible(self) -> int | None:
        return self._mount.open_visible() if self._watching.by_path else None

    def _prepare_opener(self) -> Perform:
        """In the opener's thread, which the server is to know as the agent's as well."""
        Channel(self._root).hello()
        return self._replayer().perform


def last_changed(steps: list[Step]) -> int:
    """The directory of the last step if that changes names there, else 0.

    After a long batch the next one is waiting already, and this would only delay it.
    """
    if not steps or len(steps) > _FEW or steps[-1].op not in ABOUT_NAMES:
        return 0
    return steps[-1].new_directory or steps[-1].directory


def _end() -> None:
    """The mount is gone: leave, although the replaying thread waits in an ioctl."""
    os._exit(0)
