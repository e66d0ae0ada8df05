"""What the agent has while a server knows it: all that the server has numbered.

A server that was restarted knows none of its predecessor's tokens and marks, so everything
kept under them goes together, and the next registration starts with nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from farwatch.abi.control import NO_UID, Hello, HelloFlag
from farwatch.abi.steps import Step
from farwatch.agent.channel import Channel
from farwatch.agent.endings import NotServed
from farwatch.agent.kept import Kept
from farwatch.agent.marks import Marks, marks_of
from farwatch.agent.opener import OPENING, Opener, Perform
from farwatch.agent.replayer import Replayer


class Registration:
    """From a HELLO to the loss of the server that has answered it."""

    def __init__(self, root: int, hello: Hello, visible: Callable[[], int | None]) -> None:
        """Marks the calling thread, which is the one that performs.  Raises OSError.

        ``root`` stays the caller's.
        """
        self._root = root
        self._hello = hello
        self._visible = visible
        self._marks = marks_of(root, hello)
        self._is_one_thread = hello.uid == NO_UID
        self.files = Kept()
        self._pins = Kept()
        self._openers: Replayer | None = None
        # Its thread is started before this one takes its mark, which would be inherited.
        self.opener = Opener(self._prepare_opener)
        self.opener.start()
        try:
            self.replayer = self._replayer(self._marks)
        except BaseException:
            self._marks.drop()
            self.opener.end(self._let_go)
            raise

    def perform(self, step: Step, sequence: int, may_be_held_up: bool) -> int:
        """Does a step; 0 or an errno, EINPROGRESS among them."""
        if self._is_one_thread:
            return self.replayer.perform(step, sequence)
        if step.op in OPENING and (may_be_held_up or self.opener.is_busy):
            return self.opener.perform(step, sequence)
        return self.replayer.perform(step, sequence)

    def close(self) -> None:
        """Takes the mark off the calling thread, and lets go of everything.

        If somebody holds up an open, that is when it ends.
        """
        self._marks.drop()
        self.replayer.close()
        self.opener.end(self._let_go)

    def _let_go(self) -> None:
        if self._openers is not None:
            self._openers.close()
        self.files.close()
        self._pins.close()

    def _replayer(self, marks: Marks) -> Replayer:
        return Replayer(self._root, self._hello, marks, self.files, self._pins, self._visible)

    def _prepare_opener(self) -> Perform:
        """In the opener's thread, which the server is to know as the agent's as well."""
        try:
            Channel(self._root).hello(HelloFlag.IF_NONE)
        except NotServed as error:
            raise OSError(errno.EPERM, str(error)) from None
        self._openers = self._replayer(marks_of(self._root, self._hello))
        return self._openers.perform
