"""From the merged, reordered records of one batch to changes in their order.

fanotify merges records that wait together: a further event of the same thread,
directory, name and inode (nameless ones: of the same thread and inode) only
sets its bit in the record that waits already.  So a record stands where its
*first* event stood, and each of its bits for one event or more, there or later.
A rename joins only the very same rename (which takes that its node came back
between): else its two names are right, and its position is.  A queue
that is read at once is not merged at all, and then records are told as they
come; all that follows costs such a queue nothing.

What is kept of a name during one batch
    holds        the node that it holds, as told so far (None: it is free)
    owed         bits that were read and not told: they happened later than here
    seen         bits that were read at all: merging may hide that they happened twice
What is kept between batches
    carried      inode-only records that wait for the record that explains them
    expected     threads that are about to report the inode that their rename replaced
    anticipated  what the disk demanded before its record was read
    departed     nodes that lost a name and may still die
    suspects     names from which, or to which, a rename may be hidden by merging
    held         a whole batch, when it ends between the two halves of an exchange

One name's records (i is the record's node, j another; *exact* means that the
mask holds nothing besides the name's own bits, so one of them happened here)
    CREATE i            what the name holds goes first, if its DELETE is owed; tell it
    DELETE i            an owed CREATE i comes first; tell it
    both, i is there    tell DELETE, owe CREATE
    both, i is not      as CREATE, and owe DELETE
    not exact           CREATE of what is there, DELETE of what is not, DELETE of what
                        the next rename still needs, CREATE over what is not known to
                        go: owe it, something else put the record here
    RENAME a to b of i  pay what makes a hold i; a DELETE owed to what b holds is
                        paid before (else that is replaced); tell it
    two RENAMEs         of one thread, one after the other, places swapped: EXCHANGE
    other bits          told with the record, in the order in which a file lives
    a directory goes    first everything that its names owe
At the end of the batch, for each name
    pay                 what is owed, each once, in whatever order a name can live it
    demand              if it still is not as on the disk: once more a bit that was
                        seen, or a rename.  Its record may be on its way: then it is anticipated,
                        and not told again.  What no record speaks of is not invented.
                        Renames are demanded only if the next batch does not explain what
                        the disk says; half of one, if that is all that can be known.
Inode-only records
    ATTRIB of a file    its link count.  Explained by a CREATE or DELETE of the node, or
                        a rename over it, by the same thread: dropped, because doing
                        those again raises it again.  Not explained yet: carried,
                        until it is, or its thread has gone on, or the queue has been empty
    DELETE_SELF         DEATH, at the end of the batch.  The kernel reports it before the
                        DELETE of the last name: then it is carried in the same way
The server's own threads
    Their records walk along and tell nothing.  A name that they changed loses what is
    told of it in this batch: the client has already seen later.  Other nodes' share
    in it is kept: the far half of a rename (a half's missing place is None), and for a
    node its DELETE, MODIFY ... with place None.  A DEATH is told if a DELETE was told.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple

from farwatch.events import Change, Key, Kind, Mask, Place, Record


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""The client was never told what a name holds, nor that it is free."""

Holder = Key | None | Literal[Unknown.UNKNOWN]
"""What a name holds: a node, nothing, or nobody knows."""

# Plain integers: arithmetic on an IntFlag costs a microsecond a time.
_CREATE = int(Mask.CREATE)
_DELETE = int(Mask.DELETE)
_RENAME = int(Mask.RENAME)
_ATTRIB = int(Mask.ATTRIB)
_DELETE_SELF = int(Mask.DELETE_SELF)
_ISDIR = int(Mask.ISDIR)
_OVERFLOW = int(Mask.Q_OVERFLOW)
_NAMES = _CREATE | _DELETE
_STRUCTURE = _NAMES | _RENAME

_MIDLIFE = (
    (int(Mask.OPEN), Kind.OPEN),
    (int(Mask.ACCESS), Kind.ACCESS),
    (int(Mask.MODIFY), Kind.MODIFY),
    (_ATTRIB, Kind.ATTRIB),
    (int(Mask.CLOSE_WRITE), Kind.CLOSE_WRITE),
    (int(Mask.CLOSE_NOWRITE), Kind.CLOSE_NOWRITE),
)
"""What happens to a file between CREATE and DELETE, in that order."""
_MIDLIFE_BITS = sum(bit for bit, _ in _MIDLIFE)

_SELF = b"."
"""The name under which fanotify reports events of a directory itself."""

_BETWEEN_HALVES = 64
"""How many records of other threads may stand between the halves of an exchange."""

_FEW = 8
"""Records in a batch that is looked at for being plain."""

_ANY = b""
"""Expected: whichever node the rename replaced (no key is empty)."""

Bit = tuple[int, Key]
"""A CREATE or DELETE bit, and the node that it is about."""


def kinds_in(bits: int) -> tuple[Kind, ...]:
    """The kinds of a merged mask between CREATE and DELETE, as a file lives."""
    return tuple(kind for bit, kind in _MIDLIFE if bits & bit)


_KINDS = {bits: kinds_in(bits) for bits in range(_MIDLIFE_BITS + 1) if not bits & ~_MIDLIFE_BITS}
"""Every mask of midlife bits, expanded: looked up once a record."""

_tuple = tuple.__new__
"""Makes a NamedTuple in half the time that its own constructor takes."""

_KIND_OF = {_CREATE: Kind.CREATE, _DELETE: Kind.DELETE}


class Move(NamedTuple):
    """A rename, as one of its two names sees it."""

    node: Key | None
    leaves: bool


class Name:
    """One name during one batch: what it holds, what is owed to it, what was seen."""

    __slots__ = ("holds", "in_batch", "moves", "next_move", "owed", "place", "seen")

    def __init__(self, place: Place, holds: Holder) -> None:
        self.place = place
        self.holds: Holder = holds
        # The values say which thread did it.
        self.owed: dict[Bit, int] = {}
        self.seen: dict[Bit, int] = {}
        # All of the batch, also what the walk has not come to.
        self.in_batch: dict[Key, int] = {}
        self.moves: list[Move] = []
        self.next_move = 0

    def see(self, bits: int, node: Key, thread: int) -> None:
        """Note bits that were read."""
        for bit in (_CREATE, _DELETE):
            if bits & bit:
                self.seen[bit, node] = thread

    def owe(self, bits: int, node: Key, thread: int) -> None:
        """Note bits that were read and not told."""
        for bit in (_CREATE, _DELETE):
            if bits & bit:
                self.owed[bit, node] = thread

    def can(self, bit: int, node: Key) -> bool:
        """Whether some record of this batch says that it happened."""
        return (bit, node) in self.seen

    def can_leave_later(self, node: Key) -> bool:
        """Whether a record of the batch may still take ``node`` away from the name."""
        return self.next_move < len(self.moves) or bool(self.in_batch.get(node, 0) & _DELETE)

    def is_left_by_rename(self, node: Key) -> bool:
        """Whether the next rename that touches the name takes ``node`` away from it.

        In an exchange the other node's arrival is reported before.
        """
        coming = self.moves[self.next_move : self.next_move + 2]
        if coming and not coming[0].leaves and coming[0].node != node:
            del coming[0]
        return bool(coming) and coming[0] == (node, True)


class Settler:
    """Settles one source's batches, in the order in which they were read.

    ``own`` holds the thread ids of the server that serves the client.
    """

    def __init__(self, own: Container[int] = ()) -> None:
        self.own = own
        self.carried: dict[tuple[int, Key], int] = {}
        self.expected: dict[int, Key] = {}
        self.anticipated: dict[Place, Bit] = {}
        self.departed: set[Key] = set()
        self.suspects: dict[Place, list[Record]] = {}
        self.held: list[Record] = []
        self.held_disk: dict[Place, Key | None] = {}

    @property
    def carrying(self) -> bool:
        """Whether something waits for its explanation; then settle again soon, with flush."""
        return bool(self.carried or self.held or self.suspects)

    def places(self, records: Sequence[Record]) -> set[Place]:
        """The names whose state on the disk settle() has to be told.

        Those are the names that merging can have put out of order.  A name with
        one event is in order, and so is one that was only renamed, unless a node came
        back to a name that it had left (then it can have left again, by the same
        rename).  There is none in a batch of a queue that was read at once.
        """
        if self.held:
            records = [*self.held, *records]
        crowded = {end for about in self.suspects.values() for end in ends(about)}
        once: set[Place] = set()
        moves: list[Record] = []
        for record in records:
            mask, _, place, _, _ = record
            if not mask & _STRUCTURE or place is None:
                continue
            if mask & _RENAME:
                moves.append(record)
            elif place in once or mask & _NAMES == _NAMES:
                crowded.add(place)
            else:
                once.add(place)
        if moves:
            crowded |= once.intersection(ends(moves))
            crowded.update(ends(returning(moves)))
        return crowded

    def settle(
        self,
        records: Sequence[Record],
        disk: Mapping[Place, Key | None],
        told: Callable[[Place], Holder],
        *,
        flush: bool = False,
    ) -> list[Change]:
        """The changes of one batch, ordered.

        ``disk`` says what the names of places() hold, read after the records
        were; see collect().  ``told(place)`` is what the client had been told, before
        this batch, that the name holds.  ``flush`` says that the queue has been
        empty for a while: what is carried is not going to be explained.
        """
        if len(records) <= _FEW and not disk:
            changes = self.plain(records)
            if changes is not None:
                return changes
        if self.held:
            records = [*self.held, *records]
            disk = {**self.held_disk, **disk}
            self.held, self.held_disk = [], {}
        if not flush and self.is_half_an_exchange(records, disk, told):
            self.held, self.held_disk = list(records), dict(disk)
            return []
        walk = _Walk(self, records, disk, told)
        walk.run(flush)
        if flush:
            self.expected.clear()
            self.anticipated.clear()
        return walk.result()

    def plain(self, records: Sequence[Record]) -> list[Change] | None:
        """The changes of a few records that need no walk; None if they do.

        Nothing waits from before, and each is of a name (not a rename, not the
        server's), with at most one event of its own.  That is what a queue gives that is
        read at once, and there the time until the event is told counts.
        """
        if self.carried or self.expected or self.anticipated or self.suspects or self.held:
            return None
        changes: list[Change] = []
        once: set[Place] = set()
        for mask, thread, place, node, _ in records:
            names = mask & _STRUCTURE
            if place is None or place.name == _SELF or thread in self.own:
                return None
            if names:
                if names & (names - 1) or names == _RENAME or place in once:
                    return None
                once.add(place)
            is_dir = bool(mask & _ISDIR)
            if names == _CREATE:
                changes.append(Change(Kind.CREATE, place, node, is_dir, thread=thread))
            changes += [
                Change(kind, place, node, is_dir, thread=thread)
                for kind in _KINDS[mask & _MIDLIFE_BITS]
            ]
            if names == _DELETE:
                if node is not None:
                    self.departed.add(node)
                changes.append(Change(Kind.DELETE, place, node, is_dir, thread=thread))
        return changes

    def is_half_an_exchange(
        self,
        records: Sequence[Record],
        disk: Mapping[Place, Key | None],
        told: Callable[[Place], Holder],
    ) -> bool:
        """Whether a rename over something may be the first of an exchange's two.

        Its thread's next record tells: the other half, or the link count of what was
        replaced.  It is on its way, unless the thread is not seen again for long.
        """
        going_on: set[int] = set()
        for index in range(len(records) - 1, max(len(records) - _BETWEEN_HALVES, 0) - 1, -1):
            mask, thread, place, node, new_place = records[index]
            if (
                mask & _RENAME
                and thread not in going_on
                and thread not in self.own
                and new_place is not None
                and may_be_occupied(new_place, node, records, told)
                and disk.get(place, UNKNOWN) is not None  # type: ignore[arg-type]
                and not completes_an_exchange(index, records)
            ):
                return True
            going_on.add(thread)
        return False


def ends(moves: Iterable[Record]) -> Iterator[Place]:
    """The names that renames touch."""
    for _, _, place, _, new_place in moves:
        if place is not None:
            yield place
        if new_place is not None:
            yield new_place


def returning(moves: Sequence[Record]) -> list[Record]:
    """The renames of nodes that were renamed to where they had been renamed from."""
    if len(moves) < 2:
        return []
    left: set[tuple[Place | None, Key | None]] = set()
    returned: set[Key | None] = set()
    for _, _, place, node, new_place in moves:
        left.add((place, node))
        if (new_place, node) in left:
            returned.add(node)
    return [move for move in moves if move.node in returned] if returned else []


def may_be_occupied(
    place: Place, node: Key | None, records: Iterable[Record], told: Callable[[Place], Holder]
) -> bool:
    """Whether the name may hold another node when the last of the records renames onto it."""
    if told(place) not in (None, UNKNOWN, node):
        return True
    arrivals = sum(
        new_place == place or (at == place and bool(mask & _CREATE))
        for mask, _, at, _, new_place in records
    )
    return arrivals > 1


def completes_an_exchange(index: int, records: Sequence[Record]) -> bool:
    """Whether the rename is the second half: its thread's last record was the first."""
    _, thread, place, node, new_place = records[index]
    earlier = records[max(index - _BETWEEN_HALVES, 0) : index]
    for mask, before, other_place, other, other_new in reversed(earlier):
        if before == thread:
            swapped = other_place == new_place and other_new == place
            return bool(mask & _RENAME) and swapped and other != node
    return False


class _Walk:
    """One batch, from its first record to what its names owe at the end."""

    def __init__(
        self,
        settler: Settler,
        records: Sequence[Record],
        disk: Mapping[Place, Key | None],
        told: Callable[[Place], Holder],
    ) -> None:
        self.settler = settler
        self.records = records
        self.disk = disk
        self.told = told
        self.changes: list[Change] = []
        self.thread = 0
        self.names: dict[Place, Name] = {}
        self.directories: set[Key] = set()
        self.inside: dict[Key, list[Name]] = {}
        self.paired: set[int] = set()
        self.nameless: dict[tuple[int, Key], tuple[int, int]] = {}
        self.replaced: set[tuple[int, Key]] = set()
        self.counted: set[tuple[int, Key]] = set(settler.carried)
        self.linking: set[Key] = {node for _, node in settler.carried}
        # For the server's own changes: names that they touch, what was told of
        # those, and what a change that was told became.
        self.owned: set[Place] = set()
        self.mentions: dict[Place, list[int]] = {}
        self.instead: dict[int, list[Change]] = {}
        self.replaced_by: dict[int, Key] = {}
        self.renamed: dict[int, int] = {}
        self.moved: list[Record] = []
        self.moved_to: dict[tuple[Place | None, Key | None], list[Record]] = {}
        self.suspects, settler.suspects = settler.suspects, {}
        for move in dict.fromkeys(move for about in self.suspects.values() for move in about):
            if move.mask & _RENAME:
                self.note_move(move)

    # The walk

    def run(self, flush: bool) -> None:
        self.survey()
        expected = self.settler.expected
        own = self.settler.own
        names = self.names
        for index, (mask, thread, place, node, new_place) in enumerate(self.records):
            self.thread = thread
            if expected and thread in expected:
                self.meet_expectation(mask, thread, place, node)
            if place is None:
                self.inode_only(index, mask, thread, node)
            elif place.name == _SELF:
                self.inode_only(index, mask, thread, place.directory)
            elif thread in own:
                self.own_record(index, mask, thread, place, node, new_place)
            elif mask & _RENAME:
                self.rename(index, mask, thread, place, node, new_place, False)
            elif place in names and node is not None and mask & _NAMES:
                self.name_record(mask, thread, names[place], node, False)
            else:
                self.tell_as_read(mask, place, node)
        self.finish(flush)

    def finish(self, flush: bool) -> None:
        """Pay what is owed, demand what the disk says, judge what stands alone."""
        # A batch of nothing explains nothing.
        judges = bool(self.records) or flush
        if judges and self.suspects:
            self.repeat_renames()
        names = list(self.names.values())
        for name in names:
            self.close(name, self.disk.get(name.place, UNKNOWN))
        if not judges:
            self.settler.suspects = self.suspects
        elif self.moved:
            for name in names:
                self.suspect(name)
        self.close_nameless(flush)

    def survey(self) -> None:
        """Find the names that need a state, and what they are going to see."""
        settler, records = self.settler, self.records
        own = settler.own
        moves = [record for record in records if record[0] & _RENAME]
        self.owned.update(
            ends(record for record in records if record[1] in own and record[0] & _STRUCTURE)
        )
        tracked = settler.places(records) | self.owned
        if settler.anticipated:
            tracked |= {place for _, _, place, _, _ in records if place in settler.anticipated}
        if tracked or moves or self.moved:
            self.survey_moves(moves)
            self.survey_names(tracked)

    def survey_moves(self, moves: list[Record]) -> None:
        for known in ends(self.moved):
            self.name(known)
        for _, _, place, node, new_place in moves:
            for end, leaves in ((place, True), (new_place, False)):
                if end is not None:
                    self.name(end).moves.append(Move(node, leaves))

    def survey_names(self, tracked: set[Place]) -> None:
        for mask, _, place, node, _ in self.records:
            if not mask & _NAMES or place is None or node is None:
                continue
            if place in tracked or place in self.names:
                in_batch = self.name(place).in_batch
                in_batch[node] = in_batch.get(node, 0) | mask

    def name(self, place: Place) -> Name:
        name = self.names.get(place)
        if name is None:
            # A client knows its own changes before their records are read.
            holds = UNKNOWN if place in self.owned else self.told(place)
            name = self.names[place] = Name(place, holds)
            self.inside.setdefault(place.directory, []).append(name)
        return name

    def own_record(
        self,
        index: int,
        mask: int,
        thread: int,
        place: Place,
        node: Key | None,
        new_place: Place | None,
    ) -> None:
        if mask & _RENAME:
            self.rename(index, mask, thread, place, node, new_place, True)
        elif mask & _NAMES and node is not None:
            bits = mask & (_NAMES | _ISDIR)
            self.name_record(bits, thread, self.names[place], node, True)

    # A record of a name that nothing else in the batch touches

    def tell_as_read(self, mask: int, place: Place, node: Key | None) -> None:
        is_dir = bool(mask & _ISDIR)
        if mask & _CREATE:
            self.tell(Kind.CREATE, place, node, is_dir, linked=node in self.linking)
        self.tell_midlife(mask, place, node, is_dir)
        if mask & _DELETE:
            if is_dir and node is not None:
                self.empty_directory(node)
            self.tell(Kind.DELETE, place, node, is_dir)

    def tell_midlife(self, mask: int, place: Place | None, node: Key | None, is_dir: bool) -> None:
        bits = mask & _MIDLIFE_BITS
        if bits:
            for kind in _KINDS[bits]:
                self.tell(kind, place, node, is_dir)

    # A record of a name that other records of the batch touch too

    def name_record(self, mask: int, thread: int, name: Name, node: Key, own: bool) -> None:
        """CREATE, DELETE or both of ``node`` at a name, and what else its mask holds."""
        if mask & _ISDIR:
            self.directories.add(node)
        name.see(mask, node, thread)
        bits = self.not_anticipated(mask & _NAMES, name, node)
        exact = bits == mask & _NAMES and not mask & _MIDLIFE_BITS
        comes = bits & _CREATE and self.creates_here(name, node, bits, exact)
        goes = not comes and bits & _DELETE and self.deletes_here(name, node, thread, bits, exact)
        if comes:
            self.make_free(name)
            self.pay_before(name, node)
            self.do(name, _CREATE, node, thread)
            bits &= ~_CREATE
        if not own:
            self.tell_midlife(mask, name.place, node, bool(mask & _ISDIR))
        if goes:
            self.make_hold(name, node)
            self.do(name, _DELETE, node, thread)
            bits &= ~_DELETE
        name.owe(bits, node, thread)

    def not_anticipated(self, bits: int, name: Name, node: Key) -> int:
        """The bits without the one that the disk had already demanded."""
        anticipated = self.settler.anticipated
        if not anticipated:
            return bits
        bit, about = anticipated.get(name.place, (0, None))
        if not bits & bit or about != node:
            return bits
        del anticipated[name.place]
        is_so = name.holds != node if bit == _DELETE else name.holds in (node, UNKNOWN)
        return bits & ~bit if is_so else bits

    def creates_here(self, name: Name, node: Key, bits: int, exact: bool) -> bool:
        """Whether the CREATE of a record comes first, and where the record stands."""
        if name.holds == node:
            return exact and not bits & _DELETE
        if exact or name.holds is None or name.holds is UNKNOWN:
            return True
        return (_DELETE, name.holds) in name.owed

    def deletes_here(self, name: Name, node: Key, thread: int, bits: int, exact: bool) -> bool:
        """Whether the DELETE of a record comes first, and where the record stands.

        The kernel reports the link count before; a record that is not exact and
        stands before that was put there by something else.  It matters only
        where a rename can have come in between.
        """
        if not exact and name.moves:
            counted = (thread, node) in self.counted
            if not counted or name.is_left_by_rename(node):
                return False
        return name.holds in (node, UNKNOWN) or not bits & _CREATE

    # Renames

    def rename(
        self,
        index: int,
        mask: int,
        thread: int,
        place: Place,
        node: Key | None,
        new_place: Place | None,
        own: bool,
    ) -> None:
        if index in self.paired:
            return
        if new_place is None or node is None:
            self.tell_rename(mask, place, node, new_place, own)
            return
        old, new = self.names[place], self.names[new_place]
        old.next_move += 1
        new.next_move += 1
        self.note_move(self.records[index])
        if self.settler.anticipated:
            leaves, comes = self.not_anticipated_ends(old, node, new)
            if not (leaves and comes):
                self.tell_half(mask, old if leaves else None, node, new if comes else None, own)
                return
        partner = self.other_half(index, thread, place, node, new_place)
        if partner is not None:
            self.paired.add(partner)
            self.note_move(self.records[partner])
            old.next_move += 1
            new.next_move += 1
            self.exchange(mask, old, node, new, self.records[partner].node, own)
            return
        self.make_hold(old, node)
        self.make_way(new, node, thread, own)
        self.tell_rename(mask, place, node, new_place, own)
        old.holds, new.holds = None, node

    def make_way(self, name: Name, node: Key, thread: int, own: bool) -> None:
        """Before a rename: what the name holds is deleted, if that is owed, or is replaced."""
        gone = name.holds
        if gone is None:
            return
        if gone == node:
            self.pay(name, _DELETE, node)
        elif gone is not UNKNOWN and (_DELETE, gone) in name.owed:
            self.make_free(name)
        elif own:
            return
        elif gone is UNKNOWN:
            self.settler.expected[thread] = _ANY
            self.renamed[thread] = len(self.changes)
        else:
            self.empty_directory(gone)
            self.replaced.add((thread, gone))
            self.settler.expected[thread] = gone
            self.settler.departed.add(gone)
            self.replaced_by[len(self.changes)] = gone

    def other_half(
        self, index: int, thread: int, place: Place, node: Key, new_place: Place
    ) -> int | None:
        """The index of the rename that makes an exchange of this one.

        It is the next record of the thread, and nothing happened to the names between.
        """
        records = self.records
        for after in range(index + 1, min(index + _BETWEEN_HALVES, len(records))):
            mask, other_thread, other_place, other, other_new = records[after]
            if other_thread == thread:
                swapped = other_place == new_place and other_new == place
                if mask & _RENAME and swapped and other is not None and other != node:
                    return after
                return None
            if mask & _STRUCTURE and {other_place, other_new} & {place, new_place}:
                return None
        return None

    def exchange(
        self, mask: int, old: Name, node: Key, new: Name, other: Key | None, own: bool
    ) -> None:
        assert other is not None
        self.make_hold(old, node)
        self.make_hold(new, other)
        if own:
            self.supersede(old.place)
            self.supersede(new.place)
        else:
            is_dir = bool(mask & _ISDIR)
            change = Change(
                Kind.EXCHANGE, old.place, node, is_dir, new.place, other, thread=self.thread
            )
            self.add(change, old.place, new.place)
        old.holds, new.holds = other, node

    def tell_rename(
        self, mask: int, place: Place | None, node: Key | None, new_place: Place | None, own: bool
    ) -> None:
        if own:
            for end in (place, new_place):
                if end is not None:
                    self.supersede(end)
            return
        is_dir = bool(mask & _ISDIR)
        change = Change(Kind.RENAME, place, node, is_dir, new_place, thread=self.thread)
        self.add(change, place, new_place)

    def note_move(self, move: Record) -> None:
        if move.mask & _ISDIR and move.node is not None:
            self.directories.add(move.node)
        self.moved.append(move)
        self.moved_to.setdefault((move.new_place, move.node), []).append(move)

    def tell_half(
        self, mask: int, old: Name | None, node: Key, new: Name | None, own: bool
    ) -> None:
        """What is left of a rename of which the disk had demanded a half, or all."""
        if old is not None:
            self.make_hold(old, node)
            self.tell_rename(mask, old.place, node, None, own)
            old.holds = None
        if new is not None:
            self.make_free(new)
            self.tell_rename(mask, None, node, new.place, own)
            new.holds = node

    def not_anticipated_ends(self, old: Name, node: Key, new: Name) -> tuple[bool, bool]:
        """Which of a rename's halves are still to be told: the disk may have demanded some."""
        anticipated = self.settler.anticipated
        leaves = comes = True
        if anticipated.get(old.place) == (_RENAME, node):
            del anticipated[old.place]
            leaves = old.holds == node
        if anticipated.get(new.place) == (_RENAME, node):
            del anticipated[new.place]
            comes = new.holds != node
        return leaves, comes

    def suspect(self, name: Name) -> None:
        """At the very end: the disk disagrees, and a rename may be hidden.

        It may also be something of which no record has been read: wait for one more
        batch.  If that explains nothing, tell each end of the name on its own.
        """
        place, target, holds = name.place, self.disk.get(name.place, UNKNOWN), name.holds
        if target is UNKNOWN or holds is UNKNOWN or holds == target:
            return
        about = [move for move in self.moved if place in (move.place, move.new_place)]
        if place not in self.suspects:
            if about and target is not None and name.can(_CREATE, target):
                about.append(Record(_CREATE, name.seen[_CREATE, target], place, target))
            if about:
                self.settler.suspects[place] = about
            return
        if holds is not None:
            if any(move.place == place and move.node == holds for move in about):
                self.demand_half(about[0], name, holds, None)
            else:
                name.see(_DELETE, holds, about[0].thread)
                self.demand(name, _DELETE, holds)
        if any(move.new_place == place and move.node == target for move in about):
            self.demand_half(about[0], name, target, target)
        for mask, thread, _, node, _ in self.suspects[place]:
            if name.holds is None and mask & _CREATE and node is not None and node == target:
                name.see(_CREATE, node, thread)
                self.demand(name, _CREATE, node)

    def demand_half(self, move: Record, name: Name, node: Key | None, holds: Key | None) -> None:
        if node is None:
            return
        self.thread = move.thread
        is_dir = _ISDIR if node in self.directories else 0
        old, new = (name.place, None) if holds is None else (None, name.place)
        self.tell_rename(is_dir, old, node, new, move.thread in self.settler.own)
        self.settler.anticipated[name.place] = (_RENAME, node)
        name.holds = holds

    def repeat_renames(self) -> None:
        """At the end: a node that came back to a name may have left it as it did before."""
        moves: dict[Key, list[Record]] = {}
        for move in self.moved:
            if move.node is not None:
                moves.setdefault(move.node, []).append(move)
        for node, taken in moves.items():
            self.take_home(node, taken)

    def take_home(self, node: Key, taken: list[Record]) -> None:
        """Repeat the renames that lead from where a node is to where the disk has it."""
        disk, names = self.disk, self.names
        astray = [
            move.place
            for move in taken
            if move.place in self.suspects
            and names[move.place].holds == node
            and disk.get(move.place, node) != node
        ]
        if not astray:
            return
        at, way = astray[0], list[Record]()
        for move in taken:
            if move.place == at and move.new_place is not None and disk.get(at) != node:
                way.append(move)
                at = move.new_place
        if disk.get(at) != node or names[at].holds == node:
            return
        for mask, thread, place, _, new_place in way:
            if place is not None and new_place is not None:
                self.settler.anticipated[place] = (_RENAME, node)
                self.settler.anticipated[new_place] = (_RENAME, node)
                self.repeat(mask, thread, names[place], node, names[new_place])

    def repeat(self, mask: int, thread: int, old: Name, node: Key, new: Name) -> None:
        """The same rename again, or the same exchange."""
        own = thread in self.settler.own
        self.thread = thread
        for other in self.moved:
            swapped = other.place == new.place and other.new_place == old.place
            if swapped and other.node == new.holds and self.disk.get(old.place) == new.holds:
                self.exchange(mask, old, node, new, other.node, own)
                return
        self.make_way(new, node, thread, own)
        self.tell_rename(mask, old.place, node, new.place, own)
        old.holds, new.holds = None, node

    # Paying what is owed

    def do(self, name: Name, bit: int, node: Key, thread: int) -> None:
        """Tell that ``node`` came to the name, or left it."""
        is_dir = node in self.directories
        if bit == _DELETE and is_dir:
            self.empty_directory(node)
        name.holds = node if bit == _CREATE else None
        if thread in self.settler.own:
            self.supersede(name.place)
        else:
            walking, self.thread = self.thread, thread
            linked = bit == _CREATE and node in self.linking
            self.tell(_KIND_OF[bit], name.place, node, is_dir, linked=linked)
            self.thread = walking

    def pay(self, name: Name, bit: int, node: Key) -> None:
        """Tell what is owed, or what a record says and may have happened twice."""
        thread = name.owed.pop((bit, node), name.seen.get((bit, node), 0))
        self.do(name, bit, node, thread)

    def make_free(self, name: Name) -> None:
        """Let go what the name holds, as far as a record says that it went."""
        gone = name.holds
        if gone is None or gone is UNKNOWN:
            return
        if name.can(_DELETE, gone):
            self.pay(name, _DELETE, gone)
        name.holds = None

    def make_hold(self, name: Name, node: Key) -> None:
        """Make the name hold the node, as far as a record says that it came."""
        if name.holds == node:
            return
        if name.holds is not UNKNOWN and name.can(_CREATE, node):
            self.make_free(name)
            self.linking.add(node)
            self.pay(name, _CREATE, node)
        elif name.holds is not UNKNOWN:
            self.move_here(name, node)
        name.holds = node

    def move_here(self, name: Name, node: Key) -> None:
        """If a rename was seen that brings the node to the name, it happened twice."""
        for mask, thread, place, _, _ in self.moved_to.get((name.place, node), ()):
            old = self.names[place] if place is not None else name
            if old.holds == node and old is not name:
                self.make_free(name)
                self.repeat(mask, thread, old, node, name)
                return

    def empty_directory(self, directory: Key) -> None:
        """Before a directory goes: everything in it has gone."""
        for name in self.inside.get(directory, ()):
            self.close(name, None)

    def close(self, name: Name, target: Holder) -> None:
        """At the end: pay what is owed, then demand what the disk says."""
        self.pay_all(name, target)
        holds = name.holds
        if target is UNKNOWN or holds is UNKNOWN or holds == target:
            return
        if holds is not None and name.can(_DELETE, holds):
            self.demand(name, _DELETE, holds)
        if name.holds is None and target is not None and self.may_be_linked(name, target):
            self.demand(name, _CREATE, target)

    def pay_before(self, name: Name, node: Key) -> None:
        """Before a node comes to a free name to stay: it is the last chance to pay."""
        if name.owed and not name.can_leave_later(node):
            self.pay_all(name, None)
            self.make_free(name)

    def pay_all(self, name: Name, target: Holder) -> None:
        """Pay each debt once, in whatever order the name can live them."""
        owed = name.owed
        while owed:
            bit, node = self.next_debt(name, target)
            if self.is_payable(name, bit, node):
                if name.holds != node:
                    self.make_hold(name, node)
                if (bit, node) in owed:
                    self.make_free(name)
                if (bit, node) in owed:
                    self.make_hold(name, node)
            owed.pop((bit, node), None)

    def is_payable(self, name: Name, bit: int, node: Key) -> bool:
        """Whether the name can live it: come if it is away, go if it is there."""
        holds = name.holds
        if holds is not None and holds is not UNKNOWN and not name.can(_DELETE, holds):
            return False
        return bit == _CREATE or holds == node or name.can(_CREATE, node)

    def may_be_linked(self, name: Name, node: Key) -> bool:
        """Whether a CREATE can hide a second one: a link, whose count was reported."""
        return name.can(_CREATE, node) and any(node == about for _, about in self.counted)

    def next_debt(self, name: Name, target: Holder) -> Bit:
        """The debt that can be paid now; what the disk holds comes last."""
        holds = name.holds
        if holds is not None and holds is not UNKNOWN and (_DELETE, holds) in name.owed:
            return _DELETE, holds
        return min(name.owed, key=lambda debt: (debt[0] != _CREATE, debt[1] == target))

    def demand(self, name: Name, bit: int, node: Key) -> None:
        self.linking.add(node)
        self.pay(name, bit, node)
        self.settler.anticipated[name.place] = (bit, node)

    # Records of an inode alone

    def inode_only(self, index: int, mask: int, thread: int, node: Key | None) -> None:
        if mask & _OVERFLOW or node is None:
            self.overflow(mask)
            return
        own = thread in self.settler.own
        waits = mask & _DELETE_SELF
        if mask & _ATTRIB and not own:
            if mask & _ISDIR:
                if (thread, node) in self.replaced:
                    mask &= ~_ATTRIB
            else:
                mask &= ~_ATTRIB
                waits |= _ATTRIB
                self.linking.add(node)
                self.counted.add((thread, node))
        if not own:
            self.tell_midlife(mask, None, node, bool(mask & _ISDIR))
        if waits:
            before = self.nameless.get((thread, node), (0, 0))[1]
            self.nameless[thread, node] = (index, before | waits | mask & _ISDIR)

    def overflow(self, mask: int) -> None:
        """Nothing is known of what was lost: nothing is waited for any more."""
        if not mask & _OVERFLOW:
            return
        self.close_carried()
        self.settler.expected.clear()
        self.settler.anticipated.clear()
        self.changes.append(Change(Kind.OVERFLOW, None, None))

    def meet_expectation(
        self, mask: int, thread: int, place: Place | None, node: Key | None
    ) -> None:
        """The record after a thread's rename: the link count of what that replaced?"""
        expected = self.settler.expected.pop(thread)
        if place is not None and place.name == _SELF:
            node, place = place.directory, None
        if expected == _ANY and mask & _ISDIR and not mask & _DELETE_SELF:
            # Directories have an ATTRIB of their own, by chmod: take it for that.
            return
        if place is None and node is not None and mask & _ATTRIB and expected in (node, _ANY):
            self.replaced.add((thread, node))
            self.settler.departed.add(node)
            if thread in self.renamed:
                self.replaced_by[self.renamed[thread]] = node

    def close_carried(self) -> None:
        carried, self.settler.carried = self.settler.carried, {}
        for (_, node), waits in carried.items():
            self.tell_nameless(node, waits)

    def close_nameless(self, flush: bool) -> None:
        """At the end: drop what is explained, carry what may still be, tell the rest."""
        settler = self.settler
        waiting = {key: (-1, waits) for key, waits in settler.carried.items()}
        for key, (index, waits) in self.nameless.items():
            waiting[key] = (index, waits | waiting.get(key, (0, 0))[1])
        if not waiting:
            return
        settler.carried = {}
        explained = self.explanations()
        last = {record.thread: index for index, record in enumerate(self.records)}
        for (thread, node), (index, waits) in waiting.items():
            if (thread, node) in explained:
                waits &= ~_ATTRIB
            elif not flush and self.may_be_explained(thread, node, index, waits, last):
                settler.carried[thread, node] = waits
                continue
            if thread in settler.own and node not in settler.departed:
                continue
            self.tell_nameless(node, waits)

    def explanations(self) -> set[tuple[int, Key]]:
        """(thread, node) of everything that changes a link count by itself."""
        explained = set(self.replaced)
        for mask, thread, place, node, _ in self.records:
            if mask & _NAMES and place is not None and node is not None:
                explained.add((thread, node))
        return explained

    def may_be_explained(
        self, thread: int, node: Key, index: int, waits: int, last: Mapping[int, int]
    ) -> bool:
        """Whether the thread has not gone on since: its very next event may explain it."""
        if thread in self.settler.own:
            return False
        if not waits & _ATTRIB and node in self.settler.departed:
            return False
        return thread == 0 or last.get(thread, index) <= index

    def tell_nameless(self, node: Key, waits: int) -> None:
        is_dir = bool(waits & _ISDIR)
        if waits & _ATTRIB:
            self.changes.append(Change(Kind.ATTRIB, None, node, is_dir, linked=True))
        if waits & _DELETE_SELF:
            self.settler.departed.discard(node)
            self.changes.append(Change(Kind.DEATH, None, node, is_dir))

    # Telling, and taking back

    def tell(
        self,
        kind: Kind,
        place: Place | None,
        node: Key | None,
        is_dir: bool,
        *,
        linked: bool = False,
    ) -> None:
        if kind is Kind.DELETE and node is not None:
            self.settler.departed.add(node)
        change = _tuple(Change, (kind, place, node, is_dir, None, None, linked, self.thread))
        if self.owned:
            self.add(change, place, None)
        else:
            self.changes.append(change)

    def add(self, change: Change, place: Place | None, new_place: Place | None) -> None:
        for end in (place, new_place):
            if end is not None and end in self.owned:
                self.mentions.setdefault(end, []).append(len(self.changes))
        self.changes.append(change)

    def supersede(self, place: Place) -> None:
        """The server changed this name itself: what is told of it is out of date."""
        for index in self.mentions.pop(place, ()):
            before = self.instead.get(index, [self.changes[index]])
            after = [kept for change in before for kept in without(change, place)]
            if index in self.replaced_by and self.changes[index].new_place == place:
                after.append(Change(Kind.DELETE, None, self.replaced_by.pop(index)))
            self.instead[index] = after

    def result(self) -> list[Change]:
        if not self.instead:
            return self.changes
        instead = self.instead
        return [
            change
            for index, told in enumerate(self.changes)
            for change in instead.get(index, (told,))
        ]


def without(change: Change, place: Place) -> Iterator[Change]:
    """What is left of a change when one of its names is not to be spoken of."""
    kind = change.kind
    if kind is Kind.EXCHANGE:
        yield from without_exchanged(change, place)
    elif kind is Kind.RENAME:
        old = None if change.place == place else change.place
        new = None if change.new_place == place else change.new_place
        if old is not None or new is not None:
            yield change._replace(place=old, new_place=new)
    elif change.place != place:
        yield change
    elif kind is not Kind.CREATE:
        yield change._replace(place=None)


def without_exchanged(change: Change, place: Place) -> Iterator[Change]:
    """An exchange of which one name is not to be spoken of: two halves of renames."""
    if change.place == place:
        here, came, went = change.new_place, change.node, change.other
    else:
        here, came, went = change.place, change.other, change.node
    yield Change(Kind.RENAME, here, went)
    yield Change(Kind.RENAME, None, came, new_place=here)


def collect(
    read: Callable[[], list[Record]],
    node_at: Callable[[Place], Key | None],
    settler: Settler,
    rounds: int = 3,
) -> tuple[list[Record], dict[Place, Key | None]]:
    """One batch, and what the disk holds at the names that settle() asks for.

    ``read`` empties the queue, ``node_at`` looks at the disk.  What is read
    after a look may have changed what it saw, so those names are looked at again,
    at most ``rounds`` times: then the disk can be newer than the records are.
    """
    records = read()
    disk: dict[Place, Key | None] = {}
    stale = settler.places(records)
    for left in reversed(range(rounds)):
        if not stale:
            break
        for place in stale:
            disk[place] = node_at(place)
        fresh = read() if left else []
        if not fresh:
            break
        records += fresh
        touched = {place for record in fresh for place in (record.place, record.new_place)}
        stale = {p for p in settler.places(records) if p not in disk or p in touched}
    return records, disk
