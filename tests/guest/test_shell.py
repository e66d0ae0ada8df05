"""``python -m tests.guest``: the shell in a guest, on a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.conftest import Images
from tests.stage import PROJECT, all_processes, environment_of, farwatch_environment

pytestmark = [pytest.mark.root, pytest.mark.guest]

SECONDS = 60.0
MARK = "FARWATCH_TEST_SHELL"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self._fd = fd
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> str:
        """Return what has been shown since the last time, when ``text`` is in it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r}; shown: {self.shown}"
            assert select.select([self._fd], [], [], left)[0], f"no {text!r}: {self.shown}"
            try:
                self.shown += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:  # EIO: nobody has the terminal open any more.
                raise AssertionError(f"it ended without {text!r}: {self.shown}") from None
        before, _, self.shown = self.shown.partition(text)
        return before


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.guest", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=PROJECT,
        env=farwatch_environment(**{MARK: str(os.getpid())}),
        start_new_session=True,
    )
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(ours)


def left_behind() -> list[int]:
    mark = f"{MARK}={os.getpid()}".encode()
    return [pid for pid in all_processes() if mark in environment_of(pid)]


@pytest.mark.long
@pytest.mark.parametrize(
    "leave", ["exit\r", *(pytest.param(x, marks=pytest.mark.long) for x in ("\x1d", "poweroff\r"))]
)
def test_a_person_plays_and_leaves(leave: str, images: Images, tmp_path: Path) -> None:
    images.of("6.12")
    with terminal(str(tmp_path)) as screen:
        screen.wait_for("Ctrl-]")
        screen.wait_for("guest:/mnt# ")
        # Quotes and $((…)), so that what is typed is not what is awaited.
        screen.type("inotifywait -m -e create --format 'he''ard %f' /mnt &\r")
        screen.wait_for("Watches established")
        (tmp_path / "from-the-host").touch()
        screen.wait_for("heard from-the-host")
        screen.type("touch $((6*7))\r")
        screen.wait_for("heard 42")
        assert (tmp_path / "42").exists()
        screen.type(leave)
        assert screen.process.wait(SECONDS) == 0
    assert left_behind() == []


@pytest.mark.long
def test_terminated_it_leaves_nothing(images: Images) -> None:
    images.of("6.12")
    with terminal() as screen:
        shared = screen.wait_for(" of this machine").rpartition(" is ")[2]
        screen.wait_for("guest:/mnt# ")
        assert Path(shared).is_dir()
    assert not Path(shared).exists()
    assert left_behind() == []


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with terminal(str(tmp_path / "none")) as screen:
        screen.wait_for("/none: no such directory")
        assert screen.process.wait(SECONDS) == 2
