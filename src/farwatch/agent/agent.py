"""The agent: registers with the server, then replays batch after batch.

    clone the mount -> leave the client's mounts -> HELLO -> scan -> mark -> WAIT ... WAIT
                                                      ^                            |
                                                      +--- the server is another --+

It ends when

    the mount is gone from the client's mount table (a plain ``umount``), or its connection
    to the server has ended for good                                          Status.GONE
    another agent is registered                                               Status.REPLACED
    the server, restarted, is not farwatch's any more                         Status.NOT_SERVED

A server that was restarted answers EIO until it is ready and then EPERM, because it does
not know the agent.  So does one that has another agent: whoever is not known asks to be
registered *if no other is*, and that tells the two apart.
"""

from __future__ import annotations

import os
import time

from farwatch.abi.control import NOT_TRIED, SEQUENCES, Hello, HelloFlag, Late
from farwatch.abi.steps import ABOUT_NAMES, BatchFlag, Step
from farwatch.agent.channel import Channel
from farwatch.agent.endings import SERVER_GONE, Replaced
from farwatch.agent.mountpoint import MountPoint
from farwatch.agent.registration import Registration
from farwatch.agent.saying import Voice
from farwatch.agent.watching import Watching
from farwatch.linux.namespace import enter_private_root

_FEW = 4
_STAND_BY_SECONDS = 1.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


def run(path: bytes, voice: Voice, stand_by: bool = False) -> None:
    """Serves the mount at ``path`` until it is gone.

    With ``stand_by`` it waits until no other agent is registered, else it takes over.

    Raises OSError if the mount cannot be cloned or its server cannot answer, NotServed if
    its server is not farwatch's, Replaced if another agent has taken over.
    """
    with MountPoint(path) as mount:
        if os.geteuid() == 0:
            # Without the client's mounts: a submount below a directory that is removed
            # remotely would make its removal fail here with EBUSY.
            enter_private_root({})
        root = mount.open_root()
        try:
            Agent(mount, root, voice).run(stand_by)
        except _Gone:
            pass
        finally:
            os.close(root)


class _Gone(Exception):
    """The mount, or for good its server."""


class _Lost(Exception):
    """The server does not know this agent, or cannot answer at this time."""


class Agent:
    """One agent of one mount.  ``root`` is the caller's."""

    def __init__(self, mount: MountPoint, root: int, voice: Voice) -> None:
        self._mount = mount
        self._root = root
        self._voice = voice
        self._channel = Channel(root)
        self._watching = Watching(mount, root, on_gone=_end)
        self._pause = 0.0

    def run(self, stand_by: bool) -> None:
        """Replays until the mount or its server is gone; raises as ``run`` does."""
        hello = self._stand_by() if stand_by else self._channel.hello()
        self._watching.start()
        registration = Registration(self._root, hello, self._visible)
        self._voice.ready()
        while True:
            try:
                self._serve(registration)
            except _Lost:
                registration.close()
                registration = self._register_again()
                self._watching.tell_again()
                self._voice.note("registered again")

    # Being registered ------------------------------------------------------------

    def _stand_by(self) -> Hello:
        has_said = False
        while True:
            try:
                return self._channel.hello(HelloFlag.IF_NONE)
            except Replaced as other:
                if not has_said:
                    self._voice.note(f"{other}; standing by")
                has_said = True
            except OSError as error:
                if error.errno in SERVER_GONE:
                    raise _Gone from None
            if self._mount.is_gone(_STAND_BY_SECONDS):
                raise _Gone

    def _register_again(self) -> Registration:
        """Meanwhile the watching thread sees whether the mount is still there."""
        has_complained = False
        while True:
            # Before the first attempt only if the last registration was of no use.
            time.sleep(self._pause)
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            try:
                hello = self._channel.hello(HelloFlag.IF_NONE)
                return Registration(self._root, hello, self._visible)
            except OSError as error:
                if error.errno in SERVER_GONE:
                    raise _Gone from None
                if not has_complained:
                    self._voice.complain(f"its server does not answer ({error.strerror}); waiting")
                has_complained = True

    # Replaying -------------------------------------------------------------------

    def _serve(self, registration: Registration) -> None:
        """Raises _Gone or _Lost."""
        done = 0
        failures: list[tuple[int, int]] = []
        replayer, opener = registration.replayer, registration.opener
        while True:
            late = [Late(sequence, number) for sequence, number in opener.finished()]
            try:
                done, flags, sequence, steps = self._channel.wait(done, failures, late)
            except InterruptedError:
                failures = []
                continue
            except OSError as error:
                raise (_Gone if error.errno in SERVER_GONE else _Lost) from None
            self._pause = 0.0
            self._watch(flags, steps)
            failures = self._replay(registration, sequence, steps)
            if flags & BatchFlag.RELEASE:
                registration.files.close()
            replayer.finish_batch(last_changed(steps))

    def _watch(self, flags: int, steps: list[Step]) -> None:
        if flags & BatchFlag.SCAN:
            self._watching.ask()
        elif not steps:
            self._watching.idle()
        else:
            self._watching.is_paced = False

    def _replay(
        self, registration: Registration, first: int, steps: list[Step]
    ) -> list[tuple[int, int]]:
        failures = []
        for index, step in enumerate(steps):
            sequence = (first + index) % SEQUENCES
            number = registration.perform(step, sequence, self._watching.asks)
            if number:
                failures.append((index, number))
                if step.op in ABOUT_NAMES:
                    failures += [(rest, NOT_TRIED) for rest in range(index + 1, len(steps))]
                    break
        return failures

    def _visible(self) -> int | None:
        return self._mount.open_visible() if self._watching.by_path else None


def last_changed(steps: list[Step]) -> int:
    """The directory of the last step if that changes names there, else 0.

    After a long batch the next one is waiting already, and this would only delay it.
    """
    if not steps or len(steps) > _FEW or steps[-1].op not in ABOUT_NAMES:
        return 0
    return steps[-1].new_directory or steps[-1].directory


def _end() -> None:
    """The mount is gone: leave, although the replaying thread waits in an ioctl.

    On virtiofs nothing interrupts that; the process ends with the answer to it, which
    comes within a second.
    """
    os._exit(0)
