"""From what was heard to records, a batch at a time.

walk      each event becomes a draft; who holds which name is kept along the way (walking.py)
resolve   names whose holder is not known are looked up; what is read meanwhile is walked,
          and its names are looked up again
bury      files that have no name left are let go of by the export, so that who else has
          them open, or nobody, is all that keeps them (burial.py)
write     drafts become records

Everything here is done by the thread that reads the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from farwatch.events import Key, Mask, Place, Record
from farwatch.sources.inotify.burial import Burial, is_end_of
from farwatch.sources.inotify.drafts import CREATE, DELETE, Draft
from farwatch.sources.inotify.heard import Heard
from farwatch.sources.inotify.neighbours import is_count
from farwatch.sources.inotify.nodes import Nodes, found_at
from farwatch.sources.inotify.tenants import Tenants, Told, elsewhere
from farwatch.sources.inotify.twice import Twice
from farwatch.sources.inotify.unheard import Unheard
from farwatch.sources.inotify.walking import Walk

_ISDIR = int(Mask.ISDIR)
_ATTRIB = int(Mask.ATTRIB)
_ROUNDS = 3
_HALF_SECONDS = 0.002
"""How long the other half of a rename is waited for, or what tells of which node an event is:
the kernel queues it right behind."""


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
        self._twice = Twice()
        self._burial = Burial(widen)
        self._unheard = Unheard(self._tenants, is_told_of)
        self._explained: set[Key | None] = set()
        """The nodes of the names that came or went in the last batch."""

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

    def records(
        self,
        heard: Sequence[Heard],
        take: Callable[[], list[Heard]],
        wait: Callable[[float], None],
    ) -> list[Record]:
        """The records of a batch, and of what comes while it is read.

        ``take`` gives what has been heard since, ``wait`` waits for something to take.
        """
        walk = Walk(self._tenants, self._twice, self._nodes, self._is_told_of, self._followed)
        if self._is_half_told(heard[-1]) or is_count(heard[-1]):
            wait(_HALF_SECONDS)
            heard = [*heard, *take()]
        walk.walk(heard)
        if walk.moves:
            wait(_HALF_SECONDS)
            walk.walk(take())
        self._resolve(walk, take)
        walk.give_up_halves()
        died = self._bury(walk, take)
        drafts = self._unheard.with_ends(walk.drafts)
        self._place_attributes(drafts, died)
        records = [draft.record(self._tenants) for draft in drafts]
        self._tenants.close()
        return records

    def _bury(self, walk: Walk, take: Callable[[], list[Heard]]) -> set[Key]:
        """Let go of what has no name left, and of what loses it while the ends are read."""
        died: set[Key] = set()
        for left in reversed(range(_ROUNDS)):
            newly = self._burial.bury(walk.counted, walk.away)
            died |= newly
            if not newly or not left:
                # What was let go of last is heard of in a batch to come.
                break
            fresh = take()
            walk.walk([one for one in fresh if not is_end_of(one, died)])
            walk.insert_ends(one for one in fresh if is_end_of(one, died))
            self._resolve(walk, take)
        return died

    def _is_half_told(self, last: Heard) -> bool:
        """Whether the next event will tell of which node this is; see walking.py."""
        if last.mark is None or not last.name:
            return False
        left = self._tenants.left(Place(last.mark.key, last.name))
        return left is not None and self._is_told_of(left, last.mask & ~_ISDIR)

    def _place_attributes(self, drafts: Sequence[Draft], died: set[Key]) -> None:
        """What a file's own mark told of, and no name that came or went explains.

        It is not its link count then, or was changed where nobody follows.  Its name may have
        been read to be another's right before, or its end be about to tell.
        """
        explained = set[Key | None](died)
        for draft in drafts:
            if draft.mask & (CREATE | DELETE):
                explained.add(draft.tenant.key)
            elif draft.replaced is not None:
                explained.add(draft.replaced.key)
        before, self._explained = self._explained, explained
        for draft in drafts:
            if draft.mask == _ATTRIB and draft.place is None:
                key = draft.tenant.key
                draft.place = None if key in explained or key in before else elsewhere(0)

    def _resolve(self, walk: Walk, take: Callable[[], list[Heard]]) -> None:
        """Look up names whose holder is not known.

        A look that something was read of afterwards is not believed, unless there is always
        something.
        """
        for left in reversed(range(_ROUNDS)):
            looks = {place: found_at(self._nodes, place) for place in self._tenants.unknown()}
            if not looks:
                return
            fresh = take() if left else []
            before = self._tenants.touched()
            walk.walk(fresh)
            touched = {Place(one.mark.key, one.name) for one in fresh if one.mark is not None}
            for place, key in looks.items():
                tenant = before.get(place)
                if tenant is not None and tenant.key is None and place not in touched:
                    tenant.key = key if key is not None else self._tenants.key_of(tenant)
