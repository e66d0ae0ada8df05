"""SRC and MNT of an ordinary user's, and ``farwatch`` as that user."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounting.mounted import SECONDS, VARIABLE, Area
from tests.ordinary.user import GID, UID, as_user, environment, python

EAR = """
import sys
from pathlib import Path
from farwatch.events import Mask
from tests.mounting.mounted import Ear
mask = Mask.CREATE | Mask.DELETE | Mask.MODIFY | Mask.ATTRIB | Mask.MOVED_FROM | Mask.MOVED_TO
with Ear(Path(sys.argv[1]), mask) as ear:
    print("listening", flush=True)
    for line in sys.stdin:
        kind, _, name = line.rstrip("\\n").partition(" ")
        wanted = Mask[kind], name
        ear.hear_often(wanted)
        del ear.heard[: ear.heard.index(wanted) + 1]
        print("heard", flush=True)
"""
"""Hears, in the order in which it is asked, what happens in one directory of MNT."""


class OrdinaryArea(Area):
    """What is root's in Area is the user's here."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        for path in (home, self.src, self.mnt):
            os.chown(path, UID, GID)
        self.environment = environment(**{VARIABLE: str(home)})
        self.python = python()

    def command(self, *arguments: str | Path) -> list[str]:
        return as_user([self.python, "-m", "farwatch", *map(str, arguments)])

    def run_as_user(self, command: list[str], cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """A command of the user's, to its end."""
        return self.run_command(as_user(command), cwd)

    @contextmanager
    def listening(self, directory: Path) -> Iterator[Listener]:
        """A watch of the user's on a directory."""
        process = subprocess.Popen(
            as_user([self.python, "-c", EAR, str(directory)]),
            env=self.environment,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield Listener(process)
            finally:
                process.kill()


class Listener:
    """Somebody who watches; see EAR."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._expect("listening")

    def hear(self, kind: str, name: str) -> None:
        """Returns when an event has been heard; what is heard before counts for nothing."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {name}\n")
        self._process.stdin.flush()
        self._expect("heard")

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], SECONDS * 2)[0], f"never {word}"
        assert self._process.stdout.readline() == word + "\n"
