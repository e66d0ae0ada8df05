"""The agent's process, as the supervisor has it: started, and after its end started again.

    started ──ended──> a pause ──> started again

The first pauses are next to nothing, unless it says that its mount is gone; those of one that
dies time and again grow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from farwatch.agent.endings import Status
from farwatch.linux.processes import ends_within

AT_ONCE_SECONDS = 0.05
"""An agent that ends because the server does, ends before it by no more than this."""
_GONE_SECONDS = 1.0
"""The same where the agent has said so itself."""
_LIFE_SECONDS = 10.0
"""An agent that has lived so long had started well: the next one is started at once."""
_SHORT_LIVES = 20
"""So many times in a row it is started at once nevertheless."""
_LONGEST_PAUSE = 0.8
_END_SECONDS = 5.0
"""How long it is waited for when its mount is gone."""


class AgentProcess:
    """One agent after the other; owns the descriptor of the present one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._short_lives = 0
        self.fd = -1
        """Its pidfd: readable when it has ended; -1 before the first one is started."""

    def start(self, target: bytes, *options: str) -> None:
        """Starts one for the mount on ``target``; that before has ended.  Raises OSError."""
        if self.fd >= 0:
            os.close(self.fd)
        # -P: a directory named farwatch where we were started is not our program.
        command = [sys.executable, "-P", "-m", "farwatch.agent", "--quiet", *options]
        command.append(os.fsdecode(target))
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )
        self.fd = os.pidfd_open(self._process.pid)
        self._since = time.monotonic()

    def wait(self) -> int:
        """Until it has ended; how, as subprocess gives it."""
        assert self._process is not None
        return self._process.wait()

    def pause_before_another(self, status: int) -> float:
        """Seconds, in which the server may end as well, or a signal come."""
        if time.monotonic() - self._since >= _LIFE_SECONDS:
            self._short_lives = 0
        self._short_lives += 1
        if status == Status.GONE:
            return _GONE_SECONDS
        if self._short_lives <= _SHORT_LIVES:
            return AT_ONCE_SECONDS
        more = min(self._short_lives - _SHORT_LIVES, 10)
        return float(min(AT_ONCE_SECONDS * 2**more, _LONGEST_PAUSE))

    def have_end(self, seconds: float) -> None:
        """Asks it to end, and waits for that, but not for longer than this."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            ends_within(self.fd, seconds)

    def kill(self) -> None:
        """Nothing if there is none.  Raises ProcessLookupError."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Its mount is gone: it ends by itself, or is made to."""
        if self._process is None:
            return
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def close(self) -> None:
        """Waits for its end, and forgets it."""
        if self._process is not None:
            self._process.wait()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
