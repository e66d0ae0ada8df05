"""Records of a file system of which an export has several mounts."""

from __future__ import annotations

from farwatch.events import Key, Mask, Place, Record
from farwatch.sources.aliases import Aliases

FS, OTHER, ALIAS = b"FS______", b"OTHER___", b"ALIAS___"


def handle(name: str) -> bytes:
    return f"<{name}>".encode()


def record(
    prefix: bytes, directory: str | None, node: str, thread: int = 1, to: str | None = None
) -> Record:
    place = None if directory is None else Place(prefix + handle(directory), b"x")
    new_place = None if to is None else Place(prefix + handle(to), b"y")
    return Record(int(Mask.CREATE), thread, place, prefix + handle(node), new_place)


def aliases(*known: Key) -> Aliases:
    made = Aliases(lambda key: key in known)
    made.set(FS, [FS, ALIAS])
    return made


def test_nothing_happens_without_a_second_mount() -> None:
    made = Aliases(lambda key: False)
    made.set(FS, [FS])
    made.set(OTHER, [])
    records = [record(FS, "d", "n")]
    assert made.translate(records) is records


def test_a_record_is_told_where_it_is_known() -> None:
    made = aliases(ALIAS + handle("d"), ALIAS + handle("n"), FS + handle("own"))
    assert made.translate(
        [
            record(FS, "d", "n"),
            record(FS, "own", "m"),
            record(OTHER, "d", "n"),
            record(FS, "elsewhere", "n"),
            record(FS, "elsewhere", "m", to="d"),
        ]
    ) == [
        record(ALIAS, "d", "n"),
        record(FS, "own", "m"),
        record(OTHER, "d", "n"),
        record(ALIAS, "elsewhere", "n"),
        record(ALIAS, "elsewhere", "m", to="d"),
    ]


def test_a_record_is_told_twice_where_it_is_known_twice() -> None:
    made = aliases(ALIAS + handle("d"), FS + handle("d"))
    assert made.translate([record(FS, "d", "n")]) == [
        record(FS, "d", "n"),
        record(ALIAS, "d", "n"),
    ]


def test_what_nobody_knows_may_be_below_any_of_them() -> None:
    assert aliases().translate([record(FS, "d", "n")]) == [
        record(FS, "d", "n"),
        record(ALIAS, "d", "n"),
    ]


def test_a_link_count_goes_with_the_name_that_follows_it() -> None:
    made = aliases(ALIAS + handle("d"))
    assert made.translate(
        [
            record(FS, None, "n"),
            record(FS, "elsewhere", "m", thread=2),
            record(FS, "d", "n"),
            record(FS, None, "n"),
            record(FS, "d", "m"),
        ]
    ) == [
        record(ALIAS, None, "n"),
        record(FS, "elsewhere", "m", thread=2),
        record(ALIAS, "elsewhere", "m", thread=2),
        record(ALIAS, "d", "n"),
        record(FS, None, "n"),
        record(ALIAS, None, "n"),
        record(ALIAS, "d", "m"),
    ]


def test_a_mount_that_goes_takes_its_alias_along() -> None:
    made = aliases(ALIAS + handle("d"))
    made.set(FS, [FS])
    assert made.translate([record(FS, "d", "n")]) == [record(FS, "d", "n")]
    made.set(FS, [ALIAS])
    assert made.translate([record(FS, "d", "n")]) == [record(ALIAS, "d", "n")]
