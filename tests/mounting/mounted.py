"""``farwatch mount`` as a process, and everything that must be gone when it has ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from farwatch.abi.inotify import parse
from farwatch.events import Mask
from farwatch.linux.inotify import Inotify
from farwatch.linux.mounts import MNT_DETACH, parse_mountinfo, umount
from tests.stage import all_processes, environment_of, farwatch_command, farwatch_environment

SECONDS = 15.0
"""How long anything may take.  Only a failure takes that long."""
VARIABLE = "FARWATCH_TEST_MOUNTING"


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Returns when it holds; AssertionError if it never does."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.005)


def is_mounted(path: Path) -> bool:
    text = Path("/proc/self/mountinfo").read_bytes()
    return any(entry.mount_point == os.fsencode(path) for entry in parse_mountinfo(text))


def command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


class Area:
    """SRC and MNT in a directory of their own, and the processes that were started there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.src = home / "src"
        self.mnt = home / "mnt"
        self.src.mkdir()
        self.mnt.mkdir()
        self._mark = f"{VARIABLE}={home}".encode()
        self.environment = farwatch_environment(**{VARIABLE: str(home)})

    def processes(self) -> list[int]:
        return [pid for pid in all_processes() if self._mark in environment_of(pid)]

    def agents(self) -> list[int]:
        return [pid for pid in self.processes() if b"farwatch.agent" in command_line(pid)]

    def servers(self, supervisor: int) -> list[int]:
        """The supervisor's children that are no agents."""
        agents = self.agents()
        return [
            pid for pid in self.processes() if parent_of(pid) == supervisor and pid not in agents
        ]

    def command(self, *arguments: str | Path) -> list[str]:
        """A farwatch command."""
        return farwatch_command(*map(str, arguments))

    def run(self, *arguments: str | Path, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """A farwatch command, to its end."""
        return self.run_command(self.command(*arguments), cwd)

    def run_command(self, command: list[str], cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """A command in this area's environment, to its end."""
        return subprocess.run(
            command,
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            check=False,
        )

    def assert_nothing_left(self) -> None:
        assert not is_mounted(self.mnt)
        wait_until(lambda: not self.processes(), f"no process left of {self.processes()}")

    def mounted(self, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """The supervisor in the foreground; its standard error is ``home / "err"``."""
        return self.mounted_by(self.command("mount", self.src, self.mnt, *options))

    @contextmanager
    def mounted_by(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        """The same, by a command that may be another."""
        with (self.home / "err").open("w") as err:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        with process:
            try:
                assert process.stdout is not None
                assert select.select([process.stdout], [], [], SECONDS * 2)[0], self.said()
                line = process.stdout.readline()
                assert line.startswith(f"farwatch: {self.src} is mounted on {self.mnt}"), (
                    line + self.said()
                )
                yield process
            finally:
                self.clean()

    def said(self) -> str:
        """What the supervisor has written on standard error."""
        path = self.home / "err"
        return path.read_text() if path.exists() else ""

    def clean(self) -> None:
        """Whatever became of it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while is_mounted(self.mnt):
            umount(os.fsencode(self.mnt), MNT_DETACH)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.processes(), "the end")


_Area = TypeVar("_Area", bound=Area)


@contextmanager
def temporary_area(name: str, kind: type[_Area]) -> Iterator[_Area]:
    """An area that is gone afterwards, whatever was done in it."""
    home = Path(tempfile.mkdtemp(prefix=f"farwatch-{name}-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = kind(home)
    try:
        yield made
    finally:
        made.clean()
        # Not rmtree, which knows no more than what a path can name.
        subprocess.run(["rm", "-rf", home], check=False)


@contextmanager
def quiet_area(name: str) -> Iterator[Area]:
    """An area with a mount, of which nothing is said in its log."""
    with temporary_area(name, Area) as made, made.mounted():
        yield made
        assert made.said() == ""


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


class Ear:
    """A watch, and what it has heard."""

    def __init__(self, path: Path, mask: int = Mask.CREATE | Mask.DELETE | Mask.MODIFY) -> None:
        self._inotify = Inotify()
        self._inotify.add(path, mask)
        self._buffer = bytearray(1 << 16)
        self.heard: list[tuple[Mask, str]] = []

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._inotify.close()

    def forget(self) -> None:
        """As if nothing had been heard; what is still unread will be."""
        self.heard.clear()

    def hear(self, *events: tuple[Mask, str]) -> None:
        """Returns when all these events have been heard, once each and in this order."""
        wanted = list(events)
        self._read_until(lambda: [e for e in self.heard if e in wanted] == wanted, wanted)

    def hear_all(self, *events: tuple[Mask, str]) -> None:
        """Returns when each of these events has been heard, in whatever order."""
        self._read_until(lambda: set(events) <= set(self.heard), events)

    def hear_often(self, event: tuple[Mask, str]) -> None:
        """Returns when the event has been heard at least once."""
        self._read_until(lambda: event in self.heard, event)

    def _read_until(self, holds: Callable[[], bool], wanted: object) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            left = deadline - time.monotonic()
            assert left > 0, f"heard {self.heard[-100:]}, not {wanted}"
            if not select.select([self._inotify.fileno()], [], [], left)[0]:
                continue
            size = self._inotify.read(self._buffer)
            self.heard += [
                (Mask(event.mask), os.fsdecode(event.name))
                for event in parse(bytes(self._buffer[:size]))
            ]
