"""Whatever became of the names: what is told leads from what was known to what is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.events import Change, Kind, Place
from farwatch.session.differences import SLACK, Differences
from farwatch.session.stamps import CONTENT, METADATA, Entry, Stamp
from tests.session.upkeeping import structure, words

FILE, DIRECTORY, LINK = 0o100644, 0o40755, 0o120777
OLD = 1_000_000_000
SINCE = 5_000_000_000
D, E = b"D", b"E"


def stamped(
    mode: int = FILE,
    *,
    mtime: int = OLD,
    ctime: int = OLD,
    size: int = 0,
    nlink: int = 1,
    uid: int = 0,
) -> Stamp:
    return Stamp(mtime, ctime, size, mode, uid, 0, nlink)


def entry(key: bytes, status: Stamp | None = None) -> Entry:
    status = status or stamped()
    return Entry(key, status.mode == DIRECTORY, status.packed())


def at(name: str, directory: bytes = D) -> Place:
    return Place(directory, name.encode())


def told(
    old: Mapping[Place, Entry],
    new: Mapping[Place, Entry],
    alive: Mapping[bytes, Stamp] | None = None,
) -> list[Change]:
    return Differences(old, new, SINCE, (alive or {}).get).changes()


# Names -------------------------------------------------------------------------------


def test_nothing_has_changed() -> None:
    same = {at("a"): entry(b"1"), at("d"): entry(b"2", stamped(DIRECTORY))}
    assert told(same, same) == []


def test_a_new_file_was_written() -> None:
    changes = told({}, {at("a"): entry(b"1", stamped(size=3)), at("b"): entry(b"2")})
    assert words(changes) == [
        "CREATE a",
        "MODIFY a",
        "CLOSE_WRITE a",
        "CREATE b",
        "CLOSE_WRITE b",
    ]


def test_what_is_new_and_no_file_was_not_written() -> None:
    new = {at("d"): entry(b"1", stamped(DIRECTORY)), at("l"): entry(b"2", stamped(LINK, size=4))}
    assert words(told({}, new)) == ["CREATE d", "CREATE l"]
    assert told({}, new)[0].is_dir


def test_a_file_is_gone_with_its_inode() -> None:
    changes = told({at("a"): entry(b"1")}, {})
    assert words(changes) == ["DELETE a", "DEATH"]
    assert changes[1].linked


def test_a_file_is_gone_and_somebody_has_it_open() -> None:
    assert words(told({at("a"): entry(b"1")}, {}, {b"1": stamped(nlink=0)})) == ["DELETE a"]


def test_a_file_is_gone_to_where_nobody_looks() -> None:
    (change,) = told({at("a"): entry(b"1")}, {}, {b"1": stamped(nlink=1)})
    assert (change.kind, change.place, change.new_place) == (Kind.RENAME, at("a"), None)


def test_one_of_two_links_is_gone() -> None:
    old = {at("a"): entry(b"1", stamped(nlink=2)), at("b"): entry(b"1", stamped(nlink=2))}
    new = {at("b"): entry(b"1", stamped(nlink=1, ctime=SINCE))}
    assert words(told(old, new, {b"1": stamped(nlink=1)})) == ["DELETE a"]


def test_a_further_link() -> None:
    old = {at("a"): entry(b"1")}
    twice = stamped(nlink=2, ctime=SINCE)
    (change,) = told(old, {at("a"): entry(b"1", twice), at("b"): entry(b"1", twice)})
    assert (change.kind, change.place, change.linked) == (Kind.CREATE, at("b"), True)


def test_a_new_file_with_two_names() -> None:
    twice = stamped(nlink=2)
    changes = structure(told({}, {at("a"): entry(b"1", twice), at("b"): entry(b"1", twice)}))
    assert [change.linked for change in changes] == [False, True]


def test_a_rename_across_directories() -> None:
    (change,) = told({at("a"): entry(b"1")}, {at("b", E): entry(b"1", stamped(ctime=SINCE))})
    assert (change.kind, change.place, change.new_place) == (Kind.RENAME, at("a"), at("b", E))


def test_a_renamed_file_was_also_written() -> None:
    new = {at("b"): entry(b"1", stamped(mtime=SINCE, ctime=SINCE, size=1))}
    assert words(told({at("a"): entry(b"1")}, new)) == ["RENAME a b", "MODIFY b", "CLOSE_WRITE b"]


def test_a_replaced_file_goes_before_what_replaces_it() -> None:
    old = {at("a"): entry(b"1"), at("b"): entry(b"2")}
    new = {at("b"): entry(b"1")}
    assert words(told(old, new)) == ["DELETE b", "DEATH", "RENAME a b"]


def test_made_anew() -> None:
    changes = told({at("a"): entry(b"1")}, {at("a"): entry(b"2")})
    assert words(changes) == ["DELETE a", "DEATH", "CREATE a", "CLOSE_WRITE a"]


def test_names_that_swapped() -> None:
    old = {at("a"): entry(b"1"), at("b"): entry(b"2")}
    new = {at("a"): entry(b"2"), at("b"): entry(b"1")}
    (change,) = told(old, new)
    assert change.kind is Kind.EXCHANGE
    assert {change.place: change.node, change.new_place: change.other} == {
        place: each.key for place, each in old.items()
    }


def test_names_that_went_round() -> None:
    old = {at(name): entry(name.encode()) for name in "abc"}
    new = {at("a"): entry(b"c"), at("b"): entry(b"a"), at("c"): entry(b"b")}
    changes = told(old, new)
    assert [change.kind for change in changes] == [Kind.RENAME] * 4
    assert applied(old, changes) == holders(new)


def test_a_log_is_rotated() -> None:
    """Each name is freed before it is taken."""
    old = {at(f"log.{number}"): entry(b"%d" % number) for number in range(50)}
    new = {at(f"log.{number + 1}"): entry(b"%d" % number) for number in range(50)}
    changes = told(old, new)
    assert len(changes) == 50
    assert applied(old, changes) == holders(new)


def test_a_directory_is_gone_with_all_that_was_in_it() -> None:
    old = {
        at("e"): entry(E, stamped(DIRECTORY)),
        at("x", E): entry(b"1"),
        at("y", E): entry(b"2"),
    }
    changes = told(old, {at("y"): entry(b"2")})
    assert words(structure(changes))[-1] == "DELETE e"
    assert sorted(words(structure(changes))) == ["DELETE e", "DELETE x", "RENAME y y"]


def test_a_file_takes_the_name_of_the_directory_it_was_in() -> None:
    old = {at("e"): entry(E, stamped(DIRECTORY)), at("x", E): entry(b"1")}
    new = {at("e"): entry(b"1")}
    changes = structure(told(old, new))
    assert applied(old, changes) == holders(new)


# Content -----------------------------------------------------------------------------

SAME = stamped(size=3)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (SAME, []),
        (SAME._replace(mtime=SINCE, ctime=SINCE), ["MODIFY a", "CLOSE_WRITE a"]),
        (SAME._replace(size=4), ["MODIFY a", "CLOSE_WRITE a"]),
        (SAME._replace(mode=0o100600, ctime=SINCE), ["ATTRIB a"]),
        (SAME._replace(uid=7), ["ATTRIB a"]),
        (SAME._replace(ctime=SINCE), ["ATTRIB a"]),
        (SAME._replace(ctime=SINCE, nlink=2), []),
        (
            SAME._replace(mode=0o100600, mtime=SINCE),
            ["ATTRIB a", "MODIFY a", "CLOSE_WRITE a"],
        ),
    ],
)
def test_what_became_of_a_file(now: Stamp, expected: list[str]) -> None:
    assert words(told({at("a"): entry(b"1", SAME)}, {at("a"): entry(b"1", now)})) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (stamped(DIRECTORY), []),
        (stamped(DIRECTORY, mtime=SINCE, ctime=SINCE, size=9, nlink=7), []),
        (stamped(DIRECTORY, uid=7), ["ATTRIB"]),
    ],
)
def test_what_became_of_a_directory(now: Stamp, expected: list[str]) -> None:
    """That names changed in it is told by the names."""
    old = {at("e"): entry(E, stamped(DIRECTORY))}
    assert words(told(old, {at("e"): entry(E, now)})) == expected


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (b"", stamped(ctime=SINCE - SLACK - 1), []),
        (b"", stamped(ctime=SINCE - SLACK), ["ATTRIB a"]),
        (b"", stamped(ctime=SINCE, mtime=SINCE), ["MODIFY a", "CLOSE_WRITE a"]),
        (CONTENT, stamped(), ["MODIFY a", "CLOSE_WRITE a"]),
        (METADATA, stamped(), ["ATTRIB a"]),
    ],
)
def test_what_is_told_where_no_stamp_is_known(
    before: bytes, now: Stamp, expected: list[str]
) -> None:
    old = {at("a"): Entry(b"1", is_dir=False, stamp=before)}
    assert words(told(old, {at("a"): entry(b"1", now)})) == expected


# Any -----------------------------------------------------------------------------------


def holders(names: Mapping[Place, Entry]) -> dict[Place, bytes]:
    return {place: each.key for place, each in names.items()}


def applied(old: Mapping[Place, Entry], changes: list[Change]) -> dict[Place, bytes]:
    """What names hold after these changes; AssertionError if they cannot have happened."""
    names = holders(old)
    away: set[bytes] = set()

    def leave(place: Place | None, key: bytes | None) -> None:
        if place is not None:
            assert names.get(place) == key
            del names[place]

    def come(place: Place | None, key: bytes | None) -> None:
        if place is not None:
            assert place not in names
            assert key is not None
            names[place] = key

    for change in structure(changes):
        key = change.node
        if change.kind is Kind.EXCHANGE:
            leave(change.place, key)
            leave(change.new_place, change.other)
            come(change.place, change.other)
            come(change.new_place, key)
            continue
        if change.kind is Kind.CREATE:
            come(change.place, key)
            continue
        if change.kind is Kind.DELETE:
            assert not any(place.directory == key for place in names), "it is not empty"
        if change.place is not None:
            leave(change.place, key)
        else:
            assert key in away, "it comes from nowhere"
        if change.kind is Kind.RENAME:
            come(change.new_place, key)
            if change.new_place is None and key is not None:
                away.add(key)
    return names


KEYS = [b"1", b"2", b"3", b"4", D, E]
PLACES = [Place(directory, name) for directory in (b"R", D, E) for name in (b"a", b"b", b"c")]


@st.composite
def trees(draw: st.DrawFn) -> dict[Place, Entry]:
    """Names and what they hold; each directory has one, and none is in itself."""
    found: dict[Place, Entry] = {}
    directories = set()
    for place in PLACES:
        key = draw(st.sampled_from([None, *KEYS]))
        if key is None or key in directories or key == place.directory:
            continue
        if key in (D, E):
            directories.add(key)
        found[place] = entry(key, stamped(DIRECTORY if key in (D, E) else FILE))
    for one, other in ((D, E), (E, D)):
        if any(p.directory == one and e.key == other for p, e in found.items()):
            found = {p: e for p, e in found.items() if not (p.directory == other and e.key == one)}
    # A directory that has no name has nothing in it.
    for _ in range(2):
        named = {each.key for each in found.values()} | {b"R"}
        found = {place: each for place, each in found.items() if place.directory in named}
    return found


@given(trees(), trees(), st.booleans())
def test_any_difference_leads_there(
    old: dict[Place, Entry], new: dict[Place, Entry], lives: bool
) -> None:
    alive = {each.key: stamped(nlink=1) for each in old.values()} if lives else {}
    changes = told(old, new, alive)
    assert applied(old, changes) == holders(new)
