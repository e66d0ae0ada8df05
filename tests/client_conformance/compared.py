"""How a client in merged mode is compared at full speed, where both sides change the same names.

What it does itself is told at the call; what others do comes behind, through source and
connection.  Which of the two is told first is not the order in which they happened, so

- each name's CREATE, DELETE, MOVED_FROM and MOVED_TO must be what both told together: the
  native sequence is one way to put the two sequences into one, and so neither side has lost,
  doubled or reordered anything of its own;
- every other kind must have been told that was told natively, and no other;
- a watch ends once, and what comes of others behind its end, by the client's own hand, is
  not heard any more;
- the client's view must agree with the disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from farwatch.abi.fsnotify import Source
from tests.conformance.stream import ONCE, STRUCTURE, Event, Outcome, incoherence

Place = tuple[str, str]
"""Watch and name."""


def is_merged_of(whole: Sequence[Event], one: Sequence[Event], other: Sequence[Event]) -> bool:
    """Whether ``whole`` is the two others, each in its order, in any order of the two."""
    if len(whole) != len(one) + len(other):
        return False
    # How many of ``one`` are used up, in every way to have used so much of ``whole``.
    ways = {0}
    for count, event in enumerate(whole):
        ways = {
            used + more
            for used in ways
            for more, left, place in ((1, one, used), (0, other, count - used))
            if place < len(left) and left[place] == event
        }
    return bool(ways)


def compare_merged(spec: Outcome, seen: Outcome) -> list[str]:
    """What may not differ, a line each."""
    problems = incoherence(seen)
    ended = {event.watch for event in seen.events if event.kind == "IGNORED"}
    unknowable = spec.unknowable | seen.unknowable
    wanted, got = _places(spec.events), _places(seen.events)
    sides = {
        source: _places(
            event
            for event, said in zip(seen.events, seen.sources, strict=True)
            if (said == Source.LOCAL) == (source is Source.LOCAL)
        )
        for source in (Source.LOCAL, Source.REMOTE)
    }
    for place in sorted(wanted.keys() | got.keys()):
        if place in unknowable:
            continue
        parts = [_structure(side.get(place, ())) for side in sides.values()]
        whole = _structure(wanted.get(place, ()))
        if not is_merged_of(whole, parts[0], parts[1]):
            told = [list(map(str, part)) for part in parts]
            problems.append(f"{place[0]}/{place[1]}: {list(map(str, whole))} is not of {told}")
        problems += _kinds_differ(
            place, wanted.get(place, ()), got.get(place, ()), may_lack=place[0] in ended
        )
    return problems


def _places(events: Iterable[Event]) -> dict[Place, list[Event]]:
    places: dict[Place, list[Event]] = defaultdict(list)
    for event in events:
        places[event.watch, event.name].append(event)
    return places


def _structure(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.kind in STRUCTURE]


def _kinds_differ(
    place: Place, spec: Sequence[Event], seen: Sequence[Event], *, may_lack: bool
) -> list[str]:
    wanted = {event.kinds for event in spec if event.kind not in STRUCTURE}
    got = {event.kinds for event in seen if event.kind not in STRUCTURE}
    lacking = {kinds for kinds in wanted - got if not may_lack or kinds in ONCE}
    problems = [f"{place[0]}/{place[1]}: no {kinds}" for kinds in sorted(lacking)]
    problems += [f"{place[0]}/{place[1]}: {kinds} from nowhere" for kinds in sorted(got - wanted)]
    for kind in sorted(ONCE):
        if sum(event.kind == kind for event in seen) > 1:
            problems.append(f"{place[0]}: {kind} more than once")
    if "IGNORED" in got and seen[-1].kind != "IGNORED":
        problems.append(f"{place[0]}: {seen[-1].kinds} after IGNORED")
    return problems
