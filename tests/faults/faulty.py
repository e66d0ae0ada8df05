"""A mount whose parts are frozen and killed, and a watcher whose story is checked."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farwatch.abi.inotify import parse
from farwatch.events import Mask
from farwatch.linux.inotify import Inotify
from tests.faults import launcher
from tests.mounting.mounted import SECONDS, Area, wait_until

KINDS = (
    Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
    | Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB
)  # fmt: skip
MANY = 17_000
"""More events than a queue takes by default (fs.fanotify.max_queued_events: 16384)."""


class FaultyArea(Area):
    """An area where a mount can be started with queues that are soon full."""

    @contextmanager
    def faulty(self, source: str = "unlimited", replays: int = 1 << 16) -> Iterator[int]:
        """The supervisor's process id; its standard error is ``said()``."""
        command = [
            sys.executable, launcher.__file__, source, str(replays),
            "mount", str(self.src), str(self.mnt),
        ]  # fmt: skip
        with self.mounted_by(command) as process:
            yield process.pid
            process.terminate()
            assert process.wait(SECONDS) == 0, self.said()
            self.assert_nothing_left()

    def server(self, supervisor: int) -> int:
        (server,) = self.servers(supervisor)
        return server

    def agent(self) -> int:
        wait_until(lambda: len(self.agents()) == 1, "an agent")
        return self.agents()[0]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process does not run meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) == "T", "that it stops")
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Listener:
    """Watches a directory, and keeps what its names are by what is heard.

    It believes what a program believes that has listed the directory once.  A word that
    cannot be true after those before it (CREATE of what is there, DELETE of what is not) is
    in ``impossible``, with what was heard just before it.
    """

    def __init__(self, path: Path) -> None:
        self._inotify = Inotify()
        self._inotify.add(path, KINDS)
        self._buffer = bytearray(1 << 20)
        self.names = set(os.listdir(path))
        self.heard: list[tuple[Mask, str]] = []
        self.impossible: list[list[tuple[Mask, str]]] = []

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def hear(self, seconds: float = 0.0) -> bool:
        """Whether anything was heard in this time."""
        if not select.select([self._inotify.fileno()], [], [], seconds)[0]:
            return False
        size = self._inotify.read(self._buffer)
        for event in parse(bytes(self._buffer[:size])):
            self._take(Mask(event.mask), os.fsdecode(event.name))
        return True

    def _take(self, mask: Mask, name: str) -> None:
        self.heard.append((mask, name))
        assert not mask & Mask.Q_OVERFLOW, "the watcher's own queue is full"
        comes = bool(mask & (Mask.CREATE | Mask.MOVED_TO))
        if comes and name in self.names and mask & Mask.CREATE:
            self.impossible.append(self.heard[-12:])
        if comes:
            self.names.add(name)
        elif mask & (Mask.DELETE | Mask.MOVED_FROM):
            if name not in self.names:
                self.impossible.append(self.heard[-12:])
            self.names.discard(name)

    def hear_until(self, names: set[str]) -> None:
        """Returns when it believes that just these names are there."""
        deadline = time.monotonic() + SECONDS * 3
        while self.names != names:
            left = deadline - time.monotonic()
            wrong = sorted(self.names ^ names)[:20]
            assert left > 0, f"still believes otherwise of {wrong}; heard {self.heard[-20:]}"
            self.hear(left)

    def hear_of(self, kind: Mask, name: str) -> None:
        """Returns when this was heard."""
        deadline = time.monotonic() + SECONDS * 3
        while not any(mask & kind and each == name for mask, each in self.heard):
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind!r} of {name}; heard {self.heard[-20:]}"
            self.hear(left)

    def told(self, name: str) -> list[Mask]:
        return [mask for mask, each in self.heard if each == name]


def known_to_the_server(area: FaultyArea, listener: Listener) -> None:
    """The watch has been found and its directory listed: what is made is heard, and quiet."""
    for number in range(3):
        probe = area.src / f"probe{number}"
        probe.touch()
        listener.hear_of(Mask.CREATE, probe.name)
        probe.unlink()
        listener.hear_of(Mask.DELETE, probe.name)
        time.sleep(0.5)
