"""What the watchers know: listed once, and kept right by what is told and done."""

from __future__ import annotations

import pytest

from farwatch.events import Change, Key, Kind, Place
from farwatch.session.known import Known
from farwatch.session.stamps import CONTENT, METADATA, Entry, Stamp

D, F, G = b"D", b"F", b"G"
STAMP = Stamp(1, 1, 3, 0o100644, 0, 0, 1).packed()


def at(name: str, directory: Key = D) -> Place:
    return Place(directory, name.encode())


def names(known: Known, directory: Key = D) -> dict[str, Key]:
    return {name.decode(): entry.key for name, entry in known.directories[directory].items()}


@pytest.fixture
def known() -> Known:
    """D is watched, and has f."""
    made = Known()
    made.watch({D: True})
    assert made.begin() == (D, True)
    assert made.took(D, STAMP, {b"f": Entry(F, is_dir=False, stamp=STAMP)})
    made.confirm(1)
    return made


def test_what_is_watched_is_to_be_looked_at_once(known: Known) -> None:
    assert not known.is_wanting
    known.watch({D: True})
    assert not known.is_wanting
    known.watch({D: True, F: False})
    assert known.begin() == (F, False)
    assert known.begin() is None


def test_what_is_not_watched_any_more_is_forgotten(known: Known) -> None:
    known.watch({})
    assert (known.directories, known.nodes, known.is_used) == ({}, {}, False)


def test_it_follows_what_is_told(known: Known) -> None:
    known.follow(
        [
            Change(Kind.CREATE, at("g"), G),
            Change(Kind.RENAME, at("f"), F, new_place=at("x")),
            Change(Kind.EXCHANGE, at("g"), G, new_place=at("x"), other=F),
        ]
    )
    assert names(known) == {"g": F, "x": G}
    known.follow([Change(Kind.DELETE, at("g"), F), Change(Kind.RENAME, at("x"), G)])
    assert names(known) == {}


def test_the_end_of_something_else_is_not_the_end_of_a_name(known: Known) -> None:
    known.follow([Change(Kind.DELETE, at("f"), G), Change(Kind.RENAME, at("f"), G)])
    assert names(known) == {"f": F}


def test_what_is_told_while_it_is_listed(known: Known) -> None:
    """Whatever of it the listing has seen already, in the end it is right."""
    known.watch({D: True, b"E": True})
    assert known.begin() == (b"E", True)
    known.follow(
        [
            Change(Kind.CREATE, at("a", b"E"), b"1"),
            Change(Kind.RENAME, at("a", b"E"), b"1", new_place=at("b", b"E")),
            Change(Kind.CREATE, at("c", b"E"), b"2"),
            Change(Kind.DELETE, at("c", b"E"), b"2"),
        ]
    )
    known.freed(at("d", b"E"))
    listed = {b"a": b"1", b"c": b"2", b"d": b"3", b"e": b"4"}
    known.took(b"E", STAMP, {name: Entry(key, False, STAMP) for name, key in listed.items()})
    assert names(known, b"E") == {"b": b"1", "e": b"4"}


def test_a_name_that_is_freed_while_it_is_listed_and_was_not_seen(known: Known) -> None:
    known.watch({b"E": True})
    known.begin()
    known.moved(at("a", b"E"), at("b", b"E"), Entry(b"1", is_dir=False))
    known.took(b"E", STAMP, {})
    assert names(known, b"E") == {"b": b"1"}


def test_stamps(known: Known) -> None:
    """A change makes one stale; what is looked at counts when nothing was lost until then."""
    known.touched(at("f"), F)
    assert known.directories[D][b"f"].stamp == b""
    assert known.take_stale(10) == ([(at("f"), F)], [])
    assert known.stale == 0
    known.looked([(at("f"), Entry(F, is_dir=False, stamp=b"new"))], [])
    assert known.directories[D][b"f"].stamp == b""
    known.confirm(2)
    assert known.directories[D][b"f"].stamp == b"new"
    assert known.since == 2


def test_a_stamp_that_was_looked_at_too_early(known: Known) -> None:
    known.touched(at("f"), F)
    known.take_stale(10)
    known.looked([(at("f"), Entry(F, is_dir=False, stamp=b"new"))], [])
    known.touched(at("f"), F)
    known.confirm(2)
    assert known.directories[D][b"f"].stamp == b""
    assert known.stale == 1


def test_a_stamp_that_nobody_can_confirm(known: Known) -> None:
    known.touched(at("f"), F)
    known.take_stale(10)
    known.looked([(at("f"), Entry(F, is_dir=False, stamp=b"new"))], [])
    known.lose()
    known.confirm(2)
    assert known.directories[D][b"f"].stamp == b""


def test_what_was_listed_and_nobody_can_confirm_is_listed_again(known: Known) -> None:
    known.watch({D: True, b"E": True})
    known.begin()
    known.took(b"E", STAMP, {})
    known.lose()
    assert b"E" not in known.directories
    assert D in known.directories
    assert known.begin() == (b"E", True)


def test_there_is_an_end_to_names(known: Known) -> None:
    small = Known(most=3)
    small.watch({D: True, b"E": True})
    four = {b"%d" % number: Entry(b"%d" % number, is_dir=False) for number in range(4)}
    small.begin()
    assert not small.took(D, STAMP, four)
    small.begin()
    assert small.took(b"E", STAMP, dict(list(four.items())[:3]))
    assert list(small.directories) == [b"E"]
    assert D in small.nodes


def test_taking_back(known: Known) -> None:
    """What was told last was dropped: from the last to the first."""
    known.follow([Change(Kind.RENAME, at("f"), F, new_place=at("g"))])
    known.follow([Change(Kind.CREATE, at("f"), G)])
    known.restore(at("f"), None)
    known.restore(at("g"), None)
    known.restore(at("f"), Entry(F, is_dir=False))
    assert names(known) == {"f": F}
    known.differs(at("f"), F, METADATA)
    assert known.directories[D][b"f"].stamp == METADATA
    known.differs(at("f"), F, CONTENT)
    known.differs(at("f"), F, METADATA)
    assert known.directories[D][b"f"].stamp == CONTENT
    known.restore(at("x", b"E"), None)
    assert list(known.suspects) == [at("x", b"E")]
