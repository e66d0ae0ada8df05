"""One guest with two mounts at a time: the C virtiofsd's, and farwatch's with its agent."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import guest_inside, watcher
from bench.sides import Sides
from farwatch.cli.failure import Failure
from tests.guest import initramfs
from tests.guest.absent import NoGuest
from tests.guest.cpio import Archive
from tests.guest.machine import Machine, Share, require_programs
from tests.guest.programs import GuestSilent, Program
from tests.guest.virtiofsd import DaemonError, c_virtiofsd, farwatch_virtiofsd

SERIES = "6.12"
PYTHON = str(initramfs.PYTHON)
INSIDE = "/guest/bench/guest_inside.py"
WATCHER = "/guest/bench/watcher.py"
ANSWER_SECONDS = 300.0
"""For the slowest of what is asked: a `git status` of 5,000 files, many times over."""


class Worker:
    """The program in the guest that does what is measured."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.page: int = self._answer()["page"]
        """Guest physical address of the page that ``clock`` writes to."""

    def ask(self, act: str, path: str = "", count: int = 1) -> int:
        """Nanoseconds that it took.  Raises Failure if it could not be done."""
        self.begin(act, path, count)
        return self.end()

    def begin(self, act: str, path: str = "", count: int = 1) -> None:
        """Ask, and do not wait."""
        asked = json.dumps({"act": act, "path": path, "count": count})
        self._program.write(asked.encode() + b"\n")

    def end(self) -> int:
        """The answer to ``begin``."""
        nanoseconds: int = self._answer()["nanoseconds"]
        return nanoseconds

    def _answer(self) -> dict[str, Any]:
        line = self._program.line(ANSWER_SECONDS)
        if not line:
            raise Failure(f"the program in the guest says nothing: {self._program.errors()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failure(f"in the guest: {answer['failed']}")
        return answer


class Guest(NamedTuple):
    """A running guest."""

    machine: Machine
    worker: Worker
    outside: tuple[Path, Path]
    """The directories on the host: the C virtiofsd's, farwatch's."""
    inside: tuple[str, str]
    """The same in the guest."""


@contextmanager
def image() -> Iterator[initramfs.Image]:
    """The tests' guest, with git and the benchmark's programs.  Raises Failure."""
    with tempfile.TemporaryDirectory(prefix="farwatch-bench-") as place:
        try:
            require_programs()
            made = initramfs.image(SERIES, Path(place))
        except NoGuest as absent:
            raise Failure(f"no guest: {absent}") from None
        found = shutil.which("git", path="/usr/bin:/bin")
        if found is None:
            raise Failure("git is not here: apt-get install git")
        git = Path(found)
        # Archives may be joined: the kernel unpacks one after the other.
        with made.initramfs.open("ab") as file:
            archive = Archive(file)
            archive.copy(git.resolve(), "/usr/bin/git")
            for library in initramfs.libraries([git]):
                archive.copy(library.resolve(), str(library))
            archive.copy(Path(guest_inside.__file__), INSIDE)
            archive.copy(Path(watcher.__file__), WATCHER)
            archive.close()
        yield made


@contextmanager
def guest(made: initramfs.Image, sides: Sides, cache: str) -> Iterator[Guest]:
    """A guest that has a new directory of each side mounted.  Raises Failure.

    ``cache`` is one that both daemons have: "none" or "auto".
    """
    outside = sides.native.outside / cache, sides.farwatch.inside / cache
    for directory in outside:
        directory.mkdir()
    c = c_virtiofsd(outside[0], cache)
    command = [sys.executable, "-m", "farwatch", "virtiofsd", "--xattr", f"--cache={cache}"]
    farwatch = farwatch_virtiofsd(command, dict(os.environ), outside[1])
    with ExitStack() as stack:
        stack.callback(c.close)
        stack.callback(farwatch.close)
        try:
            machine = stack.enter_context(Machine(made, [Share("c", c), Share("far", farwatch)]))
            inside = "/mnt/c", "/mnt/farwatch"
            machine.mount("c", inside[0])
            machine.mount("far", inside[1])
            stack.enter_context(machine.start([PYTHON, initramfs.AGENT, inside[1]]))
            program = stack.enter_context(machine.start([PYTHON, INSIDE]))
            yield Guest(machine, Worker(program), outside, inside)
        except (GuestSilent, DaemonError) as error:
            raise Failure(f"the guest fails: {error}") from None
