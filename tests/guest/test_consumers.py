"""Programs in the guest that watch, unmodified: they say what they say natively.

Each change is followed by a new file, and the next is made when the program has told of that
file: so nothing waits together, at any speed of the guest.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import pytest

from tests.conformance.client import ANSWER_SECONDS
from tests.conformance.script import parse_script
from tests.conformance.watcher import Actor
from tests.guest.conftest import Guests
from tests.guest.initramfs import PROJECT
from tests.guest.stage import PYTHON, GuestStage
from tests.stage import NativeStage, Stage

pytestmark = [pytest.mark.root, pytest.mark.guest]

CHANGES = """
write d/new hello
append d/x more
chmod d/x 600
rename d/x d/moved
rename d/moved e/moved
rename e/moved d/back
mkdir d/sub
rmdir d/sub
symlink nowhere d/link
unlink d/link
link d/new d/second
unlink d/new
truncate d/second 2
utime d/second both
setxattr d/second user.key value
"""
INOTIFYWAIT = (
    *("inotifywait", "-m", "-e", "modify,attrib,close_write,move,create,delete"),
    *("--format", "%e %f"),
)
LISTENER = "tests/guest/inside/listener.py"


class Lines(Protocol):
    """A program's output, line by line."""

    def next_line(self) -> str: ...


class LocalLines:
    """Of a program on this machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._queue.put(line.rstrip("\n"))

    def next_line(self) -> str:
        try:
            return self._queue.get(timeout=ANSWER_SECONDS)
        except Empty:
            raise AssertionError("the program says nothing more") from None


class GuestLines:
    """Of a program in a guest."""

    def __init__(self, stage: GuestStage, argv: list[str]) -> None:
        self.program = stage.machine.start(argv)

    def next_line(self) -> str:
        line = self.program.line(ANSWER_SECONDS)
        assert line, f"the program says nothing more; {self.program.errors()}"
        return line.decode().rstrip("\n")


@contextmanager
def running(stage: Stage, argv: list[str]) -> Iterator[Lines]:
    if isinstance(stage, GuestStage):
        lines = GuestLines(stage, argv)
        with lines.program:
            yield lines
        return
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT
    )
    try:
        yield LocalLines(process)
    finally:
        process.kill()
        process.communicate()


def told(stage: Stage, program: list[str], ready: str) -> list[str]:
    """What ``program`` says of CHANGES in its directory d; identical neighbours folded."""
    base = stage.fresh()
    root: Path = stage.acting / base
    actor = Actor(str(root))
    for step in parse_script("mkdir d\nmkdir e\nwrite d/x hello"):
        actor.do(list(step.words))
    stage.settle()
    with running(stage, [*program, f"{stage.watching}/{base}/d"]) as lines:
        while ready not in lines.next_line():
            pass
        said: list[str] = []
        for number, step in enumerate(parse_script(CHANGES)):
            actor.do(list(step.words))
            said += until_file(lines, actor, f"mark{number}")
    return [line for index, line in enumerate(said) if index == 0 or line != said[index - 1]]


def until_file(lines: Lines, actor: Actor, name: str) -> Iterator[str]:
    """Make a file; what is said up to the last that is to be said of it."""
    actor.do(["mkfile", f"d/{name}"])
    of_it = 0
    while of_it < 2:  # CREATE, CLOSE_WRITE
        line = lines.next_line()
        of_it += line.endswith(name) and not line.startswith(("OPEN", "0x20 "))
        yield line


@pytest.mark.parametrize("series", ["6.12", pytest.param("6.1", marks=pytest.mark.long)])
def test_inotifywait(series: str, native: NativeStage, guests: Guests) -> None:
    program, ready = ["sh", "-c", 'exec "$@" 2>&1', "sh", *INOTIFYWAIT], "Watches established"
    stage = guests.stage(series)
    expected = told(native, program, ready)
    assert "MOVED_FROM x" in expected
    assert told(stage, program, ready) == expected


@pytest.mark.parametrize("series", ["6.12", pytest.param("6.1", marks=pytest.mark.long)])
def test_a_program_with_raw_inotify(series: str, native: NativeStage, guests: Guests) -> None:
    """It asks for all kinds, reading ones, too."""
    stage = guests.stage(series, reading=True)
    expected = told(native, [PYTHON, str(PROJECT / LISTENER)], "ready")
    assert "0x40 1 x" in expected
    assert "0x20 0 new" in expected
    assert told(stage, [PYTHON, f"/guest/{LISTENER}"], "ready") == expected
