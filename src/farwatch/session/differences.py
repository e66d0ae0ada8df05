"""From what was known and what is to changes that lead from one to the other.

    a name gone, its node at another name that is new     RENAME; two that swapped: EXCHANGE
    a name gone, its node still there with all its links  RENAME to where nobody looks
    a name gone otherwise                                 DELETE, and DEATH if the node is gone
    a name new                                            CREATE, and for a file its MODIFY
                                                          and CLOSE_WRITE
    the same node, other content                          MODIFY, CLOSE_WRITE
    the same node, other metadata                         ATTRIB

In an order in which it can have happened: a name is free before it is taken, a directory
is empty before it is removed.  Where no order does that (names that went round in a circle)
a rename is told in its two halves.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from stat import S_ISREG

from farwatch.events import Change, Key, Kind, Place
from farwatch.session.stamps import CONTENT, METADATA, Entry, Stamp, stamp

Names = Mapping[Place, Entry]

SLACK = 20_000_000
"""ns by which a file's times may lie before the clock's: twice the longest tick (100 Hz)."""


class Differences:
    """One comparison.

    ``old``     what was known of names
    ``new``     what they hold; each name of either is compared
    ``since``   ns since the epoch: what was touched later may be other than was told
    ``status``  the stamp of a node by the disk; None if it is gone
    """

    def __init__(
        self, old: Names, new: Names, since: int, status: Callable[[Key], Stamp | None]
    ) -> None:
        self._old = old
        self._new = new
        self._since = since - SLACK
        self._status = status
        self._kept: set[Key] = set()
        self._moved: dict[Place, Place] = {}

    def changes(self) -> list[Change]:
        """All of them, in their order."""
        gone: dict[Place, Entry] = {}
        come: dict[Place, Entry] = {}
        same: list[tuple[Entry, Place, Entry]] = []
        for place, entry in self._old.items():
            now = self._new.get(place)
            if now is None or now.key != entry.key:
                gone[place] = entry
            else:
                self._kept.add(entry.key)
                same.append((entry, place, now))
        for place, entry in self._new.items():
            before = self._old.get(place)
            if before is None or before.key != entry.key:
                come[place] = entry
        found = list(self._of_names(gone, come))
        same += [(self._old[old], new, come[new]) for old, new in self._moved.items()]
        for before, place, now in same:
            found += self.of_content(before.stamp, now, place, moved=place in come)
        return found

    def of_content(
        self, before: bytes, now: Entry, place: Place | None, *, moved: bool = False
    ) -> list[Change]:
        """What has become of a node itself; ``before`` is what was known of it, packed."""
        is_now = stamp(now.stamp)
        if is_now is None:
            return []
        kinds = self._kinds(before, is_now, is_dir=now.is_dir, moved=moved)
        return [Change(kind, None if now.is_dir else place, now.key, now.is_dir) for kind in kinds]

    def _kinds(self, before: bytes, now: Stamp, *, is_dir: bool, moved: bool) -> tuple[Kind, ...]:
        content = (Kind.MODIFY, Kind.CLOSE_WRITE) if S_ISREG(now.mode) else (Kind.MODIFY,)
        if before in (CONTENT, METADATA):
            return content if before == CONTENT else (Kind.ATTRIB,)
        was = stamp(before)
        if was is None:
            is_new = not is_dir and now.ctime >= self._since
            if is_new and now.mtime >= self._since:
                return content
            return (Kind.ATTRIB,) if is_new and not moved else ()
        kinds: tuple[Kind, ...] = ()
        if (was.mode, was.uid, was.gid) != (now.mode, now.uid, now.gid):
            kinds = (Kind.ATTRIB,)
        if is_dir:
            return kinds
        if (was.mtime, was.size) != (now.mtime, now.size):
            return kinds + content
        # A link or a rename changes the ctime as well, and is told otherwise.
        is_explained = was.ctime == now.ctime or moved or was.nlink != now.nlink
        return kinds or (() if is_explained else (Kind.ATTRIB,))

    # Names -----------------------------------------------------------------------

    def _of_names(self, gone: dict[Place, Entry], come: dict[Place, Entry]) -> Iterator[Change]:
        steps = self._steps(gone, come)
        known = self._kept | {self._old[place].key for place in self._moved}
        known.update(step.entry.key for step in steps if step.kind is Kind.CREATE)
        deletes = Counter(step.entry.key for step in steps if step.kind is Kind.DELETE)
        for step in _Order(steps).ordered():
            yield step.change
            if step.kind is Kind.DELETE:
                deletes[step.entry.key] -= 1
                if not deletes[step.entry.key]:
                    yield from self._death(step.entry, known)
            elif step.kind is Kind.CREATE and not step.linked:
                yield from _first_content(step.change, step.entry)

    def _steps(self, gone: dict[Place, Entry], come: dict[Place, Entry]) -> list[_Step]:
        arrivals: dict[Key, list[Place]] = defaultdict(list)
        for place, entry in come.items():
            arrivals[entry.key].append(place)
        steps: list[_Step] = []
        for place, entry in gone.items():
            if arrivals[entry.key]:
                to = arrivals[entry.key].pop(0)
                self._moved[place] = to
                steps.append(_Step(Kind.RENAME, place, to, entry))
            elif self._is_elsewhere(entry):
                steps.append(_Step(Kind.RENAME, place, None, entry))
            else:
                steps.append(_Step(Kind.DELETE, place, None, entry))
        there = self._kept | {self._old[place].key for place in self._moved}
        for key, places in arrivals.items():
            for place in places:
                steps.append(_Step(Kind.CREATE, None, place, come[place], key in there))
                there.add(key)
        return steps

    def _is_elsewhere(self, entry: Entry) -> bool:
        """Whether the node has left by a rename, and no link of it was taken."""
        now = self._status(entry.key)
        if now is None or now.nlink == 0:
            return False
        if entry.is_dir:
            return True
        was = stamp(entry.stamp)
        return was is not None and now.nlink >= was.nlink

    def _death(self, entry: Entry, known: set[Key]) -> Iterator[Change]:
        if entry.key not in known and self._status(entry.key) is None:
            yield Change(Kind.DEATH, None, entry.key, entry.is_dir, linked=True)


def _first_content(created: Change, entry: Entry) -> Iterator[Change]:
    """Of a new file it is told that it was written: somebody may wait for just that."""
    is_now = stamp(entry.stamp)
    if is_now is None or not S_ISREG(is_now.mode):
        return
    if is_now.size:
        yield created._replace(kind=Kind.MODIFY)
    yield created._replace(kind=Kind.CLOSE_WRITE)


class _Step:
    """A DELETE, CREATE or RENAME that is to be put in order."""

    def __init__(
        self, kind: Kind, old: Place | None, new: Place | None, entry: Entry, linked: bool = False
    ) -> None:
        self.kind = kind
        self.old = old
        self.new = new
        self.entry = entry
        self.linked = linked
        self.waits = 0
        self.other: Key | None = None

    @property
    def change(self) -> Change:
        key, is_dir, _ = self.entry
        if self.kind is Kind.CREATE:
            return Change(Kind.CREATE, self.new, key, is_dir, linked=self.linked)
        return Change(self.kind, self.old, key, is_dir, self.new, self.other)


class _Order:
    """Puts steps in an order in which they can be done, one by one.

    A step that takes a name waits for the one that frees it; the removal of a directory
    for all that free a name in it.
    """

    def __init__(self, steps: list[_Step]) -> None:
        self._steps = steps
        self._ready: deque[_Step] = deque()
        self._waiting: dict[Place | Key, list[_Step]] = defaultdict(list)
        self._inside: dict[Key, int] = defaultdict(int)
        frees: dict[Place, _Step] = {}
        for step in steps:
            if step.old is not None:
                frees[step.old] = step
                self._inside[step.old.directory] += 1
        for step in steps:
            if step.new is not None and step.new in frees and frees[step.new] is not step:
                self._wait(step, step.new)
            if step.kind is Kind.DELETE and self._inside.get(step.entry.key):
                self._wait(step, step.entry.key)
        self._frees = frees

    def _wait(self, step: _Step, what: Place | Key) -> None:
        step.waits += 1
        self._waiting[what].append(step)

    def ordered(self) -> Iterator[_Step]:
        """Each step once, some as an EXCHANGE or in two halves."""
        # Removals first: they make room, and what is new comes last of all.
        rank = {Kind.DELETE: 0, Kind.RENAME: 1, Kind.CREATE: 2}
        steps = sorted(self._steps, key=lambda step: rank[step.kind])
        self._ready.extend(step for step in steps if not step.waits)
        left = dict.fromkeys(step for step in steps if step.waits)
        while self._ready or left:
            while self._ready:
                step = self._ready.popleft()
                left.pop(step, None)
                yield step
                self._done(step.old)
            if left:
                yield from self._untie(next(iter(left)), left)

    def _done(self, freed: Place | None) -> None:
        if freed is None:
            return
        self._release(freed)
        self._inside[freed.directory] -= 1
        if not self._inside[freed.directory]:
            self._release(freed.directory)

    def _release(self, what: Place | Key) -> None:
        for step in self._waiting.pop(what, ()):
            step.waits -= 1
            if not step.waits:
                self._ready.append(step)

    def _untie(self, first: _Step, left: dict[_Step, None]) -> Iterator[_Step]:
        """All that are left wait for each other: one of them is told in another way."""
        step = next((each for each in left if each.kind is Kind.RENAME and each.old), first)
        left.pop(step)
        if step.kind is not Kind.RENAME or step.old is None or step.new is None:
            # Nothing can be done about it but to tell it.
            yield step
            self._done(step.old)
            return
        other = self._frees.get(step.new)
        if other is not None and other in left and other.new == step.old:
            left.pop(other)
            both = _Step(Kind.EXCHANGE, step.old, step.new, step.entry)
            both.other = other.entry.key
            yield both
            self._waiting.pop(step.new, None)
            self._waiting.pop(step.old, None)
            self._done(step.old)
            self._done(step.new)
            return
        yield _Step(Kind.RENAME, step.old, None, step.entry)
        self._done(step.old)
        half = _Step(Kind.RENAME, None, step.new, step.entry)
        half.waits = step.waits
        waiting = self._waiting.get(step.new)
        if waiting is not None and step in waiting:
            waiting[waiting.index(step)] = half
        if half.waits:
            left[half] = None
        else:
            self._ready.append(half)
