"""Works in a directory that others work in at the same time, and keeps a record of it.

    python3 -m tests.guest.inside.worker DIRECTORY SEED

Standard library only.  The first letter of a name says whose it is:

    g, k   this program's; of the ks, which are never touched again, each is printed when made
    h      the host's; with a number behind it, the file is complete before it has the name
    s      anybody's

At the end of its input it prints one line of JSON: what it has left under its own names (name,
digest of the content, "" for a directory), and what went wrong.  Without a seed it prints the
digests of all that is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import select
import sys
from collections.abc import Callable

FILES = 8
DIRECTORIES = 3
SIZE = 2000
OVERWRITTEN = 5000
HARMLESS = frozenset((errno.ENOENT, errno.EEXIST, errno.ESTALE))
"""What can happen to a name that somebody else uses at the same moment."""


def content(chance: random.Random, size: int = SIZE) -> bytes:
    """Bytes that tell whether they are whole."""
    data = chance.randbytes(chance.randrange(size))
    return hashlib.sha256(data).hexdigest().encode() + data


def is_whole(data: bytes) -> bool:
    """Whether this is all that ``content`` has returned."""
    return data[:64] == hashlib.sha256(data[64:]).hexdigest().encode()


def digest(path: str) -> str:
    """Of a file's content; "" for a directory."""
    if os.path.isdir(path):
        return ""
    with open(path, "rb", buffering=0) as file:
        return hashlib.sha256(file.read()).hexdigest()


def digests(directory: str) -> dict[str, str]:
    """Of all that is in a directory."""
    return {name: digest(os.path.join(directory, name)) for name in os.listdir(directory)}


def make(path: str, data: bytes) -> None:
    """A file that was not there."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


class Worker:
    """One program's names in a directory; ``left`` is what it knows to be there.

    ``letter`` begins its names; ``kept``, if it is given, those that are made once and for all.
    """

    def __init__(self, directory: str, letter: str, chance: random.Random, kept: str = "") -> None:
        self.left: dict[str, str] = {}
        self.wrong: list[str] = []
        self._directory = directory
        self._letter = letter
        self._kept = kept
        self._chance = chance
        self._made = 0
        self._acts: list[Callable[[], None]] = [
            *(self._replace, self._replace, self._remove, self._rename, self._overwrite),
            *(self._come_and_go, self._come_and_go, self._directories),
            *(self._shared, self._shared, self._look, self._look),
        ]
        if kept:
            self._acts.append(self._keep)

    def act(self) -> None:
        """One of the things that it does."""
        act = self._chance.choice(self._acts)
        try:
            act()
        except OSError as error:
            self.wrong.append(f"{act.__name__}: {error}")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _name(self) -> str:
        return f"{self._letter}{self._chance.randrange(FILES)}"

    def _replace(self) -> None:
        """A new file in the place of an old one, or of none."""
        name, new = self._name(), f"{self._letter}new{self._made}"
        self._made += 1
        data = content(self._chance)
        make(self._path(new), data)
        os.rename(self._path(new), self._path(name))
        self.left[name] = hashlib.sha256(data).hexdigest()

    def _remove(self) -> None:
        name = self._name()
        if name in self.left:
            os.unlink(self._path(name))
            del self.left[name]

    def _come_and_go(self) -> None:
        """One name again and again, each time with another file."""
        name = f"{self._letter}again{self._chance.randrange(2)}"
        if name in self.left:
            os.unlink(self._path(name))
            del self.left[name]
        else:
            data = content(self._chance)
            make(self._path(name), data)
            self.left[name] = hashlib.sha256(data).hexdigest()

    def _overwrite(self) -> None:
        """The same file, as long as before: nothing but its times tells."""
        name = f"{self._letter}over{self._chance.randrange(2)}"
        data = self._chance.randbytes(OVERWRITTEN)
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, data, 0)
        finally:
            os.close(fd)
        self.left[name] = hashlib.sha256(data).hexdigest()

    def _rename(self) -> None:
        old, new = self._name(), self._name()
        if old in self.left and old != new:
            os.rename(self._path(old), self._path(new))
            self.left[new] = self.left.pop(old)

    def _directories(self) -> None:
        name = f"{self._letter}dir{self._chance.randrange(DIRECTORIES)}"
        if name in self.left:
            os.rmdir(self._path(name))
            del self.left[name]
        else:
            os.mkdir(self._path(name))
            self.left[name] = ""

    def _shared(self) -> None:
        """What everybody does to the same names; who comes first is anybody's guess."""
        name, other = (self._path(f"s{self._chance.randrange(4)}") for _ in range(2))
        try:
            match self._chance.randrange(4):
                case 0:
                    os.unlink(name)
                case 1:
                    os.rename(name, other)
                case _:
                    make(name, b"shared")
        except OSError as error:
            if error.errno not in HARMLESS:
                raise

    def _look(self) -> None:
        """What is under a name that the host replaces is whole, whichever it is."""
        name = f"h{self._chance.randrange(FILES)}"
        try:
            with open(self._path(name), "rb", buffering=0) as file:
                data = file.read()
        except OSError as error:
            if error.errno not in HARMLESS:
                raise
            return
        if self._letter != "h" and not is_whole(data):
            end = len(data.rstrip(b"\0"))
            self.wrong.append(
                f"{name}: {len(data)} bytes that are not a whole file, zeros from {end};"
                f" begins {data[:16]!r}"
            )

    def _keep(self) -> None:
        name = f"{self._kept}{self._made}"
        self._made += 1
        data = content(self._chance)
        make(self._path(name), data)
        self.left[name] = hashlib.sha256(data).hexdigest()
        print("kept", name, self.left[name], flush=True)  # noqa: T201


def main(directory: str, seed: str = "") -> None:
    """Work until the end of standard input; without a seed only look."""
    if not seed:
        print(json.dumps(digests(directory)))  # noqa: T201
        return
    worker = Worker(directory, "g", random.Random(seed), f"k{seed}-")
    for name in os.listdir(directory):
        # Of one that was killed before it could rename it.
        if name.startswith("gnew"):
            os.unlink(os.path.join(directory, name))
    worker.left = {name: told for name, told in digests(directory).items() if name[0] in "gk"}
    print("works", flush=True)  # noqa: T201
    while not select.select([0], [], [], 0)[0]:
        worker.act()
    print(json.dumps({"left": worker.left, "wrong": worker.wrong}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
