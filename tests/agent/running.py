"""Agents and servers as processes, for tests; all of them end with their ``with``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounting.mounted import SECONDS, Area
from tests.stage import PROJECT

BUILD = PROJECT / "scripts" / "build-agent"


def build(directory: Path) -> Path:
    """The agent as one file."""
    subprocess.run([sys.executable, BUILD, directory], check=True, cwd="/")
    return directory / "farwatch-agent.pyz"


def bare(pyz: Path, *arguments: str | Path) -> list[str]:
    """A command line with which Python has nothing but its standard library."""
    return [sys.executable, "-I", "-S", str(pyz), *map(str, arguments)]


class Process:
    """A process that says lines on standard output, and what goes wrong in a file."""

    def __init__(self, process: subprocess.Popen[bytes], complaints: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._complaints = complaints
        self._unread = b""

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            assert select.select([fd], [], [], SECONDS)[0], f"silent; {self.complaints()}"
            data = os.read(fd, 4096)
            assert data, f"ended; {self.complaints()}"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def say(self, line: str) -> None:
        """A line to its standard input, and back."""
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), line.encode() + b"\n")
        assert self.line() == line

    def complaints(self) -> str:
        return self._complaints.read_text()

    def status(self) -> int:
        """How it ends."""
        return self.process.wait(SECONDS)


@contextmanager
def started(area: Area, command: list[str], **environment: str) -> Iterator[Process]:
    complaints = area.home / f"err{os.urandom(4).hex()}"
    with complaints.open("wb") as err:
        process = subprocess.Popen(
            command,
            env=area.environment | environment,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
        )
    with process:
        try:
            yield Process(process, complaints)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@contextmanager
def agent_of(area: Area, pyz: Path, *options: str) -> Iterator[Process]:
    """An agent at work, out of one file."""
    with started(area, bare(pyz, *options, area.mnt)) as process:
        assert process.line() == f"farwatch agent: {area.mnt}: events are delivered"
        yield process


@contextmanager
def served(area: Area, *options: str) -> Iterator[Process]:
    """SRC on MNT, by a server that is not ``farwatch mount``'s, without an agent."""
    command = [
        *(sys.executable, "-m", "tests.agent.server", str(area.src), str(area.mnt)),
        *options,
    ]
    environment = {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'src'}"}
    with started(area, command, **environment) as process:
        try:
            assert process.line() == "mounted"
            yield process
        finally:
            area.clean()
