"""Event streams: how they are written down, and when two of them are equal.

An event is written as ``watch: KINDS name``.  A cookie is not written as a number
but as what it pairs: ``d: MOVED_FROM x > e/y`` names the watch and the name of
the other half, ``> -`` says that there is no other half in that inotify
instance.

``paced``: the streams are compared per watch, in full order, identical
neighbours folded (the kernel folds them itself whenever they wait together).

``full``: at full speed fanotify merges what waits in its queue, so what is
compared is each name's own sequence of CREATE, DELETE, MOVED_FROM and MOVED_TO;
that every other kind came at least once and nothing came that natively did
not; and that the last word about a name agrees with the disk.  The sequence
cannot be known for a name at which one inode arrived twice between two
synchronisations: of such a name only the last word is compared.  What is done to a
directory itself before and after it is moved is merged, too, for the kernel does not say
under which name: then it may be told under the former name alone.
A case in which the client itself changes the same names (``# full: end``) is compared at
full speed by its end only: which of the two was first is not the same in two runs.

Differences that are known and accepted, so that no case contains them:

- O_TMPFILE: the kernel's own inotify names the nameless file ``#<inode number>``.
- MOVE_SELF and DELETE_SELF of the export's root.
- EXCL_UNLINK at full speed: a merged event does not tell whether the file was written
  before or after its name went away.
- The opening of what is neither a file nor a directory: it cannot be replayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from tests.conformance.client import RawEvent

NAMES = {
    0x1: "ACCESS",
    0x2: "MODIFY",
    0x4: "ATTRIB",
    0x8: "CLOSE_WRITE",
    0x10: "CLOSE_NOWRITE",
    0x20: "OPEN",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
    0x400: "DELETE_SELF",
    0x800: "MOVE_SELF",
    0x2000: "UNMOUNT",
    0x4000: "Q_OVERFLOW",
    0x8000: "IGNORED",
    0x40000000: "ISDIR",
}
FLAGS = {
    "ONLYDIR": 0x01000000,
    "DONT_FOLLOW": 0x02000000,
    "EXCL_UNLINK": 0x04000000,
    "MASK_CREATE": 0x10000000,
    "MASK_ADD": 0x20000000,
    "ONESHOT": 0x80000000,
}
READING = 0x1 | 0x10 | 0x20
NAMING = 0x40 | 0x80 | 0x100 | 0x200
ONESHOT = FLAGS["ONESHOT"]
MOVED_FROM, MOVED_TO = 0x40, 0x80
STRUCTURE = frozenset({"CREATE", "DELETE", "MOVED_FROM", "MOVED_TO"})
ONCE = frozenset({"DELETE_SELF", "IGNORED", "UNMOUNT"})
"""What can happen to one watch only once."""
MASKS = {
    **{name: bit for bit, name in NAMES.items()},
    **FLAGS,
    "ALL": 0xFFF,
    "CHANGES": 0xFFF & ~READING,
    "READING": READING,
}
"""Every word that a ``watch`` may use; the bits are those of <sys/inotify.h>."""


def mask_of(text: str) -> int:
    """``CREATE|ISDIR`` → bits.  Raises KeyError for a word that is none."""
    mask = 0
    for word in text.split("|"):
        mask |= MASKS[word]
    return mask


class Event(NamedTuple):
    """One event as it is compared."""

    watch: str
    kinds: str
    name: str = ""
    partner: str = ""
    """Of a MOVED_FROM or MOVED_TO: ``watch/name`` of the other half, or ``-``."""

    def __str__(self) -> str:
        words = [f"{self.watch}:", self.kinds]
        if self.name:
            words.append(self.name)
        if self.partner:
            words += [">" if self.kinds.startswith("MOVED_FROM") else "<", self.partner]
        return " ".join(words)

    @property
    def kind(self) -> str:
        return self.kinds.removesuffix("|ISDIR")


def kinds_of(mask: int) -> str:
    return "|".join(name for bit, name in NAMES.items() if mask & bit) or hex(mask)


def events_of(raw: Sequence[RawEvent]) -> list[Event]:
    """What was read, with cookies turned into partners."""
    halves: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for event in raw:
        if event.cookie:
            side = event.mask & (MOVED_FROM | MOVED_TO)
            halves[event.group, event.cookie, side].append(f"{event.watch}/{event.name}")
    events = []
    for event in raw:
        partner = ""
        if event.mask & (MOVED_FROM | MOVED_TO):
            other = (event.mask & (MOVED_FROM | MOVED_TO)) ^ (MOVED_FROM | MOVED_TO)
            partner = "+".join(halves.get((event.group, event.cookie, other), ["-"]))
        events.append(Event(event.watch, kinds_of(event.mask), event.name, partner))
    return events


class Outcome(NamedTuple):
    """All that a script gave on one stage."""

    events: tuple[Event, ...]
    """In the order in which they were read."""
    answers: tuple[str, ...] = ()
    """What the client's own system calls told, in order."""
    disk: Mapping[str, Container[str]] = {}
    """Watch → the names in that directory at the end, of the watches that are still in force
    and hear of all that makes or removes a name."""
    seen: str = ""
    """The tree at the end as the client sees it."""
    truth: str = ""
    """The tree at the end as it is on disk."""
    unknowable: frozenset[tuple[str, str]] = frozenset()
    """(watch, name) at which one inode arrived twice without a synchronisation."""
    sources: tuple[int, ...] = ()
    """Of each event whose doing it was, where the client is told: ``abi.fsnotify.Source``."""
    moved: frozenset[tuple[str, str]] = frozenset()
    """(watch, name) to which a directory was moved after something else without a
    synchronisation."""


Comparison = Callable[[Outcome, Outcome], list[str]]
"""What differs between the specification and what was seen, a line each."""


def fold(events: Iterable[Event]) -> list[Event]:
    """Without identical neighbours."""
    folded: list[Event] = []
    for event in events:
        if not folded or folded[-1] != event:
            folded.append(event)
    return folded


def per_watch(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Each watch's own stream, folded."""
    streams: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        streams[event.watch].append(event)
    return {watch: fold(stream) for watch, stream in streams.items()}


def compare_paced(spec: Outcome, seen: Outcome) -> list[str]:
    """What differs, a line each; nothing if the streams are equal."""
    problems = []
    wanted, got = per_watch(spec.events), per_watch(seen.events)
    for watch in sorted(wanted.keys() | got.keys()):
        problems += _first_difference(watch, wanted.get(watch, []), got.get(watch, []))
    for one, other in zip_longest(spec.answers, seen.answers, fillvalue="nothing"):
        if one != other:
            problems.append(f"answer: expected {one!r}, got {other!r}")
    return problems + incoherence(seen)


def _first_difference(watch: str, wanted: list[Event], got: list[Event]) -> list[str]:
    for index, (one, other) in enumerate(zip_longest(wanted, got)):
        if one != other:
            wanted_text, got_text = one or "no more", other or "no more"
            return [f"{watch}: event {index + 1}: expected <{wanted_text}>, got <{got_text}>"]
    return []


def compare_full(spec: Outcome, seen: Outcome) -> list[str]:
    """What may not differ at full speed either, a line each."""
    problems = []
    unknowable, moved = spec.unknowable | seen.unknowable, spec.moved | seen.moved
    wanted, got = _per_name(spec.events), _per_name(seen.events)
    for place in sorted(wanted.keys() | got.keys()):
        one, other = wanted.get(place, []), got.get(place, [])
        if place not in unknowable:
            problems += _structure_differs(place, one, other)
            problems += _kinds_differ(place, one, other, is_moved=place in moved)
    natively_wrong = wrong_last_words(spec if spec.disk else spec._replace(disk=seen.disk))
    problems += [
        said for place, said in wrong_last_words(seen).items() if place not in natively_wrong
    ]
    return problems + incoherence(seen)


def compare_nothing(_spec: Outcome, _seen: Outcome) -> list[str]:
    """For what cannot be told at full speed."""
    return []


def compare_end(spec: Outcome, seen: Outcome) -> list[str]:
    """What may not differ even where both sides change the same names at the same moment.

    The last word about each name, which of the watched inodes are gone, and the
    client's view of the tree.
    """
    problems = list(wrong_last_words(seen).values())
    problems += [f"{watch}: no IGNORED" for watch in sorted(_ended(spec) - _ended(seen))]
    problems += [f"{watch}: IGNORED" for watch in sorted(_ended(seen) - _ended(spec))]
    return problems + incoherence(seen)


def _ended(outcome: Outcome) -> set[str]:
    return {event.watch for event in outcome.events if event.kind == "IGNORED"}


def _per_name(events: Iterable[Event]) -> dict[tuple[str, str], list[Event]]:
    streams: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        streams[event.watch, event.name].append(event)
    return streams


def _structure(events: Iterable[Event]) -> list[str]:
    return [str(event) for event in events if event.kind in STRUCTURE]


def _structure_differs(place: tuple[str, str], spec: list[Event], seen: list[Event]) -> list[str]:
    wanted, got = _structure(spec), _structure(seen)
    if wanted == got:
        return []
    return [f"{place[0]}/{place[1]}: expected {wanted}, got {got}"]


def _kinds_differ(
    place: tuple[str, str], spec: list[Event], seen: list[Event], *, is_moved: bool
) -> list[str]:
    wanted = {
        event.kinds
        for event in spec
        if event.kind not in STRUCTURE and not (is_moved and event.kinds.endswith("|ISDIR"))
    }
    got = {event.kinds for event in seen if event.kind not in STRUCTURE}
    problems = [f"{place[0]}/{place[1]}: no {kinds}" for kinds in sorted(wanted - got)]
    native = {event.kinds for event in spec}
    problems += [f"{place[0]}/{place[1]}: {kinds} from nowhere" for kinds in sorted(got - native)]
    for kind in sorted(ONCE):
        if sum(event.kind == kind for event in seen) > 1:
            problems.append(f"{place[0]}: {kind} more than once")
    if "IGNORED" in got and seen[-1].kind != "IGNORED":
        problems.append(f"{place[0]}: {seen[-1].kinds} after IGNORED")
    return problems


def wrong_last_words(seen: Outcome) -> dict[tuple[str, str], str]:
    """(watch, name) of which the last thing said is not what the disk says → a line.

    Natively it happens, too: after an exchange the first name's MOVED_FROM of
    the second move is the last that is said of the second name.
    """
    problems = {}
    for (watch, name), events in sorted(_per_name(seen.events).items()):
        said = [event.kind for event in events if event.kind in STRUCTURE]
        if not said or watch not in seen.disk:
            continue
        exists = name in seen.disk[watch]
        if exists != (said[-1] in {"CREATE", "MOVED_TO"}):
            on_disk = "is" if exists else "is not"
            problems[watch, name] = (
                f"{watch}/{name}: last word {said[-1]}, but on disk it {on_disk}"
            )
    return problems


def doubled(seen: Outcome, before: Mapping[str, Container[str]]) -> list[str]:
    """Names that were said to appear while there, or to go while not there.

    ``before``: watch → the names in that directory when it was placed.
    """
    problems = []
    for (watch, name), events in sorted(_per_name(seen.events).items()):
        if watch not in before:
            continue
        there = name in before[watch]
        for event in events:
            if (event.kind == "CREATE" and there) or (
                event.kind in {"DELETE", "MOVED_FROM"} and not there
            ):
                problems.append(
                    f"{watch}: {event}, but the name was {'there' if there else 'not there'}"
                )
            if event.kind in STRUCTURE:
                there = event.kind in {"CREATE", "MOVED_TO"}
    return problems


def incoherence(seen: Outcome) -> list[str]:
    """Where the client's view of the tree is not the disk."""
    problems = []
    for one, other in zip_longest(
        seen.truth.splitlines(), seen.seen.splitlines(), fillvalue="nothing"
    ):
        if one != other:
            problems.append(f"at the end: on disk {one!r}, the client sees {other!r}")
            break
    return problems


def side_by_side(left: Sequence[object], right: Sequence[object], titles: tuple[str, str]) -> str:
    """Two lists of lines beside each other, with a mark where they differ."""
    texts = [str(item) for item in left], [str(item) for item in right]
    width = max([len(titles[0]), *map(len, texts[0])])
    lines = [f"  {titles[0]:{width}} | {titles[1]}"]
    for one, other in zip_longest(*texts, fillvalue=""):
        lines.append(f"{' ' if one == other else '!'} {one:{width}} | {other}".rstrip())
    return "\n".join(lines)
