"""A file of which somebody has a lease on SRC is opened on MNT: that waits, as on SRC."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounting.mounted import SECONDS, Area, wait_until

pytestmark = pytest.mark.root

_OPENER = r"""
import os, signal, sys
def handler(*_):
    raise InterruptedError(4, "a signal")
signal.signal(signal.SIGUSR1, handler)
print("ready", flush=True)
try:
    os.open(sys.argv[1], int(sys.argv[2]))
    print(0, flush=True)
except OSError as error:
    print(error.errno, flush=True)
"""


@contextmanager
def opener(path: Path, flags: int) -> Iterator[subprocess.Popen[str]]:
    """A process that opens a file, and then says 0 or the errno."""
    with subprocess.Popen(
        [sys.executable, "-Ic", _OPENER, str(path), str(flags)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


class Lease:
    """A lease of a file on SRC, and how often its holder was asked to give it up."""

    def __init__(self, path: Path, kind: int) -> None:
        self.asked = 0
        self._before = signal.signal(signal.SIGIO, self._ask)
        self.fd = os.open(path, os.O_RDONLY)
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, kind)

    def _ask(self, *_: object) -> None:
        self.asked += 1

    def give_up(self) -> None:
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def close(self) -> None:
        os.close(self.fd)
        signal.signal(signal.SIGIO, self._before)


@contextmanager
def lease(path: Path, kind: int = fcntl.F_RDLCK) -> Iterator[Lease]:
    made = Lease(path, kind)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def name(area: Area) -> Iterator[str]:
    (area.src / "leased").write_text("content")
    yield "leased"
    (area.src / "leased").unlink()


def test_an_open_waits_for_it(area: Area, name: str) -> None:
    with lease(area.src / name) as held, opener(area.mnt / name, os.O_WRONLY) as process:
        wait_until(lambda: held.asked, "the holder is asked")
        # Nobody else waits meanwhile.
        assert (area.mnt / name).read_text() == "content"
        assert process.poll() is None
        held.give_up()
        assert said(process) == 0


def test_what_does_not_conflict_does_not_wait(area: Area, name: str) -> None:
    with lease(area.src / name) as held, opener(area.mnt / name, os.O_RDONLY) as process:
        assert said(process) == 0
        assert not held.asked


def test_who_does_not_want_to_wait(area: Area, name: str) -> None:
    flags = os.O_WRONLY | os.O_NONBLOCK
    with lease(area.src / name) as held, opener(area.mnt / name, flags) as process:
        assert said(process) == errno.EAGAIN
        assert held.asked


def test_a_signal_ends_waiting(area: Area, name: str) -> None:
    with lease(area.src / name) as held:
        with opener(area.mnt / name, os.O_RDWR) as process:
            wait_until(lambda: held.asked, "the holder is asked")
            process.send_signal(signal.SIGUSR1)
            assert said(process) == errno.EINTR
        with opener(area.mnt / name, os.O_RDWR) as process:
            process.kill()
            process.wait(SECONDS)
        held.give_up()
