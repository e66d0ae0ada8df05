"""Files that were removed and that nobody follows: of their end nobody will tell.

Nobody in the client can be watching what it does not know; but its agent waits for their end,
for they may be open still: until they are closed, their directory goes, or there are too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from farwatch.events import Key, Mask, Place
from farwatch.sources.inotify.drafts import DELETE, Draft
from farwatch.sources.inotify.tenants import Tenant, Tenants

_ISDIR = int(Mask.ISDIR)
_DELETE_SELF = int(Mask.DELETE_SELF)
_CLOSE = int(Mask.CLOSE_WRITE | Mask.CLOSE_NOWRITE)
_MOST = 64


class Unheard:
    """Those of one source; ``is_told_of`` says whether a node's own mark tells of a kind."""

    def __init__(self, tenants: Tenants, is_told_of: Callable[[Key, int], bool]) -> None:
        self._tenants = tenants
        self._is_told_of = is_told_of
        self._left: OrderedDict[Key, Place] = OrderedDict()
        """And from where each was removed."""

    def with_ends(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts of a batch, and among them the ends that nobody tells of."""
        ended = {draft.tenant.key for draft in drafts if draft.mask & _DELETE_SELF}
        left, found = self._left, list[Draft]()
        for draft in drafts:
            key = self._tenants.key_of(draft.tenant) if draft.mask & (DELETE | _CLOSE) else b""
            is_heard = key in ended or self._is_told_of(key, _DELETE_SELF)
            if draft.mask & DELETE and draft.mask & _ISDIR:
                inside = [ghost for ghost, at in left.items() if at.directory == key]
                found += [self._end(ghost) for ghost in inside]
                found += [] if is_heard else [Draft(_DELETE_SELF | _ISDIR, draft.tenant, None, ())]
            elif draft.mask & DELETE and draft.place is not None and not is_heard:
                left[key] = draft.place
            found.append(draft)
            if draft.mask & _CLOSE and key in left:
                found.append(self._end(key))
        while len(left) > _MOST:
            found.append(self._end(next(iter(left))))
        return found

    def _end(self, key: Key) -> Draft:
        del self._left[key]
        return Draft(_DELETE_SELF, Tenant(key), None, ())
