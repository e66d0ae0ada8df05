"""Run a history through the queue and the Settler; keep what a client is told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from farwatch.events import Change, Key, Kind, Place, Record
from farwatch.sources.settling import UNKNOWN, Holder, Settler, collect
from tests.sources.settling.model import Step, World

OWN = 7
NAMES = (b"a", b"b", b"c")
Operation = tuple[int, int, int, int, int, int]
"""What, thread, one directory and name, another directory and name."""

ALL = (
    "create",
    "create and write",
    "mkdir",
    "write",
    "chmod",
    "link",
    "remove",
    "rename",
    "exchange",
    "open",
    "write and close",
)


def operation(
    number: Operation, kinds: tuple[str, ...], threads: tuple[int, ...]
) -> Callable[[World], Step]:
    """What six small numbers mean, once it is known which directories there are."""

    def run(world: World) -> Step:
        kind, who, one_dir, one_name, two_dir, two_name = number
        what = kinds[kind % len(kinds)]
        thread = threads[who % len(threads)]
        directories = world.directories()
        one = Place(directories[one_dir % len(directories)], NAMES[one_name % len(NAMES)])
        two = Place(directories[two_dir % len(directories)], NAMES[two_name % len(NAMES)])
        match what:
            case "create":
                return world.make(thread, one)
            case "create and write":
                return world.make(thread, one, write=True)
            case "mkdir":
                return world.make(thread, one, is_dir=True)
            case "write":
                return world.write_name(thread, one)
            case "chmod":
                return world.chmod(thread, one)
            case "link":
                return world.link(thread, one, two)
            case "remove":
                return world.remove(thread, one)
            case "rename":
                return world.rename(thread, one, two)
            case "exchange":
                return world.exchange(thread, one, two)
            case "open":
                return world.open(one)
            case _:
                return world.write_and_close(thread, two_name)

    return run


@dataclass
class Client:
    """What a client was told, change by change."""

    holds: dict[Place, Key | None] = field(default_factory=dict)
    names: dict[Place, list[tuple[str, Key]]] = field(default_factory=lambda: defaultdict(list))
    changes: list[Change] = field(default_factory=list)
    strict: bool = True
    own_events: Counter[Place] = field(default_factory=Counter)
    illegal: list[tuple[Place | None, str]] = field(default_factory=list)
    """Changes that no file system could have made, after those before them."""

    def told(self, place: Place) -> Holder:
        """The Settler's question."""
        return self.holds.get(place, None if self.strict else UNKNOWN)

    def hear(self, changes: list[Change]) -> None:
        """Apply one batch."""
        for change in changes:
            self.changes.append(change)
            self._apply(change)

    def _apply(self, change: Change) -> None:
        kind, place, node = change.kind, change.place, change.node
        if kind is Kind.CREATE:
            self._arrive("C", change, place, node)
        elif kind is Kind.DELETE and place is not None:
            self._leave("D", change, place, node)
        elif kind is Kind.RENAME:
            if place is not None:
                self._leave("F", change, place, node)
            if change.new_place is not None:
                self._arrive("T", change, change.new_place, node)
        elif kind is Kind.EXCHANGE:
            self._expect(change, place, node)
            self._expect(change, change.new_place, change.other)
            self._arrive("T", change, place, change.other)
            self._arrive("T", change, change.new_place, node)

    def _arrive(self, what: str, change: Change, place: Place | None, node: Key | None) -> None:
        assert place is not None and node is not None
        if what == "C" and self.holds.get(place) is not None:
            self.illegal.append((place, f"occupied: {change}"))
        self.holds[place] = node
        self.names[place].append((what, node))

    def _leave(self, what: str, change: Change, place: Place, node: Key | None) -> None:
        assert node is not None
        self._expect(change, place, node)
        self.holds[place] = None
        self.names[place].append((what, node))
        if what == "D":
            for other, held in self.holds.items():
                if other.directory == node and held is not None:
                    self.illegal.append((other, f"not empty: {change}"))

    def _expect(self, change: Change, place: Place | None, node: Key | None) -> None:
        assert place is not None
        if self.strict and self.holds.get(place) != node:
            was = self.holds.get(place)
            self.illegal.append((place, f"not there: {change}, but {was!r}"))


@dataclass
class Run:
    """One history, run to its end."""

    world: World
    client: Client
    settler: Settler
    batches: list[tuple[int, int]]
    """First and last record number of each batch."""

    def batch(self, record: int) -> int:
        """Which batch a record was in."""
        for number, (first, last) in enumerate(self.batches):
            if first <= record <= last:
                return number
        return len(self.batches)


def play(
    script: list[Operation],
    pauses: list[int],
    *,
    kinds: tuple[str, ...] = ALL,
    threads: tuple[int, ...] = (1,),
    own: tuple[int, ...] = (),
    most: int | None = None,
    racing: bool = False,
    settler: Callable[..., Settler] = Settler,
    early: bool = True,
    each: bool = False,
) -> Run:
    """Do the script; after ``pauses[n]`` steps settle a batch, and so on, to the end.

    With ``racing`` the disk also changes between the reads and looks of one batch.
    What the server did is known to its client before (``early``) or when its records are settled.
    """
    world = World()
    client = Client()
    one = settler(frozenset(own))
    run = Run(world, client, one, [])
    todo = [operation(number, kinds, threads) for number in script]
    walk = (step for act in todo for step in act(world))
    waits = iter(pauses)

    def advance(count: int) -> None:
        for _ in range(count):
            if next(walk, world) is world:
                return

    def read() -> list[Record]:
        if racing:
            advance(next(waits, 0))
        return world.read(most)

    def node_at(place: Place) -> Key | None:
        if racing:
            advance(next(waits, 0))
        return world.node_at(place)

    def batch(*, flush: bool = False) -> int:
        first = world.records - len(world.queue) + 1
        if one.held:
            first = run.batches.pop()[0]
        records, disk = collect(read(), read, node_at, one)
        run.batches.append((first, world.records - len(world.queue)))
        if early:
            know_own(run, own)
        changes = one.settle(records, disk, client.told, flush=flush and not records)
        if not early:
            know_own(run, own)
        client.hear(changes)
        return len(records)

    if each:
        for act in todo:
            for _ in act(world):
                pass
            batch()
    for pause in waits:
        advance(pause)
        batch()
    for _ in walk if not each else ():
        pass
    while batch():
        pass
    batch(flush=True)
    if one.carrying:
        batch(flush=True)
    return run


def know_own(run: Run, own: tuple[int, ...]) -> None:
    """The client did these itself: it knows what it made of its names."""
    heard = run.client.own_events
    if not own or run.settler.held:
        return
    for place, events in run.world.names_by.items():
        for what, node, thread, record in events[heard[place] :]:
            if run.batch(record) > len(run.batches) - 1:
                break
            heard[place] += 1
            if thread in own:
                run.client.holds[place] = node if what in "CT" else None


def unknowable(run: Run) -> set[Place]:
    """Names whose own sequence their records do not tell.

    One inode arrived twice at one name within one batch.  What the name held at
    the batch's start counts as arrived if anything else touched the name, too:
    alone it can only have gone and come.
    """
    found: set[Place] = set()
    for place, events in run.world.names_by.items():
        holds: Key | None = None
        for _, batch in groupby(events, lambda event: run.batch(event[3])):
            before = holds
            arrivals: Counter[Key] = Counter()
            others = False
            for what, node, _, _ in batch:
                others = others or node != before or what in "FT"
                arrivals[node] += what in "CT"
                holds = node if what in "CT" else None
            if before is not None and others:
                arrivals[before] += bool(arrivals[before])
            if max(arrivals.values()) > 1:
                found.add(place)
    return found


def pairs(items: list[tuple[str, Key]]) -> Iterator[str]:
    """For messages."""
    return (f"{what}{node.decode()}" for what, node in items)
