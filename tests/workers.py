"""The processes that run tests beside each other (pytest-xdist), and how they end too soon.

When the session is interrupted xdist gives its workers a few seconds, and then kills them: what
their tests have mounted would stay.  So they are ended as the session itself would be, by
SIGTERM, and waited for until they have tidied up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from farwatch.linux.processes import ends_within

_FUSE = "/dev/fuse"
_STATUS = 128 + signal.SIGTERM
_SECONDS = 60.0
"""How long they may take to tidy up."""
_AGAIN_SECONDS = 1.0
_TEST_SECONDS = 10.0
"""How long the test that runs may take to its end."""


class InOrder:
    """A plugin: whoever ends this process by a signal has it tidy up, without being disturbed.

    The test that runs comes to its end: an exception from nowhere may come just when something
    was mounted and nobody has been told.  Only a further signal ends one that takes long.
    """

    def __init__(self) -> None:
        self._is_worker = is_worker()
        # Of an interrupt from the terminal a worker hears from its leader as well.
        self._numbers = [signal.SIGTERM, *([signal.SIGINT] if self._is_worker else [])]
        self._session: pytest.Session | None = None
        self._ended: float | None = None

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """From now on."""
        self._session = session
        for number in self._numbers:
            signal.signal(number, self._end)

    def _end(self, *_: object) -> None:
        now = time.monotonic()
        if self._ended is None and self._session is not None:
            self._ended = now
            self._session.shouldstop = "terminated"
        elif self._ended is not None and now > self._ended + _TEST_SECONDS:
            pytest.exit("terminated", returncode=_STATUS)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """The fixtures end."""
        if self._ended is not None:
            for number in self._numbers:
                signal.signal(number, signal.SIG_IGN)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """A worker would wait for its leader, which waits for it."""
        if self._ended is not None and self._is_worker:
            os._exit(_STATUS)


class Workers:
    """A plugin for the process that leads them, which has no other children.

    It puts back what they change for all of them: none of them knows when the others are done.
    """

    def __init__(self) -> None:
        self._fuse = fuse_mode()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """At the end of a session that came to its end they have nothing to do any more."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self._end_them()
        if self._fuse is not None and self._fuse != fuse_mode():
            os.chmod(_FUSE, self._fuse)

    def _end_them(self) -> None:
        with contextlib.ExitStack() as stack:
            fds = {os.pidfd_open(pid) for pid in _children()}
            for fd in fds:
                stack.callback(os.close, fd)
            deadline = time.monotonic() + _SECONDS
            while fds and time.monotonic() < deadline:
                for fd in fds:
                    signal.pidfd_send_signal(fd, signal.SIGTERM)
                fds = {fd for fd in fds if not ends_within(fd, _AGAIN_SECONDS)}


def fuse_mode() -> int | None:
    """The permissions of /dev/fuse; None if it is not there."""
    try:
        return os.stat(_FUSE).st_mode & 0o7777
    except FileNotFoundError:
        return None


def is_worker() -> bool:
    """Whether this process runs tests beside others."""
    return "PYTEST_XDIST_WORKER" in os.environ


def _children() -> list[int]:
    """Nobody else waits for them, so that they keep their ids (proc_pid_task_tid_children(5))."""
    pid = os.getpid()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
