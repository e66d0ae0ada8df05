"""A batch of the server's own changes need not be settled: it would tell nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.events import Key, Mask, Place, Record
from farwatch.sources.settling import UNKNOWN, Holder, Settler, collect
from farwatch.sources.settling.memory import Carried, Memory

OWN, OTHER = 9, 1
NODES = (b"i", b"j", b"d")
NAMES = tuple(Place(directory, name) for directory in (b"top", b"d") for name in (b"x", b"y", b"."))
CREATED = Record(Mask.CREATE, OWN, NAMES[0], b"i")
REMOVED = [
    Record(Mask.ATTRIB | Mask.DELETE_SELF, OWN, None, b"i"),
    Record(Mask.DELETE, OWN, NAMES[0], b"i"),
]

MASKS = st.sets(
    st.sampled_from(
        [
            *(Mask.CREATE, Mask.DELETE, Mask.RENAME, Mask.MODIFY, Mask.ATTRIB),
            *(Mask.CLOSE_WRITE, Mask.DELETE_SELF, Mask.ISDIR, Mask.OPEN),
        ]
    ),
    min_size=1,
    max_size=3,
).map(lambda bits: sum(int(bit) for bit in bits))
OTHERS = st.sampled_from([None, *NAMES])


@st.composite
def records(draw: st.DrawFn) -> Record:
    mask = draw(MASKS)
    place = draw(st.sampled_from(NAMES)) if mask & Mask.RENAME else draw(OTHERS)
    new_place = draw(st.sampled_from(NAMES)) if mask & Mask.RENAME else None
    thread = draw(st.sampled_from([OWN, OWN, OWN, OTHER]))
    # No directory is in itself.
    is_inside = any(end is not None and end.directory == b"d" for end in (place, new_place))
    node = draw(st.sampled_from(NODES[:2] if is_inside else NODES))
    return Record(mask, thread, place, node, new_place)


@dataclass(frozen=True)
class Kept:
    """What a Settler remembers."""

    carried: dict[tuple[int, Key], Carried]
    expected: dict[int, Key]
    anticipated: dict[Place, tuple[int, Key | None]]
    departed: set[Key]
    suspects: dict[Place, list[Record]]
    held: list[Record]

    @classmethod
    def of(cls, settler: Settler, memory: Memory) -> Kept:
        return cls(
            dict(memory.carried),
            dict(memory.expected),
            dict(memory.anticipated),
            set(memory.departed),
            dict(memory.suspects),
            list(settler.held),
        )


@given(
    before=st.lists(records(), max_size=2),
    batch=st.lists(records(), min_size=1, max_size=4),
    departed=st.sets(st.sampled_from(NODES)),
    told=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([UNKNOWN, None, *NODES])),
    disk=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([None, *NODES])),
    flush=st.booleans(),
)
def test_what_is_passed_over_would_have_told_nothing(
    before: list[Record],
    batch: list[Record],
    departed: set[Key],
    told: dict[Place, Holder],
    disk: dict[Place, Key | None],
    flush: bool,
) -> None:
    settler = Settler(frozenset((OWN,)))
    memory = settler._memory

    def holder(place: Place) -> Holder:
        return told.get(place, UNKNOWN)

    def settled(some: list[Record], *, flush: bool) -> list[object]:
        some, seen = collect(some, list, disk.get, settler)
        return [*settler.settle(some, seen, holder, flush=flush)]

    settled(before, flush=False)
    memory.departed |= departed
    if settler.is_own(batch):
        kept = Kept.of(settler, memory)
        assert settled(batch, flush=flush) == []
        assert Kept.of(settler, memory) == kept


@pytest.mark.parametrize("batch", [[CREATED], REMOVED, [CREATED, *REMOVED[:1]]])
def test_what_a_client_does_is_passed_over(batch: list[Record]) -> None:
    settler = Settler(frozenset((OWN,)))
    assert settler.is_own(batch)
    assert not settler.is_own([*batch, batch[-1]._replace(thread=OTHER)])


def test_the_death_of_what_others_removed_is_told() -> None:
    """The server was the last to let go of it."""
    settler = Settler(frozenset((OWN,)))
    removed = Record(Mask.DELETE, OTHER, NAMES[0], b"i")
    settler.settle([removed], {}, lambda _: UNKNOWN)
    assert not settler.is_own(REMOVED[:1])
    assert settler.is_own([REMOVED[0]._replace(node=b"j")])
