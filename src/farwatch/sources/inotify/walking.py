"""The events of a batch, one after the other: each becomes a draft.

Who holds which name is kept along the way; whatever that does not say is left open, or
looked up at once where what follows depends on it.

    MOVED_FROM ──cookie──> MOVED_TO     one draft; two that go opposite ways are an exchange,
                                        or the second of them replaces what the first has left
    MOVED_FROM alone                    the draft waits in ``moves`` for its other half
    an event of a node itself           a draft, unless its directory was told the same
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from farwatch.events import Key, Mask, Place
from farwatch.sources.inotify.burial import end_of, with_ends
from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.drafts import CREATE, DELETE, RENAME, Draft
from farwatch.sources.inotify.heard import Heard
from farwatch.sources.inotify.neighbours import claimed, just_counted, made, mover, next_alone
from farwatch.sources.inotify.nodes import Nodes, found_at, has_no_name
from farwatch.sources.inotify.tenants import Tenant, Tenants, elsewhere
from farwatch.sources.inotify.twice import Twice

_ISDIR = int(Mask.ISDIR)
_MOVED_FROM = int(Mask.MOVED_FROM)
_MOVED_TO = int(Mask.MOVED_TO)
_MOVE_SELF = int(Mask.MOVE_SELF)
_DELETE_SELF = int(Mask.DELETE_SELF)
_ATTRIB = int(Mask.ATTRIB)
_SELF = b"."


class Walk:
    """Through one batch.

    ``tenants`` and ``twice`` go on from batch to batch.  ``is_told_of`` says whether a node's
    own mark tells of a kind, ``followed`` what is followed.
    """

    def __init__(
        self,
        tenants: Tenants,
        twice: Twice,
        nodes: Nodes | None,
        is_told_of: Callable[[Key, int], bool],
        followed: Callable[[], Iterable[Key]],
    ) -> None:
        self._tenants = tenants
        self._twice = twice
        self._nodes = nodes
        self._is_told_of = is_told_of
        self._followed = followed
        self.drafts: list[Draft] = []
        self.moves: dict[int, Draft] = {}
        """By cookie: renames of which the second half has not been heard."""
        self.counted: list[Tenant] = []
        """Whose link count may be another than before."""
        self.away: list[Tenant] = []
        """Who may be where nobody follows."""

    def give_up_halves(self) -> None:
        """What was renamed and has not arrived has gone where nobody follows."""
        for draft in self.moves.values():
            draft.new_place = elsewhere(id(draft))
            self.counted.append(draft.tenant)
            self.away.append(draft.tenant)

    def insert_ends(self, heard: Iterable[Heard]) -> None:
        """These DELETE_SELF go before the DELETE of the same node, which may be long walked."""
        self.drafts = with_ends(self.drafts, map(end_of, heard))

    def walk(self, heard: Sequence[Heard]) -> None:
        """Some events more, in their order."""
        twice = self._twice
        for index, one in enumerate(heard):
            twice.heard += 1
            if one.mark is None:
                self._lost(one)
            elif not one.name:
                self._walk_self(one)
            else:
                self._walk_name(heard, index, one, Place(one.mark.key, one.name))

    def _lost(self, one: Heard) -> None:
        self.moves.clear()
        self._twice.clear()
        self._tenants.clear()
        self.counted += map(Tenant, self._followed())
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
            tenants.leave(place, tenant)
            self.counted.append(tenant)
            self._draft(mask, tenant, place, doings).thread = claimed(doings, place, DELETE)
        elif mask & _MOVED_FROM:
            tenant = tenants.remove(place)
            draft = self._draft(RENAME | mask & _ISDIR, tenant, place, doings)
            draft.thread = claimed(doings, place, _MOVED_FROM)
            self.moves[one.cookie] = draft
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
            self._twice.note(draft, is_twice=is_twice)

    def _by_descriptor(self, heard: Sequence[Heard], index: int, place: Place) -> Tenant | None:
        """What was removed from a name, if that is what the event of the name is about.

        Another may hold the name by now.  Then the file's own mark has the next word.
        """
        left = self._tenants.left(place)
        return Tenant(left) if left is not None and next_alone(heard, index) == left else None

    def _dead_at(self, place: Place) -> Key | None:
        """What the client was told that the name holds, if that has no name any more."""
        key = self._tenants.perhaps(place)
        return key if key is not None and has_no_name(self._nodes, key) else None

    def _draft(
        self, mask: int, tenant: Tenant, place: Place | None, doings: tuple[Doing, ...]
    ) -> Draft:
        draft = Draft(mask, tenant, place, doings)
        self.drafts.append(draft)
        return draft

    def _arrive(self, heard: Sequence[Heard], index: int, one: Heard, place: Place) -> None:
        """MOVED_TO: the second half of a rename, or one from where nobody follows."""
        tenants = self._tenants
        thread = claimed(one.doings, place, _MOVED_TO)
        draft = self.moves.pop(one.cookie, None)
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
                tenants.leave(place, draft.replaced)
                self.counted.append(draft.replaced)
        tenants.put(place, draft.tenant)

    def _swapped(self, draft: Draft) -> Draft | None:
        """The rename right before this one that was the other way round."""
        for before in reversed(self.drafts):
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
        found = found_at(self._nodes, draft.place)
        return found is not None and first in (None, found)

    def _walk_self(self, one: Heard) -> None:
        """An event of a node itself."""
        mark = one.mark
        assert mark is not None
        mask, key = one.mask, mark.key
        is_dir = _ISDIR if mark.is_dir else 0
        if mask & _MOVE_SELF:
            self._note_mover(key)
        elif mask & _DELETE_SELF:
            self.drafts.append(end_of(one))
        elif not self._twice.is_told(one.mask, key):
            place = Place(key, _SELF) if is_dir else None
            self._draft(mask | is_dir, Tenant(key), place, one.doings)
            if mask & _ATTRIB and not is_dir:
                self.counted.append(Tenant(key))

    def _note_mover(self, key: Key) -> None:
        for draft in reversed(self.drafts):
            if draft.mask & RENAME:
                if draft.tenant.key is None:
                    draft.tenant.key = key
                return
