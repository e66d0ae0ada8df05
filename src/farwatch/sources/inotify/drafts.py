"""A record on its way: of which node it is is not known until the batch has been read."""

from __future__ import annotations

from farwatch.events import Mask, Place, Record
from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.tenants import Tenant, Tenants

RENAME = int(Mask.RENAME)
CREATE = int(Mask.CREATE)
DELETE = int(Mask.DELETE)
_STRUCTURE = RENAME | CREATE | DELETE
_OVERFLOW = int(Mask.Q_OVERFLOW)


class Draft:
    """See events.Record.

    ``replaced`` is what the new name of a rename held, ``thread`` who is known to have
    made it, ``doings`` who else may have.
    """

    __slots__ = ("doings", "mask", "new_place", "place", "replaced", "tenant", "thread")

    def __init__(
        self, mask: int, tenant: Tenant, place: Place | None, doings: tuple[Doing, ...]
    ) -> None:
        self.mask = mask
        self.tenant = tenant
        self.place = place
        self.new_place: Place | None = None
        self.replaced: Tenant | None = None
        self.doings = doings
        self.thread = 0

    def record(self, tenants: Tenants) -> Record:
        """The record; whatever is not known by now will not be."""
        if self.mask & _OVERFLOW:
            return Record(self.mask, 0, None, None)
        node = tenants.key_of(self.tenant)
        thread = self.thread
        if not thread and not self.mask & _STRUCTURE:
            for doing in self.doings:
                if doing.concerns(node):
                    thread = doing.thread
        return Record(self.mask, thread, self.place, node, self.new_place)
