"""A daemon that is killed with many requests under way, and what the next one does with them.

Of each request either the answer is known, or whoever asked is told EIO: it may have been
done, and is never done again.  The host meanwhile undoes what the dead daemon did, so that
doing it again would be seen.
"""

from __future__ import annotations

import errno
import os
import random
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from farwatch.transports.vhost.frontend import Pending
from tests.session import kernel as k
from tests.session.kernel import checked
from tests.virtiofsd.daemon import Area
from tests.virtiofsd.guest import Guest

pytestmark = pytest.mark.root

QUEUES = 5
"""One of them for what goes before all others."""
UNDER_WAY = 40
BLOCK = 4096
SECONDS = 20.0
LOST = frozenset((errno.EIO, errno.EBADF, errno.ESTALE))
"""What is answered where the daemon that knew the outcome, the file or the node is dead."""
FEW, MANY = 6, 150


class Asked(NamedTuple):
    """A request under way."""

    unique: int
    pending: Pending
    has_happened: Callable[[], bool]
    """By the disk."""
    undo: Callable[[], None]
    """The host's: makes the disk as it was before, with files of its own."""
    is_undone: Callable[[], bool]
    check: Callable[[bytes], None]
    """Of the payload, if it was answered at all."""


def nothing(*_: object) -> None:
    """For what changes nothing."""


class Load:
    """Requests of many kinds on all queues."""

    def __init__(self, area: Area, guest: Guest, chance: random.Random) -> None:
        self._src = area.src
        self._guest = guest
        self._chance = chance
        self._unique = 1 << 20
        self._made = 0
        self.under_way: list[Asked] = []
        self.answered = 0
        self.lost = 0
        self.undone = 0
        self._kinds = [
            self._mkdir,
            self._mknod,
            self._unlink,
            self._rename,
            self._read,
            self._write,
        ]
        self._content = chance.randbytes(8 * BLOCK)
        (self._src / "stable").write_bytes(self._content)
        (self._src / "written").write_bytes(bytes(BLOCK))

    def open(self) -> None:
        """What is needed of each daemon anew: nodes and open files."""
        self._stable = self._guest.lookup("stable").node
        self._stable_fh = self._guest.open(self._stable).fh
        self._written = self._guest.lookup("written").node
        self._written_fh = self._guest.open(self._written, os.O_RDWR).fh

    # Requests --------------------------------------------------------------------

    def _name(self) -> str:
        self._made += 1
        return f"n{self._made}"

    def _ask(
        self,
        opcode: int,
        node: int,
        body: bytes,
        has_happened: Callable[[], bool],
        undo: Callable[[], None] = nothing,
        is_undone: Callable[[], bool] = lambda: True,
        check: Callable[[bytes], None] = nothing,
    ) -> None:
        self._unique += 2
        data = k.request(opcode, node, body, unique=self._unique)
        queue = self._chance.randrange(1, QUEUES)
        pending = self._guest.frontend.submit(data, 2 * BLOCK, queue=queue)
        self.under_way.append(Asked(self._unique, pending, has_happened, undo, is_undone, check))

    def _mkdir(self) -> None:
        path = self._src / (name := self._name())
        body = struct.pack("<II", 0o755, 0) + name.encode() + b"\0"
        self._ask(k.MKDIR, 1, body, path.is_dir, path.rmdir, lambda: not path.exists())

    def _mknod(self) -> None:
        path = self._src / (name := self._name())
        body = struct.pack("<IIII", 0o100644, 0, 0, 0) + name.encode() + b"\0"
        self._ask(k.MKNOD, 1, body, path.exists, path.unlink, lambda: not path.exists())

    def _unlink(self) -> None:
        path = self._src / (name := self._name())
        path.write_text("old")
        self._ask(
            k.UNLINK, 1, name.encode() + b"\0",
            lambda: not path.exists(), lambda: new(path), lambda: is_new(path),
        )  # fmt: skip

    def _rename(self) -> None:
        path = self._src / (name := self._name())
        other = self._src / f"{name}-renamed"
        path.write_text("old")

        def undo() -> None:
            other.unlink()
            new(path)

        self._ask(
            k.RENAME, 1, struct.pack("<Q", 1) + f"{name}\0{name}-renamed\0".encode(),
            lambda: other.exists() and not path.exists(),
            undo, lambda: is_new(path) and not other.exists(),
        )  # fmt: skip

    def _read(self) -> None:
        at = self._chance.randrange(len(self._content))
        expected = self._content[at : at + BLOCK]

        def check(found: bytes) -> None:
            assert found == expected

        body = struct.pack("<QQIIQII", self._stable_fh, at, BLOCK, 0, 0, 0, 0)
        self._ask(k.READ, self._stable, body, lambda: True, check=check)

    def _write(self) -> None:
        """Each at a place of its own, and once."""
        self._made += 1
        at, data = self._made * BLOCK, self._chance.randbytes(BLOCK)
        path = self._src / "written"

        def read() -> bytes:
            with path.open("rb") as file:
                return os.pread(file.fileno(), BLOCK, at)

        def undo() -> None:
            with path.open("r+b") as file:
                os.pwrite(file.fileno(), bytes(BLOCK), at)

        body = struct.pack("<QQIIQII", self._written_fh, at, BLOCK, 0, 0, 0, 0) + data
        self._ask(
            k.WRITE, self._written, body,
            lambda: read() == data, undo, lambda: read() == bytes(BLOCK),
        )  # fmt: skip

    # Answers ---------------------------------------------------------------------

    def fill(self) -> None:
        """As many under way as are to be."""
        while len(self.under_way) < UNDER_WAY:
            self._chance.choice(self._kinds)()

    def take(self) -> None:
        """What has been answered, by a daemon to which nothing has happened."""
        for asked in list(self.under_way):
            answer = self._guest.frontend.poll(asked.pending)
            if answer is not None:
                number, payload = checked([answer], asked.unique)
                assert number == 0, os.strerror(number)
                asked.check(payload)
                assert asked.has_happened()
                self.under_way.remove(asked)
                self.answered += 1

    def undo(self) -> list[Asked]:
        """The host undoes all that was done and not answered."""
        done = [asked for asked in self.under_way if asked.has_happened()]
        for asked in done:
            asked.undo()
        return [asked for asked in done if asked.undo is not nothing]

    def settle(self, undone: list[Asked]) -> None:
        """All that is under way, by the next daemon."""
        for asked in self.under_way:
            answer = self._guest.frontend.wait(asked.pending, SECONDS)
            number, payload = checked([answer], asked.unique)
            if asked in undone:
                assert number in LOST, "it was done, and is not to be done again"
                assert asked.is_undone()
                self.undone += 1
            elif number == 0:
                # Nobody had taken it.
                asked.check(payload)
                assert asked.has_happened()
                self.answered += 1
            else:
                assert number in LOST, os.strerror(number)
                self.lost += 1
        self.under_way.clear()


def new(path: Path) -> None:
    path.write_text("made since")


def is_new(path: Path) -> bool:
    return path.read_text() == "made since"


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_killed_with_requests_under_way(area: Area, count: int) -> None:
    chance = random.Random(count)
    process = area.start()
    try:
        area.wait_for_socket(process)
        with area.guest(queues=QUEUES) as guest:
            guest.init()
            load = Load(area, guest, chance)
            for number in range(count):
                agent = guest.start_agent()
                parked = agent.submit_wait()
                load.open()
                end = threading.Timer(chance.uniform(0, 0.15), process.kill)
                end.start()
                while process.poll() is None:
                    load.fill()
                    load.take()
                end.join()
                # Answers that the dead one has given are there all the same.
                load.take()
                undone = load.undo()
                process = area.start()
                guest.go_on(area.connect(process))
                load.settle(undone)
                with pytest.raises(k.Refused, match=r"EINTR|EPERM"):
                    while True:
                        parked = agent.submit_wait(agent.waited(parked).number)
                agent = guest.start_agent()
                (area.src / f"told-{number}").touch()
                agent.hear_all([b"told-%d" % number])
        assert load.answered > count
        assert load.undone + load.lost > 0, "no request was in flight at any end"
        print(load.answered, load.lost, load.undone)  # noqa: T201
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in area.said()
