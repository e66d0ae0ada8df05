"""In a guest: what is read at an event is new, also by who has the file open or mapped.

Most changes leave the size as it was, and the host keeps the file open: nothing but the
MODIFY tells of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.absent import NoGuest
from tests.guest.conftest import do_without
from tests.guest.initramfs import image
from tests.guest.machine import Machine, Share
from tests.guest.programs import Program
from tests.guest.stage import AGENT, PYTHON
from tests.guest.virtiofsd import farwatch_virtiofsd
from tests.stage import farwatch_command, farwatch_environment

pytestmark = [pytest.mark.root, pytest.mark.guest]

READER = (PYTHON, "-m", "tests.guest.inside.reader")
MODES = ("never", "auto", "always", "metadata")
PAGE = 4096
ROOM = 4 * PAGE
ROUNDS = 25
SECONDS = 30.0
WAYS = "mvpoa"


class Guest:
    """One guest that has a directory of the host's once for each cache mode."""

    def __init__(self, machine: Machine, exports: dict[str, Path]) -> None:
        self.machine = machine
        self.exports = exports


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    try:
        made = image("6.12", tmp_path_factory.mktemp("image"))
    except NoGuest as absent:
        do_without(absent)
    with contextlib.ExitStack() as stack:
        exports, shares = {}, []
        for mode in MODES:
            exports[mode] = tmp_path_factory.mktemp(mode)
            command = farwatch_command("virtiofsd", "--cache", mode)
            daemon = farwatch_virtiofsd(command, farwatch_environment(), exports[mode])
            stack.callback(daemon.close)
            shares.append(Share(mode, daemon))
        machine = stack.enter_context(Machine(made, shares))
        for mode in MODES:
            machine.mount(mode, f"/{mode}")
            agent = stack.enter_context(machine.start([*AGENT, f"/{mode}"]))
            assert b"events are delivered" in line(agent)
        yield Guest(machine, exports)


def line(program: Program) -> bytes:
    found = program.line(SECONDS)
    assert found, program.errors()
    return found


class Writer:
    """The host's changes of a file, each with one system call that changes its content.

    ``held`` is the descriptor that stays open.  Nothing is cut to less than a byte.
    """

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self._chance = chance
        path.write_bytes(chance.randbytes(ROOM))
        self._held = os.open(path, os.O_RDWR)
        self.content = path.read_bytes()

    def close(self) -> None:
        os.close(self._held)

    def change(self, kind: str) -> bytes:
        """What the file holds after the change that ``apply`` will make."""
        size = len(self.content)
        self._cut: int | None = None
        at, length = 0, size
        match kind:
            case "whole":
                pass
            case "few bytes":
                length = min(16, size)
                at = self._chance.randrange(size - length + 1)
            case "part of a page":
                at = self._chance.randrange(size)
                length = min(self._chance.randrange(1, PAGE), size - at)
            case "across pages":
                at = min(PAGE - 100, size - 1)
                length = min(200, size - at)
            case "append":
                at, length = size, self._chance.randrange(1, PAGE)
                if size + length > ROOM:
                    at = size - length
            case "cut":
                self._cut = self._chance.randrange(1, size + 1)
            case "cut to a page":
                self._cut = PAGE
            case "extend":
                self._cut = self._chance.randrange(size, ROOM + 1)
            case _:
                raise ValueError(kind)
        if self._cut is not None:
            # The same size would be no change.
            if self._cut == size:
                self._cut = size - 1 if size > 1 else size + 1
            return self.content[: self._cut].ljust(self._cut, b"\0")
        self._at, self._data = at, self._chance.randbytes(length)
        return self.content[:at] + self._data + self.content[at + length :]

    def apply(self, expected: bytes, *, held: bool) -> None:
        fd = self._held if held else os.open(self.path, os.O_WRONLY)
        try:
            if self._cut is not None:
                os.ftruncate(fd, self._cut)
            else:
                os.pwrite(fd, self._data, self._at)
        finally:
            if not held:
                os.close(fd)
        self.content = self.path.read_bytes()
        assert self.content == expected


def found(content: bytes, ways: str) -> list[str]:
    """What a reader is to find, in the words of ``tests.guest.inside.reader``."""
    digest = hashlib.sha256(content).hexdigest()
    return [str(len(content)) if way == "a" else digest for way in ways]


KINDS = ("whole", "few bytes", "part of a page", "across pages")
KINDS_OF_SIZE = ("cut", "cut to a page", "extend", "append", "whole")


@pytest.mark.parametrize("busy", [False, True], ids=["", "while others read"])
@pytest.mark.parametrize("kinds", [KINDS, KINDS_OF_SIZE], ids=["content", "size"])
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=() if mode in ("auto", "never") else pytest.mark.long)
        for mode in MODES
    ],
)
def test_pages_are_new_at_an_event(
    guest: Guest, mode: str, kinds: tuple[str, ...], busy: bool
) -> None:
    chance = random.Random(f"{mode} {kinds} {busy}")
    name = f"{'size' if kinds is KINDS_OF_SIZE else 'content'}{busy:d}"
    writer = Writer(guest.exports[mode] / name, chance)
    argv = [*READER, f"/{mode}/{name}", str(ROOM), *(["busy"] if busy else [])]
    with contextlib.closing(writer), guest.machine.start(argv) as reader:
        assert line(reader).decode().split() == found(writer.content, WAYS)
        for number in range(ROUNDS):
            ways = "".join(chance.sample(WAYS, len(WAYS)))
            kind = chance.choice(kinds)
            expected = writer.change(kind)
            reader.write(f"{ways} {len(expected)}\n".encode())
            writer.apply(expected, held=chance.random() < 0.7)
            said = line(reader).decode().split()
            assert said == found(expected, ways), f"round {number}: {kind}, read by {ways}"
            assert line(reader) == b"\n"
