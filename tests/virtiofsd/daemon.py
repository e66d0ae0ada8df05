"""``farwatch virtiofsd`` as a process, and what must be gone when it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mounting.mounted import SECONDS, wait_until
from tests.stage import farwatch_command, farwatch_environment
from tests.virtiofsd.guest import Guest


class Area:
    """SRC and a socket's place in a directory of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.src = home / "src"
        self.src.mkdir()
        self.socket = home / "fs.sock"
        self.err = home / "err"

    def run(
        self, *arguments: str | Path, pass_fds: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        return subprocess.run(
            farwatch_command("virtiofsd", *map(str, arguments)),
            env=farwatch_environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            check=False,
            pass_fds=pass_fds,
        )

    def start(
        self,
        *options: str,
        at: Path | None = None,
        pass_fds: Sequence[int] = (),
        through: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """A daemon on SRC, started by the command ``through``; what it says is added to ``err``."""
        where = () if pass_fds else (f"--socket-path={at or self.socket}",)
        with self.err.open("a") as err:
            return subprocess.Popen(
                [
                    *through,
                    *farwatch_command("virtiofsd", *where, f"--shared-dir={self.src}", *options),
                ],
                env=farwatch_environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                text=True,
                pass_fds=pass_fds,
            )

    @contextmanager
    def serving(
        self, *options: str, at: Path | None = None, through: Sequence[str] = ()
    ) -> Iterator[subprocess.Popen[str]]:
        """A daemon that listens; it is killed at the end if it has not ended."""
        process = self.start(*options, at=at, through=through)
        try:
            self.wait_for_socket(process, at)
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for_socket(self, process: subprocess.Popen[str], at: Path | None = None) -> None:
        """Until the daemon's pid is noted: it listens by then."""
        lock = Path(f"{at or self.socket}.pid")

        def is_there() -> bool:
            assert process.poll() is None, self.said()
            with contextlib.suppress(OSError):
                return lock.read_text() == f"{process.pid}\n"
            return False

        wait_until(is_there, "a daemon that listens")

    def connect(self, process: subprocess.Popen[str]) -> socket.socket:
        """A connection to a daemon that was just started."""
        self.wait_for_socket(process)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.socket))
        return connection

    def guest(self, queues: int = 2) -> Guest:
        """``queues``: one of them is for what goes before all others."""
        return Guest(str(self.socket), queues)

    def said(self) -> str:
        return self.err.read_text() if self.err.exists() else ""

    def assert_ended(self, process: subprocess.Popen[str], status: int = 0) -> None:
        """In order: with this status, nothing left, and no traceback."""
        assert process.wait(SECONDS) == status, self.said()
        assert "Traceback" not in self.said()
        assert sorted(os.listdir(self.home)) == ["err", "src"]


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
