"""A directory that an InotifySource follows, as what a client knows of it is looked up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from farwatch.events import Key, Mask, Place, Record
from farwatch.export.noted import NotedExport
from farwatch.export.tree import Caller
from farwatch.sources.inotify import InotifySource


class Told(NamedTuple):
    """A record in a test's words: names in place of places, None for "."."""

    mask: Mask
    name: str | None
    own: bool = False
    new_name: str | None = None


class Followed:
    """``source`` and ``export`` on ``path``; every name is known that was looked up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = InotifySource.open()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.export = NotedExport(fd, self.source)
        self.root = self.export.root_key
        self.told: dict[Place, Key] = {}
        self.source.learn_from(lambda place: (self.told.get(place), True))
        self.ourselves = Caller(os.geteuid(), os.getegid(), 1)

    def close(self) -> None:
        self.export.close()
        self.source.close()

    def know(self, path: str) -> Key:
        """The client looks a path up, and knows everything along it from now on."""
        key = self.root
        for name in Path(path).parts:
            place = Place(key, os.fsencode(name))
            key = self.export.lookup(*place)[0]
            self.export.keep(key)
            self.told[place] = key
        return key

    def forget(self, key: Key) -> None:
        """The client does not know a node any more, nor what a directory's names hold."""
        inside = [held for place, held in self.told.items() if place.directory == key]
        self.export.let_go(key, inside)
        for place, held in list(self.told.items()):
            if key in (held, place.directory):
                del self.told[place]

    def records(self) -> list[Record]:
        """What the source tells, until it has nothing more."""
        found: list[Record] = []
        while more := self.source.read():
            found += more
        return found

    def heard(self) -> list[Told]:
        return [_in_words(record) for record in self.records()]


def _in_words(record: Record) -> Told:
    return Told(Mask(record.mask), _name(record.place), record.thread != 0, _name(record.new_place))


def _name(place: Place | None) -> str | None:
    if place is None or place.name == b".":
        return None
    return "elsewhere" if place.directory.endswith(b"elsewhere") else os.fsdecode(place.name)


@contextmanager
def following(path: Path) -> Iterator[Followed]:
    followed = Followed(path)
    try:
        yield followed
    finally:
        followed.close()
