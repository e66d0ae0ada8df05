"""``farwatch serve`` as a process, and what must be gone when it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounting.mounted import SECONDS
from tests.stage import farwatch_command, farwatch_environment


class Running:
    """A server that is ready."""

    def __init__(self, process: subprocess.Popen[str], addresses: list[str], err: Path) -> None:
        self.process = process
        self.addresses = addresses
        self.err = err

    @property
    def address(self) -> str:
        return self.addresses[0]

    def said(self) -> str:
        return self.err.read_text()

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


class Area:
    """DIR, a place for sockets, and the server's standard error."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / "dir"
        self.directory.mkdir(mode=0o777)
        self.directory.chmod(0o777)
        self.socket = home / "s"
        self.err = home / "err"

    @property
    def unix(self) -> str:
        return f"unix:{self.socket}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command with these, to its end."""
        return subprocess.run(
            farwatch_command("serve", *arguments),
            env=farwatch_environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            check=False,
        )

    @contextmanager
    def serving(self, *options: str, listen: tuple[str, ...] = ()) -> Iterator[Running]:
        """A server of DIR that is ready; killed at the end if it has not ended.

        In order: nothing but DIR and what it said is left of it, and no traceback.
        """
        listens = [f"--listen={address}" for address in listen or (self.unix,)]
        with self.err.open("a") as err:
            process = subprocess.Popen(
                farwatch_command("serve", str(self.directory), *listens, *options),
                env=farwatch_environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        try:
            yield Running(process, _until_ready(process, self.err), self.err)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    pytest.fail(f"it did not end when it was told to; {self.err.read_text()}")
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        assert "Traceback" not in self.err.read_text(), self.err.read_text()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, self.err.read_text()
            assert not [path for path in self.home.iterdir() if path.name.startswith("s")]


def _until_ready(process: subprocess.Popen[str], err: Path) -> list[str]:
    assert process.stdout is not None
    addresses: list[str] = []
    for line in process.stdout:
        if line == "ready\n":
            return addresses
        assert line.startswith("listening on "), line
        addresses.append(line.removeprefix("listening on ").rstrip("\n"))
    raise AssertionError(err.read_text())
