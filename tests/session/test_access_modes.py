"""How files were opened on the source's side (session/openmodes.py)."""

from __future__ import annotations

import os

from farwatch.events import Key, Mask, Place, Record
from farwatch.session.openmodes import OpenModes

DIRECTORY, FILE, THREAD = b"directory", b"file", 7


def record(mask: Mask, thread: int = THREAD) -> Record:
    return Record(int(mask), thread, Place(DIRECTORY, b"x"), FILE)


class Opener:
    """Gets its descriptor after it was asked for it some times."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.asked = 0

    def mode(self, thread: int, key: Key) -> int | None:
        self.asked += 1
        return os.O_WRONLY if self.asked > self.after else None


class Queue:
    """Gives what comes, one batch at a time."""

    def __init__(self, *batches: list[Record]) -> None:
        self.batches = list(batches)

    def read(self) -> list[Record]:
        return self.batches.pop(0) if self.batches else []


def test_who_has_it_open_is_asked() -> None:
    modes = OpenModes(Opener(after=0).mode)
    records = [record(Mask.OPEN)]
    assert modes.learn(records, Queue().read) == records
    assert modes.mode(THREAD, FILE) == os.O_WRONLY


def test_who_is_about_to_get_its_descriptor_is_asked_again() -> None:
    opener = Opener(after=4)
    modes = OpenModes(opener.mode)
    modes.learn([record(Mask.OPEN)], Queue().read)
    assert opener.asked == 5
    assert modes.mode(THREAD, FILE) == os.O_WRONLY


def test_nobody_is_waited_for_without_end() -> None:
    opener = Opener(after=1000)
    modes = OpenModes(opener.mode)
    modes.learn([record(Mask.OPEN)], Queue().read)
    assert opener.asked < 10


def test_a_close_that_is_read_with_it_says_it() -> None:
    opener = Opener(after=1000)
    modes = OpenModes(opener.mode)
    close = record(Mask.CLOSE_WRITE)
    assert modes.learn([record(Mask.OPEN)], Queue([], [close]).read)[-1] == close
    assert opener.asked == 1


def test_who_runs_a_program_is_not_asked() -> None:
    opener = Opener(after=0)
    modes = OpenModes(opener.mode)
    modes.learn([record(Mask.OPEN | Mask.OPEN_EXEC)], Queue().read)
    assert opener.asked == 0
    assert modes.mode(THREAD, FILE) == os.O_RDONLY


def test_without_a_name_nobody_is_asked() -> None:
    opener = Opener(after=0)
    modes = OpenModes(opener.mode)
    modes.learn([record(Mask.OPEN, thread=0)], Queue().read)
    assert opener.asked == 0
