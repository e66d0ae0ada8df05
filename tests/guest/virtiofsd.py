"""The daemons behind a guest's virtiofs mount: Debian's in C, and farwatch's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

C_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
START_SECONDS = 20.0
END_SECONDS = 10.0
POLL_SECONDS = 0.005
LISTENING = "00010000"
"""The flag of a socket that listens, in /proc/net/unix (__SO_ACCEPTCON)."""


class DaemonError(AssertionError):
    """The daemon did not start, or left something behind."""


class Daemon:
    """One vhost-user-fs daemon for one directory; started anew for each boot.

    Owns its process, its socket and its log.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """``command`` may contain ``{socket}``, which becomes the path of the socket."""
        self._home = Path(tempfile.mkdtemp(prefix="farwatch-test-", dir="/tmp"))
        self.socket = self._home / "socket"
        self._log = self._home / "log"
        self._command = [word.replace("{socket}", str(self.socket)) for word in command]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it listens.  Raises DaemonError."""
        self.stop()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(self.socket):
            if self._process.poll() is not None:
                raise DaemonError(
                    f"{self._command}: status {self._process.returncode}\n{self.log()}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise DaemonError(f"{self._command}: does not listen\n{self.log()}")
            time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int:
        """The process that was started; it may have children."""
        assert self._process
        return self._process.pid

    def processes(self) -> list[int]:
        """That process and its descendants, those that live."""
        if self._process is None or self._process.poll() is not None:
            return []
        return list(descendants(self._process.pid))

    def is_running(self) -> bool:
        return bool(self.processes())

    def kill(self) -> None:
        """SIGKILL to all of it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if self._process:
            self._process.wait(END_SECONDS)

    def wait(self) -> int:
        """Return its exit status, when it has ended by itself.  Raises TimeoutExpired."""
        assert self._process
        return self._process.wait(END_SECONDS)

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL to what does not go."""
        if self._process is None:
            return
        everything = self.processes()
        if everything:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        for pid in everything:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self._process = None
        self.socket.unlink(missing_ok=True)

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """End it, and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._home, ignore_errors=True)


def c_virtiofsd(directory: Path, cache: str = "none") -> Daemon:
    """Debian's C virtiofsd, which tells a guest nothing."""
    options = [f"source={directory}", "sandbox=chroot", f"cache={cache}", "xattr"]
    words = [word for option in options for word in ("-o", option)]
    return Daemon([str(C_VIRTIOFSD), "-f", "--socket-path={socket}", *words])


def farwatch_virtiofsd(
    command: Sequence[str], environment: dict[str, str], directory: Path
) -> Daemon:
    """farwatch's; ``command`` is what starts ``farwatch virtiofsd``."""
    words = [*command, "--socket-path={socket}", f"--shared-dir={directory}"]
    return Daemon(words, environment)


def is_listening(path: Path) -> bool:
    """Whether somebody takes connections at a Unix socket (proc(5), /proc/net/unix)."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if words[-1] == str(path) and words[3] == LISTENING:
            return True
    return False


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it (proc(5), children)."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    yield from descendants(int(child))
