"""From what was heard to records, a batch at a time.

walk      each event becomes a draft; who holds which name is kept along the way
resolve   names whose holder is not known are looked up; what is read meanwhile is walked,
          and its names are looked up again
bury      files that have no name left are let go of by the export, so that who else has
          them open, or nobody, is all that keeps them
write     drafts become records

Everything here is done by the thread that reads the source.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

from farwatch.events import Key, Mask, Place, Record
from farwatch.sources.inotify.burial import Burial, is_end_of, with_ends
from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.drafts import CREATE, DELETE, RENAME, Draft
from farwatch.sources.inotify.heard import Heard
from farwatch.sources.inotify.neighbours import (
    claimed,
    is_count,
    just_counted,
    made,
    mover,
    next_alone,
)
from farwatch.sources.inotify.nodes import Nodes
from farwatch.sources.inotify.tenants import (
    Tenant,
    Tenants,
    Told,
    elsewhere,
    is_ghost,
)

_ISDIR = int(Mask.ISDIR)
_MOVED_FROM = int(Mask.MOVED_FROM)
_MOVED_TO = int(Mask.MOVED_TO)
_MOVE_SELF = int(Mask.MOVE_SELF)
_DELETE_SELF = int(Mask.DELETE_SELF)
_ATTRIB = int(Mask.ATTRIB)
_CLOSE = int(Mask.CLOSE_WRITE | Mask.CLOSE_NOWRITE)
_SELF = b"."
_ROUNDS = 3
_HALF_SECONDS = 0.002
"""How long the other half of a rename is waited for, or what tells of which node an event is:
the kernel queues it right behind."""
_MOST_UNHEARD = 64
_PAIRED_WITHIN = 4
"""What a directory is told comes again without a name so many events later, at most: other
processors' events may come between."""


class Reading:
    """Reads the batches of one source, in their order.

    ``widen`` has a file's content heard without a name, ``is_told_of`` says whether a
    node's own mark tells of a kind, and ``followed`` what is followed.
    """

    def __init__(
        self,
        widen: Callable[[Key, int], None],
        is_told_of: Callable[[Key, int], bool],
        followed: Callable[[], Iterable[Key]],
    ) -> None:
        self._nodes: Nodes | None = None
        self._is_told_of = is_told_of
        self._followed = followed
        self._tenants = Tenants()
        self._burial = Burial(widen)
        self._explained: set[Key | None] = set()
        """The nodes of the names that came or went in the last batch."""
        self._unheard: OrderedDict[Key, Place] = OrderedDict()
        """Files that were removed, of whose end nobody will tell; and from where."""
        self._heard = 0
        """How many events were heard so far."""
        self._recent: deque[tuple[int, bool, Draft]] = deque(maxlen=_PAIRED_WITHIN)
        """What directories were told last: when, whether it is told again without a name, and
        what."""
        self._begin()

    def attach(self, nodes: Nodes) -> None:
        """Say what nodes are asked of."""
        self._nodes = self._burial.nodes = nodes

    @property
    def told(self) -> Callable[[Place], Told]:
        """See Tenants."""
        return self._tenants.told

    @told.setter
    def told(self, told: Callable[[Place], Told]) -> None:
        self._tenants.told = told

    def _begin(self) -> None:
        self._drafts: list[Draft] = []
        self._moves: dict[int, Draft] = {}
        """By cookie: renames of which the second half has not been heard."""
        self._counted: list[Tenant] = []
        """Whose link count may be another, or who may be where nobody follows."""
        self._away: list[Tenant] = []

    def records(
        self,
        heard: Sequence[Heard],
        take: Callable[[], list[Heard]],
        wait: Callable[[float], None],
    ) -> list[Record]:
        """The records of a batch, and of what comes while it is read.

        ``take`` gives what has been heard since, ``wait`` waits for something to take.
        """
        self._begin()
        if self._is_half_told(heard[-1]) or is_count(heard[-1]):
            wait(_HALF_SECONDS)
            heard = [*heard, *take()]
        self._walk(heard)
        if self._moves:
            wait(_HALF_SECONDS)
            self._walk(take())
        self._resolve(take)
        for draft in self._moves.values():
            draft.new_place = elsewhere(id(draft))
            self._counted.append(draft.tenant)
            self._away.append(draft.tenant)
        died = self._burial.bury(self._counted, self._away)
        if died:
            fresh = take()
            self._walk([one for one in fresh if not is_end_of(one, died)])
            ends = [self._ended(one) for one in fresh if is_end_of(one, died)]
            self._drafts = with_ends(self._drafts, ends)
            self._resolve(take)
        self._drafts = self._with_unheard_ends()
        self._place_attributes(died)
        records = [draft.record(self._tenants) for draft in self._drafts]
        for draft in self._drafts:
            if draft.mask & DELETE and draft.place is not None:
                self._tenants.leave(draft.place, draft.tenant)
            elif draft.replaced is not None and draft.new_place is not None:
                self._tenants.leave(draft.new_place, draft.replaced)
        self._tenants.close()
        return records

    def _is_half_told(self, last: Heard) -> bool:
        """Whether the next event will tell of which node this is; see ``_by_descriptor``."""
        if last.mark is None or not last.name:
            return False
        left = self._tenants.left(Place(last.mark.key, last.name))
        return left is not None and self._is_told_of(left, last.mask & ~_ISDIR)

    def _place_attributes(self, died: set[Key]) -> None:
        """What a file's own mark told of, and no name that came or went explains.

        It is not its link count then, or was changed where nobody follows.  Its name may have
        been read to be another's right before, or its end be about to tell.
        """
        explained = set[Key | None](died)
        for draft in self._drafts:
            if draft.mask & (CREATE | DELETE):
                explained.add(draft.tenant.key)
            elif draft.replaced is not None:
                explained.add(draft.replaced.key)
        before, self._explained = self._explained, explained
        for draft in self._drafts:
            if draft.mask == _ATTRIB and draft.place is None:
                key = draft.tenant.key
                draft.place = None if key in explained or key in before else elsewhere(0)

    def _with_unheard_ends(self) -> list[Draft]:
        """The drafts, and among them the ends of what was removed and not followed.

        Of those nobody tells, and nobody in the client can be watching what it does not know;
        but its agent waits for them, for they may be open still: until they are closed, their
        directory goes, or there are too many.
        """
        ended = {draft.tenant.key for draft in self._drafts if draft.mask & _DELETE_SELF}
        unheard, found = self._unheard, list[Draft]()
        for draft in self._drafts:
            key = self._tenants.key_of(draft.tenant) if draft.mask & (DELETE | _CLOSE) else b""
            is_heard = key in ended or self._is_told_of(key, _DELETE_SELF)
            if draft.mask & DELETE and draft.mask & _ISDIR:
                inside = [ghost for ghost, at in unheard.items() if at.directory == key]
                found += [self._unheard_end(ghost) for ghost in inside]
                found += [] if is_heard else [Draft(_DELETE_SELF | _ISDIR, draft.tenant, None, ())]
            elif draft.mask & DELETE and draft.place is not None and not is_heard:
                unheard[key] = draft.place
            found.append(draft)
            if draft.mask & _CLOSE and key in unheard:
                found.append(self._unheard_end(key))
        while len(unheard) > _MOST_UNHEARD:
            found.append(self._unheard_end(next(iter(unheard))))
        return found

    def _unheard_end(self, key: Key) -> Draft:
        del self._unheard[key]
        return Draft(_DELETE_SELF, Tenant(key), None, ())

    # Walking -----------------------------------------------------------------------------

    def _walk(self, heard: Sequence[Heard]) -> None:
        for index, one in enumerate(heard):
            self._heard += 1
            if one.mark is None:
                self._lost(one)
            elif not one.name:
                self._walk_self(one)
            else:
                self._walk_name(heard, index, one, Place(one.mark.key, one.name))

    def _lost(self, one: Heard) -> None:
        self._moves.clear()
        self._recent.clear()
        self._tenants.clear()
        self._counted += map(Tenant, self._followed())
        self._draft(one.mask, Tenant(), None, ())

    def _walk_name(self, heard: Sequence[Heard], index: int, one: Heard, place: Place) -> None:
        mask, doings, tenants = one.mask, one.doings, self._tenants
        if mask & CREATE:
            tenant = Tenant(made(doings, place), is_new=True)
            tenants.put(place, tenant)
            self._draft(mask, tenant, place, doings).thread = claimed(doings, place, CREATE)
        elif mask & DELETE:
            tenant = tenants.remove(place)
            if tenant.key is None and not tenant.is_new:
                tenant.key = just_counted(heard, index) or self._dead_at(place)
            self._counted.append(tenant)
            self._draft(mask, tenant, place, doings).thread = claimed(doings, place, DELETE)
        elif mask & _MOVED_FROM:
            tenant = tenants.remove(place)
            draft = self._draft(RENAME | mask & _ISDIR, tenant, place, doings)
            draft.thread = claimed(doings, place, _MOVED_FROM)
            self._moves[one.cookie] = draft
        elif mask & _MOVED_TO:
            self._arrive(heard, index, one, place)
        else:
            tenant = self._by_descriptor(heard, index, place) or tenants.at(place)
            draft = self._draft(mask, tenant, place, doings)
            key = tenant.key
            # The mark may have gone since with its node: then what it told is heard already.
            is_twice = key is not None and (
                self._is_told_of(key, mask) or next_alone(heard, index) == key
            )
            self._recent.append((self._heard, is_twice, draft))

    def _by_descriptor(self, heard: Sequence[Heard], index: int, place: Place) -> Tenant | None:
        """What was removed from a name, if that is what the event of the name is about.

        Another may hold the name by now.  Then the file's own mark has the next word.
        """
        left = self._tenants.left(place)
        return Tenant(left) if left is not None and next_alone(heard, index) == left else None

    def _dead_at(self, place: Place) -> Key | None:
        """What the client was told that the name holds, if that has no name any more."""
        key = self._tenants.perhaps(place)
        if key is None or self._nodes is None:
            return None
        try:
            fd = self._nodes.open_node(key)
        except OSError:
            return key
        try:
            return None if os.fstat(fd).st_nlink else key
        finally:
            os.close(fd)

    def _draft(
        self, mask: int, tenant: Tenant, place: Place | None, doings: tuple[Doing, ...]
    ) -> Draft:
        draft = Draft(mask, tenant, place, doings)
        self._drafts.append(draft)
        return draft

    def _arrive(self, heard: Sequence[Heard], index: int, one: Heard, place: Place) -> None:
        """MOVED_TO: the second half of a rename, or one from where nobody follows."""
        tenants = self._tenants
        thread = claimed(one.doings, place, _MOVED_TO)
        draft = self._moves.pop(one.cookie, None)
        if draft is None:
            tenant = Tenant(made(one.doings, place), is_new=True)
            draft = self._draft(
                RENAME | one.mask & _ISDIR, tenant, elsewhere(one.cookie), one.doings
            )
            draft.thread = thread
        elif not thread:
            draft.thread = 0
        draft.new_place = place
        before = self._swapped(draft)
        if before is not None and self._is_exchange(before, draft, mover(heard, index)):
            assert draft.place is not None
            tenants.put(draft.place, before.tenant)
            draft.tenant = before.replaced or Tenant()
        else:
            draft.replaced = tenants.present(place)
            if draft.replaced is not None:
                self._counted.append(draft.replaced)
        tenants.put(place, draft.tenant)

    def _swapped(self, draft: Draft) -> Draft | None:
        """The rename right before this one that was the other way round."""
        for before in reversed(self._drafts):
            if before.mask & RENAME and before is not draft:
                is_swapped = before.place == draft.new_place and before.new_place == draft.place
                return before if is_swapped else None
            if before.mask & (CREATE | DELETE):
                return None
        return None

    def _is_exchange(self, before: Draft, draft: Draft, mover: Key | None) -> bool:
        """Whether what went the other way is what was in the way, or the same once more."""
        first, other = before.tenant.key, before.replaced
        if (before.mask ^ draft.mask) & _ISDIR:
            return True
        if mover is not None and first is not None:
            return mover != first
        if mover is not None and other is not None and other.key is not None:
            return mover == other.key
        assert draft.place is not None
        found = self._look(draft.place)
        return found is not None and found != first

    def _walk_self(self, one: Heard) -> None:
        """An event of a node itself."""
        mark = one.mark
        assert mark is not None
        mask, key = one.mask, mark.key
        is_dir = _ISDIR if mark.is_dir else 0
        if mask & _MOVE_SELF:
            self._note_mover(key)
        elif mask & _DELETE_SELF:
            self._drafts.append(self._ended(one))
        elif not self._is_told(one.mask, key):
            place = Place(key, _SELF) if is_dir else None
            self._draft(mask | is_dir, Tenant(key), place, one.doings)
            if mask & _ATTRIB and not is_dir:
                self._counted.append(Tenant(key))

    def _ended(self, one: Heard) -> Draft:
        """A DELETE_SELF."""
        assert one.mark is not None
        mask = _DELETE_SELF | (_ISDIR if one.mark.is_dir else 0)
        return Draft(mask, Tenant(one.mark.key), None, one.doings)

    def _note_mover(self, key: Key) -> None:
        for draft in reversed(self._drafts):
            if draft.mask & RENAME:
                if draft.tenant.key is None:
                    draft.tenant.key = key
                return

    def _is_told(self, mask: int, key: Key) -> bool:
        """Whether its directory was told the same, by name: the kernel tells that first."""
        for entry in reversed(self._recent):
            when, is_twice, draft = entry
            if draft.mask != mask or self._heard - when > _PAIRED_WITHIN:
                continue
            tenant = draft.tenant
            if tenant.key is None and not tenant.is_new and self._heard - when == 1:
                tenant.key = key
            elif tenant.key != key or not is_twice:
                continue
            self._recent.remove(entry)
            return True
        return False

    # Resolving ---------------------------------------------------------------------------

    def _resolve(self, take: Callable[[], list[Heard]]) -> None:
        """Look up names whose holder is not known.

        A look that something was read of afterwards is not believed, unless there is always
        something.
        """
        for left in reversed(range(_ROUNDS)):
            looks = {place: self._look(place) for place in self._tenants.unknown()}
            if not looks:
                return
            fresh = take() if left else []
            before = self._tenants.touched()
            self._walk(fresh)
            touched = {Place(one.mark.key, one.name) for one in fresh if one.mark is not None}
            for place, key in looks.items():
                tenant = before.get(place)
                if tenant is not None and tenant.key is None and place not in touched:
                    tenant.key = key if key is not None else self._tenants.key_of(tenant)

    def _look(self, place: Place) -> Key | None:
        if self._nodes is None or is_ghost(place.directory):
            return None
        try:
            return self._nodes.look(place)
        except OSError:
            return None
