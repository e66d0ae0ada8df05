"""Which records of a source concern the client, and what is kept until that is known."""

from __future__ import annotations

from farwatch.events import Mask, Place, Record
from farwatch.session.concerned import Concerned

KNOWN, UNKNOWN = b"known directory", b"another directory"
COUNT = int(Mask.ATTRIB | Mask.DELETE_SELF)


def of_known_directories(record: Record) -> bool:
    return record.place is not None and record.place.directory == KNOWN


def alone(node: bytes, thread: int = 7) -> Record:
    return Record(COUNT, thread, None, node)


def removed(node: bytes, directory: bytes = KNOWN, thread: int = 7) -> Record:
    return Record(int(Mask.DELETE), thread, Place(directory, b"x"), node)


def read(*reads: list[Record]) -> list[list[Record]]:
    concerned = Concerned(of_known_directories)
    return [concerned.among(records) for records in reads]


def test_what_concerns_nobody_is_dropped() -> None:
    assert read([removed(b"i", UNKNOWN), removed(b"j")]) == [[removed(b"j")]]


def test_a_link_count_concerns_whom_its_name_concerns() -> None:
    assert read([alone(b"i"), removed(b"i")]) == [[alone(b"i"), removed(b"i")]]


def test_a_link_count_may_be_read_before_its_name() -> None:
    assert read([alone(b"i")], [removed(b"i")]) == [[], [alone(b"i"), removed(b"i")]]


def test_and_other_threads_may_be_read_in_between() -> None:
    other = removed(b"j", thread=8)
    assert read([alone(b"i")], [other], [removed(b"i")])[2] == [alone(b"i"), removed(b"i")]


def test_what_the_thread_does_next_ends_it() -> None:
    """Else a count of long ago would be told with whatever is done to the node later."""
    elsewhere = removed(b"j", UNKNOWN)
    assert read([alone(b"i")], [elsewhere], [removed(b"i")])[2] == [removed(b"i")]


def test_a_count_of_another_node_stays_away() -> None:
    assert read([alone(b"i")], [removed(b"j")])[1] == [removed(b"j")]


def test_what_is_kept_is_bounded() -> None:
    concerned = Concerned(of_known_directories)
    for thread in range(20_000):
        concerned.among([alone(b"i", thread)])
    assert len(concerned._alone) <= 4096
