"""Which files others have open for writing, as far as opens and closes tell."""

from __future__ import annotations

import pytest

from farwatch.events import Key, Record
from farwatch.linux.writers import Held
from farwatch.session.writers import Writers
from farwatch.sources.openings import CLOSED, OPENED

FILE, OTHER = b"file", b"other"
A, B = 10, 11


class Host:
    """Processes, and how they have files open now; and who is told of files that are held."""

    def __init__(self) -> None:
        self.open: dict[tuple[int, Key], Held] = {}
        self.known: set[Key] = {FILE}
        self.held: list[Key] = []
        self.asked = 0
        self.writers = Writers(self._held_by, self.known.__contains__, self.held.extend)
        self.writers.start(())

    def _held_by(self, process: int, key: Key) -> Held:
        self.asked += 1
        return self.open.get((process, key), Held.NOT)

    def learn(self, mask: int, process: int = A, key: Key = FILE) -> bool:
        """One record; whether the file is held then."""
        self.writers.learn([Record(mask, process, None, key)])
        return self.writers.holds(key)


def test_before_it_has_started_any_file_may_be_held() -> None:
    writers = Writers(lambda process, key: Held.NOT, lambda key: True, lambda keys: None)
    assert writers.holds(FILE)
    writers.start([(A, OTHER)])
    assert (writers.holds(FILE), writers.holds(OTHER)) == (False, True)
    writers.forget()
    assert writers.holds(FILE)


def test_opened_for_writing_and_closed() -> None:
    host = Host()
    host.open[A, FILE] = Held.WRITING
    assert host.learn(OPENED)
    assert host.held == [FILE]
    del host.open[A, FILE]
    assert not host.learn(CLOSED)


def test_opened_for_reading() -> None:
    host = Host()
    host.open[A, FILE] = Held.READING
    assert not host.learn(OPENED)
    assert host.held == []


def test_opened_and_handed_on() -> None:
    """Whoever has opened it has it not: somebody else does, until it is closed."""
    host = Host()
    assert host.learn(OPENED)
    assert not host.learn(CLOSED, B)


@pytest.mark.parametrize("left", [Held.NOT, Held.READING, Held.WRITING])
def test_opened_and_closed_between_two_readings(left: Held) -> None:
    """Once, or twice and closed once: then it is open still."""
    host = Host()
    host.open[A, FILE] = left
    assert host.learn(OPENED | CLOSED) is (left is Held.WRITING)


def test_two_that_have_it_open() -> None:
    host = Host()
    host.open[A, FILE] = host.open[B, FILE] = Held.WRITING
    host.learn(OPENED, A)
    host.learn(OPENED, B)
    assert host.held == [FILE]
    del host.open[A, FILE]
    assert host.learn(CLOSED, A)
    del host.open[B, FILE]
    assert not host.learn(CLOSED, B)


def test_of_files_that_no_client_knows_little_is_asked() -> None:
    host = Host()
    assert not host.learn(OPENED | CLOSED, key=OTHER)
    assert host.learn(OPENED, key=OTHER)
    assert host.asked == 0
    assert not host.learn(CLOSED, key=OTHER)
