"""Stages: where a workload is acted, and where it is watched.

A stage has an *acting* directory, in which the harness makes the changes, and a
*watching* directory, under which a client sees them: the same one natively,
SRC and MNT with farwatch, a host's directory and a guest's mount.

    with FarwatchStage() as stage:
        stage.acting                 # Path, on this machine
        stage.watching               # str, as the client names it
        stage.client()               # the running watching program
        stage.wait_for_reading(mask) # until OPEN, ACCESS… are asked of the source
        stage.log()                  # what the thing under test has said

A stage made with ``reading=True`` has a watch for OPEN, ACCESS and CLOSE_NOWRITE in
force all the time, in a directory where nothing happens.  A source is asked for
these kinds only while somebody wants them, it learns that with some delay, and a
test cannot see whether what is in force now is still due to a watch of the test
before: so reading is tested where it is always in force (and once where it is not).

Both directories are on the file system of /tmp, or of ``place``.  Leaving a stage removes all of
it, also after a failure: mount, processes, files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from farwatch.linux.mounts import parse_mountinfo
from tests.conformance.client import Client, LocalClient
from tests.conformance.watcher import IN_READING, KEPT_DIRECTORY, SENTINEL_WATCH

PROJECT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
READING_SECONDS = 10.0
POLL_SECONDS = 0.002
STAGE_VARIABLE = "FARWATCH_TEST_STAGE"
"""Environment variable by which a stage knows the processes it has started."""


class StageError(AssertionError):
    """The thing under test did not start, or did not end, as it should."""


class Stage(ABC):
    """Two views of one directory, and a client that watches the second."""

    name: str
    paces: tuple[float, ...] = (0.003, 0.03, 0.3)
    """Pauses that keep two changes apart, seconds: where the machine is quiet, and busy."""
    tells_remote = True
    """Whether the client hears of what is done in ``acting``."""

    def __init__(self, *, reading: bool = False, place: str | Path = "/tmp") -> None:
        """Everything is made in a new directory in ``place``."""
        self._reading = reading
        self._keeper: Client | None = None
        self._home = Path(tempfile.mkdtemp(prefix="farwatch-test-", dir=place))
        self.acting = self._home / "src"
        self.outside = self._home / "out"
        self._client: Client | None = None
        self._sentinels = 0

    @property
    @abstractmethod
    def watching(self) -> str:
        """The watching directory as the client names it."""

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    def _make_client(self) -> Client:
        return LocalClient(self.watching, self.name)

    def _close_client(self, client: Client | None) -> None:
        if client is not None:
            client.close()

    def wait_for_reading(self, mask: int) -> None:
        """Return when the reading kinds in ``mask`` would be reported, or raise StageError."""

    def alive(self) -> bool:
        """Whether the stage can be used further."""
        return True

    def log(self) -> str:
        return ""

    def client(self) -> Client:
        """The watching program; started when first asked for, and kept."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def drop_client(self) -> None:
        """End the client; the next ``client()`` starts another."""
        self._close_client(self._client)
        self._client = None

    def sentinel(self) -> str:
        """Make a sentinel file in the acting directory and return its name."""
        name = self.sentinel_name()
        os.close(os.open(self.acting / SENTINEL_WATCH / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return name

    def sentinel_name(self) -> str:
        self._sentinels += 1
        return f"s{self._sentinels}"

    def settle(self) -> None:
        """Return when every change so far has been told: no watch placed now will hear of it."""
        client, name = self.client(), "settle"
        client.ask("start", base="")
        client.ask("group", group=name)
        client.wait_for_sentinel(self.sentinel(), [name])
        client.ask("stop")
        client.forget()

    def fresh(self) -> str:
        """A new empty directory in ``acting``, and one in ``outside``: their common name."""
        self._sentinels += 1
        name = f"t{self._sentinels}"
        (self.acting / name).mkdir()
        (self.outside / name).mkdir()
        return name

    def __enter__(self) -> Self:
        try:
            self.acting.mkdir()
            self.outside.mkdir()
            (self.acting / SENTINEL_WATCH).mkdir()
            (self.acting / KEPT_DIRECTORY).mkdir()
            self._start()
            if self._reading:
                self._keeper = self._make_client()
                self._keeper.ask("keep")
                self.wait_for_reading(IN_READING)
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()

    def _clean(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._home, ignore_errors=True)
            stack.callback(self._stop)
            stack.callback(self._close_client, self._client)
            stack.callback(self._close_client, self._keeper)


class NativeStage(Stage):
    """The specification: one directory of a local file system."""

    name = "native"

    @property
    def watching(self) -> str:
        return str(self.acting)

    def _start(self) -> None: ...

    def _stop(self) -> None: ...


def farwatch_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "farwatch", *arguments]


def farwatch_environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(PROJECT / "src"),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


class FarwatchStage(Stage):
    """``farwatch mount SRC MNT --daemon`` as root, on this machine."""

    name = "farwatch"

    def __init__(
        self, options: Sequence[str] = (), *, reading: bool = False, place: str | Path = "/tmp"
    ) -> None:
        super().__init__(reading=reading, place=place)
        self.mnt = self._home / "mnt"
        self._options = options
        self._log = self._home / "log"
        self._environment = farwatch_environment(**{STAGE_VARIABLE: str(self._home)})

    @property
    def shared(self) -> Path:
        """What is mounted."""
        return self.acting

    @property
    def watching(self) -> str:
        return str(self.mnt)

    def _start(self) -> None:
        self.mnt.mkdir()
        options = ["--daemon", "--log-file", str(self._log), *self._options]
        command = farwatch_command("mount", str(self.shared), str(self.mnt), *options)
        status = self._run(command, START_SECONDS)
        if status != 0:
            raise StageError(f"{' '.join(command)}: exit status {status}\n{self.log()}")

    def _stop(self) -> None:
        if not self._home.exists():
            return
        problems = []
        if self.alive():
            status = self._run(farwatch_command("unmount", str(self.mnt)), START_SECONDS)
            if status != 0:
                problems.append(f"farwatch unmount: exit status {status}")
        if is_mounted(self.mnt):
            problems.append("still mounted after unmount")
            abort(self.mnt, self._home / "control")
            subprocess.run(["umount", "-l", str(self.mnt)], check=False, capture_output=True)
        left = self._await_no_processes()
        if left:
            problems.append(f"processes left behind: {left}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if problems:
            raise StageError("; ".join(problems) + "\n" + self.log())

    def _run(self, command: list[str], seconds: float) -> int | str:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd="/",
            )
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                return f"none within {seconds:.0f} s"

    def _await_no_processes(self) -> list[int]:
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def processes(self) -> list[int]:
        """The processes of this mount, by the environment that they have inherited."""
        mark = f"{STAGE_VARIABLE}={self._home}".encode()
        return [pid for pid in all_processes() if mark in environment_of(pid)]

    def alive(self) -> bool:
        return is_mounted(self.mnt) and bool(self.processes())

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def source_mask(self) -> int:
        """The mask of the server's fanotify mark, 0 if there is none."""
        return max((mask for pid in self.processes() for mask in fanotify_masks(pid)), default=0)

    def wait_for_no_reading(self) -> None:
        """Return when no reading kind is asked of the source any more, or raise StageError."""
        deadline = time.monotonic() + READING_SECONDS
        while self.source_mask() & IN_READING:
            if time.monotonic() > deadline:
                now = f"the source's mask is still {self.source_mask():#x}"
                raise StageError(f"{now}; nobody wants reading kinds\n{self.log()}")
            time.sleep(POLL_SECONDS)

    def wait_for_reading(self, mask: int) -> None:
        deadline = time.monotonic() + READING_SECONDS
        while mask & ~self.source_mask():
            if time.monotonic() > deadline:
                now = f"the source's mask is {self.source_mask():#x}"
                raise StageError(f"{now}; a watch wants kinds {mask:#x}\n{self.log()}")
            time.sleep(POLL_SECONDS)


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def fanotify_masks(pid: int) -> Iterator[int]:
    """Masks of the superblock marks of a process's fanotify groups (proc_pid_fdinfo(5))."""
    directory = Path(f"/proc/{pid}/fdinfo")
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            with contextlib.suppress(OSError):
                text = (directory / entry).read_text()
                for found in re.finditer(
                    r"^fanotify sdev:\S+ mflags:\S+ mask:(\w+)", text, re.MULTILINE
                ):
                    yield int(found[1], 16)


def mounts() -> Mapping[str, int]:
    """Mount point → st_dev, from /proc/self/mountinfo."""
    entries = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    return {os.fsdecode(entry.mount_point): entry.device for entry in entries}


def is_mounted(path: Path) -> bool:
    return str(path) in mounts()


def abort(mount_point: Path, control: Path) -> None:
    """Make the kernel give up a FUSE connection whose server does not answer.

    ``control`` is a directory to mount fusectl on for that moment.
    """
    device = mounts().get(str(mount_point))
    if device is None:
        return
    control.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "fusectl", "none", str(control)], check=False, capture_output=True
    )
    with contextlib.suppress(OSError):
        (control / str(os.minor(device)) / "abort").write_text("1")
    subprocess.run(["umount", str(control)], check=False, capture_output=True)
